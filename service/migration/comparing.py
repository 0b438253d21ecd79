"""Whether two models answer alike: mirror images of enrolled faces, searched in both galleries."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain import DomainError, Person
from service.migration.embedding import CropEmbedder
from service.ports import Gallery

SAMPLE = 200
_PERSONS_AT_ONCE = 500
_SEED = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both models answered to the same probes.

    Attributes:
        compared: probes; 0 where no crop is kept.
        same: of them, those for which both name the same person first.
        right_before, right_after: those for which the old and the new model name whose face it is.
    """

    compared: int
    same: int
    right_before: int
    right_after: int


async def compared(before: Gallery, before_model: CropEmbedder, after: Gallery, after_model: CropEmbedder) -> Agreement:
    """Search mirrored crops of up to 200 persons in both galleries, of persons with several faces where there are any.

    Raises Overloaded, NotReady, StorageUnusable.
    """
    same = right_before = right_after = number = 0
    for person in await _sampled(after):
        try:
            crop = await before.crop(person.gallery, person.person_id, person.face_ids[-1])
        except DomainError:
            # Erased in the meantime, or its crop was not kept.
            continue
        (old,), (new,) = (
            await before_model.embed([crop], mirrored=True),
            await after_model.embed([crop], mirrored=True),
        )
        if old is None or new is None:
            continue
        (found_before,) = await before.search(person.gallery, old[None], 1)
        (found_after,) = await after.search(person.gallery, new[None], 1)
        first_before = [match.person_id for match in found_before.matches]
        first_after = [match.person_id for match in found_after.matches]
        number += 1
        same += first_before == first_after
        right_before += first_before == [person.person_id]
        right_after += first_after == [person.person_id]
    return Agreement(number, same, right_before, right_after)


async def _sampled(gallery: Gallery) -> Sequence[Person]:
    """Up to `SAMPLE` persons with faces, evenly drawn from all galleries (Vitter's algorithm R)."""
    dice = random.Random(_SEED)
    several, single = _Reservoir(dice), _Reservoir(dice)
    for summary in await gallery.galleries():
        after = None
        while page := await gallery.persons(summary.name, after=after, limit=_PERSONS_AT_ONCE):
            for person in page:
                if person.face_ids:
                    (several if len(person.face_ids) > 1 else single).offer(person)
            after = page[-1].person_id
    return (several.kept + single.kept)[:SAMPLE]


class _Reservoir:
    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._offered = 0
        self.kept: list[Person] = []

    def offer(self, person: Person) -> None:
        self._offered += 1
        if len(self.kept) < SAMPLE:
            self.kept.append(person)
        elif (place := self._dice.randrange(self._offered)) < SAMPLE:
            self.kept[place] = person
