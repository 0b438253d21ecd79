"""Enrolled faces by image id: pages of them, and whose one is."""

from __future__ import annotations

from service.api.compreface.ids import face_ids_of, image_id_of, person_id_of, subject_of
from service.api.compreface.schemas import CompreFaceExample, CompreFaceExamples
from service.api.dependencies import RunningService
from service.domain import FaceNotFound, GalleryNotFound, InvalidRequest, Person, PersonNotFound

# A page is found by walking to it.
MAX_LISTED = 200_000
MAX_PAGE = 2_000
_PERSONS_AT_ONCE = 500


async def find_image(running: RunningService, gallery: str, image_id: str) -> tuple[str, str]:
    """Person and face id of an image. Raises FaceNotFound."""
    for face_id in face_ids_of(image_id):
        try:
            return await running.gallery.owner_of(gallery, face_id), face_id
        except (GalleryNotFound, FaceNotFound):
            continue
    raise FaceNotFound(f"Image {image_id} not found")


async def subject_of_person(running: RunningService, gallery: str, person_id: str) -> str:
    """What an enrolled person is called as a subject. Raises GalleryNotFound, PersonNotFound."""
    return subject_of(person_id, (await running.gallery.person(gallery, person_id)).name)


async def page_of_images(
    running: RunningService, gallery: str, subject: str | None, *, page: int, size: int
) -> CompreFaceExamples:
    """Faces by person id, then in the order of enrolment; of one subject if asked.

    Raises:
        InvalidRequest: the page lies beyond what is walked to.
    """
    size = min(size, MAX_PAGE)
    skip = page * size
    if skip + size > MAX_LISTED:
        raise InvalidRequest(
            f"pages reach to the first {MAX_LISTED} images; /v1/galleries/{gallery}/persons lists all", field="page"
        )
    try:
        if subject is not None:
            person = await running.gallery.person(gallery, person_id_of(subject))
            faces, total = _examples(person)[skip : skip + size], len(person.face_ids)
        else:
            total = (await running.gallery.summary(gallery)).faces
            faces = await _walked(running, gallery, skip, size) if skip < total else []
    except (GalleryNotFound, PersonNotFound):
        faces, total = [], 0
    return CompreFaceExamples(
        faces=faces, page_number=page, page_size=size, total_pages=-(-total // size), total_elements=total
    )


async def _walked(running: RunningService, gallery: str, skip: int, size: int) -> list[CompreFaceExample]:
    found: list[CompreFaceExample] = []
    after = None
    while len(found) < size:
        persons = await running.gallery.persons(gallery, after=after, limit=_PERSONS_AT_ONCE)
        for person in persons:
            if skip >= len(person.face_ids):
                skip -= len(person.face_ids)
            else:
                found += _examples(person)[skip:]
                skip = 0
        if len(persons) < _PERSONS_AT_ONCE:
            break
        after = persons[-1].person_id
    return found[:size]


def _examples(person: Person) -> list[CompreFaceExample]:
    subject = subject_of(person.person_id, person.name)
    return [CompreFaceExample(image_id=image_id_of(face_id), subject=subject) for face_id in person.face_ids]
