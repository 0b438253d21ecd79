"""`shrinkface enroll`, `identify` and `verify`."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import typer

from service.cli.connection import Connection, calling
from service.cli.rendering import complain, print_json, print_table, progress, say
from service.client import AsyncShrinkFace, InvalidArgument, PictureNotFetched, ProblemError
from service.client.models import Enrolment, Face, Identification, IdentifiedFace

T = TypeVar("T")

# As many as the service takes in one request, unless it is told otherwise.
_PICTURES_OF_A_REQUEST = 16
_AT_ONCE = 4
# Of answers that are about one picture; anything else would befall the others too.
_OF_THE_PICTURE = (400, 413, 415, 422)
_NOT_AS_HOPED = 3

# As text: a path would take the second slash from an address.
Pictures = Annotated[list[str], typer.Argument(help="Picture files, or http and https addresses.", show_default=False)]
Attributes = Annotated[
    list[str] | None,
    typer.Option(help="What else to tell of each face, such as age or liveness; may be given several times."),
]
Gallery = Annotated[str | None, typer.Option(help="Name of the gallery; by default the service's.")]


@calling
def enroll(
    connection: Connection,
    pictures: Pictures,
    person_id: Annotated[str | None, typer.Option(help="Yours; by default a fresh one.")] = None,
    name: Annotated[str | None, typer.Option(help="What the person is called.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.", metavar="JSON")] = None,
    gallery: Gallery = None,
    on_existing: Annotated[
        Literal["reject", "extend"], typer.Option(help="When the person exists: refuse, or add the faces.")
    ] = "reject",
    on_conflict: Annotated[
        Literal["report", "reject"], typer.Option(help="When somebody else looks like the person: say so, or refuse.")
    ] = "report",
    expires_days: Annotated[float | None, typer.Option(min=0.001, help="Erase the faces after so many days.")] = None,
) -> None:
    """Enrol one person with the one face of each picture.

    Pictures go sixteen to a request, and of a request either all are stored or none.
    """
    described = _object(metadata)
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)

    async def work(client: AsyncShrinkFace) -> None:
        known, existing = person_id, on_existing
        with progress("pictures", len(pictures)) as bar:
            for group in _grouped(pictures):
                try:
                    answer = await client.enrol(
                        group,
                        person_id=known,
                        name=name,
                        metadata=described,
                        gallery=gallery,
                        on_existing=existing,
                        on_conflict=on_conflict,
                        expires_at=expires_at,
                    )
                except ProblemError as error:
                    complain(_named(error, group))
                    raise typer.Exit(code=1) from error
                known, existing = answer.person.person_id, "extend"
                _show_enrolment(connection, group, answer)
                bar.advance(bar.task_ids[0], len(group))

    connection.run(work)


@calling
def identify(
    connection: Connection,
    pictures: Pictures,
    gallery: Gallery = None,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Candidates to list for each face.")] = 5,
    fpir: Annotated[float | None, typer.Option(help="False-positive identification rate to decide at.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Cosine to decide by instead.")] = None,
    max_faces: Annotated[int | None, typer.Option(min=1, help="Look at the largest so many faces only.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every face, however large the gallery.")] = False,
    among: Annotated[
        list[str] | None, typer.Option(help="Person id that it may be; may be given several times.")
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Tell who wears a mask, too.")] = False,
    attribute: Attributes = None,
    fail_unknown: Annotated[
        bool, typer.Option("--fail-unknown", help="End with status 3 when a face is nobody's who is known.")
    ] = False,
) -> None:
    """Say who is in pictures. A picture that cannot be used is told of, and the others go on."""
    failed = unknown = False
    attributes = list(dict.fromkeys([*(["mask"] if masks else []), *(attribute or [])]))

    async def work(client: AsyncShrinkFace) -> None:
        nonlocal failed, unknown

        async def one(picture: str) -> Identification | Exception:
            try:
                return await client.identify(
                    picture,
                    gallery=gallery,
                    top_k=top_k,
                    fpir=fpir,
                    threshold=threshold,
                    max_faces=max_faces,
                    exact=exact,
                    person_ids=among,
                    attributes=attributes,
                )
            except ProblemError as error:
                if error.status not in _OF_THE_PICTURE:
                    raise
                return error
            except (OSError, InvalidArgument, PictureNotFetched) as error:
                return error

        rows: list[tuple[object, ...]] = []
        with progress("pictures", len(pictures)) as bar:
            async for picture, answer in _in_order(pictures, one):
                if isinstance(answer, Exception):
                    failed = True
                    _show_failure(connection, picture, answer)
                else:
                    unknown |= any(not face.decision.identified for face in answer.faces)
                    if connection.as_json:
                        print_json({"picture": picture, **answer.model_dump(mode="json")})
                    rows += _rows(picture, answer, attributes)
                bar.advance(bar.task_ids[0])
        if not connection.as_json and rows:
            columns = ["picture", "face", "decision", "person", "name", "similarity:", "FPIR:", "threshold:"]
            columns[2:2] = attributes
            print_table(columns, rows)

    connection.run(work)
    if failed:
        raise typer.Exit(code=1)
    if unknown and fail_unknown:
        raise typer.Exit(code=_NOT_AS_HOPED)


@calling
def verify(
    connection: Connection,
    picture: Annotated[str, typer.Argument(help="Picture file, or an http or https address.")],
    reference: Annotated[str | None, typer.Argument(help="Picture to compare with.")] = None,
    person_id: Annotated[str | None, typer.Option(help="Compare with this person instead.")] = None,
    gallery: Gallery = None,
    fmr: Annotated[float | None, typer.Option(help="False-match rate to decide at.")] = None,
    attribute: Attributes = None,
    fail_different: Annotated[
        bool, typer.Option("--fail-different", help="End with status 3 when it is not the same person.")
    ] = False,
) -> None:
    """Say whether two pictures, or a picture and somebody enrolled, are of one person."""
    if (reference is None) == (person_id is None):
        raise typer.BadParameter("give a second picture or --person-id")
    answer = connection.run(
        lambda client: client.verify(
            picture, reference, person_id=person_id, gallery=gallery, fmr=fmr, attributes=attribute or []
        )
    )
    if connection.as_json:
        print_json(answer)
    else:
        say(
            f"{'the same person' if answer.same else 'different people'}: similarity {answer.similarity:.3f}, "
            f"threshold {answer.threshold:.3f}, false-match rate {answer.false_match_rate:.2g}",
            "green" if answer.same else "yellow",
        )
        for place, face in (("first", answer.face), ("second", answer.reference)):
            if face is not None and face.attributes:
                said = (f"{name} {_told(name, face)}" for name in face.attributes)
                say(f"{place} face: {', '.join(said)}")
    if fail_different and not answer.same:
        raise typer.Exit(code=_NOT_AS_HOPED)


async def _in_order(
    pictures: Sequence[str], work: Callable[[str], Coroutine[Any, Any, T]]
) -> AsyncIterator[tuple[str, T]]:
    """Do the same with each picture, a few at a time; what came of it, in the order of the pictures."""
    begun: deque[tuple[str, asyncio.Task[T]]] = deque()
    try:
        for picture in pictures:
            begun.append((picture, asyncio.create_task(work(picture))))
            if len(begun) == _AT_ONCE:
                yield begun[0][0], await begun[0][1]
                begun.popleft()
        while begun:
            yield begun[0][0], await begun[0][1]
            begun.popleft()
    finally:
        for _, task in begun:
            task.cancel()
        await asyncio.gather(*(task for _, task in begun), return_exceptions=True)


def _grouped(pictures: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(pictures), _PICTURES_OF_A_REQUEST):
        yield list(pictures[start : start + _PICTURES_OF_A_REQUEST])


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"this is not JSON: {error}", param_hint="--metadata") from error
    if not isinstance(content, dict):
        raise typer.BadParameter("this is no JSON object", param_hint="--metadata")
    return content


def _named(error: ProblemError, pictures: Sequence[str]) -> str:
    """What is wrong, with the file that it is about where the service says which."""
    number = error.extra.get("picture")
    if isinstance(number, int) and 0 <= number < len(pictures):
        return f"{pictures[number]}: {error}"
    return str(error)


def _show_enrolment(connection: Connection, pictures: Sequence[str], answer: Enrolment) -> None:
    if connection.as_json:
        print_json(answer)
        return
    person = answer.person
    say(f"{person.person_id} in {person.gallery}: {len(person.face_ids)} faces")
    rows = [
        (picture, face.face_id, "enrolled before" if face.already else "enrolled", f"{face.quality.side_px:.0f}")
        for picture, face in zip(pictures, answer.faces, strict=False)
    ]
    print_table(("picture", "face", "", "side px:"), rows)
    for conflict in answer.conflicts:
        say(f"looks like {conflict.person_id}, {conflict.name or 'nameless'}: {conflict.similarity:.3f}", "yellow")


def _show_failure(connection: Connection, picture: str, error: Exception) -> None:
    if connection.as_json and isinstance(error, ProblemError):
        print_json({"picture": picture, "problem": error.members})
    elif connection.as_json:
        print_json({"picture": picture, "problem": {"detail": str(error)}})
    else:
        complain(f"{picture}: {error}")


def _rows(picture: str, answer: Identification, attributes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    for number, face in enumerate(answer.faces, start=1):
        told: list[object] = [picture, f"{number} of {answer.faces_total}"]
        told += [_told(name, face) for name in attributes]
        told.append(_decision(face))
        for place, match in enumerate(face.matches):
            first = told if place == 0 else [""] * len(told)
            figures = (f"{match.similarity:.3f}", f"{match.fpir:.2g}", f"{face.decision.threshold:.3f}")
            yield (*first, match.person_id, match.name, *figures)
        if not face.matches:
            yield (*told, None, None, None, None, f"{face.decision.threshold:.3f}")


def _decision(face: IdentifiedFace) -> str:
    return str(face.decision.person_id) if face.decision.identified else "nobody"


def _told(name: str, face: Face) -> str:
    """What is told of a face, in a few words."""
    told = face.attributes.get(name)
    if told is None:
        # A service of before there were several.
        return "-" if face.mask is None else ("worn" if face.mask.worn else "none")
    if name == "mask":
        return "worn" if told.value else "none"
    if isinstance(told.value, bool):
        return f"{'yes' if told.value else 'no'} ({told.probability or 0:.2f})"
    if isinstance(told.value, str):
        return f"{told.value} ({told.probability or 0:.2f})"
    return f"{told.value:g}"
