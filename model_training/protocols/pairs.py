"""Lists of pairs as their data sets are handed out: LFW, CFP, AgeDB-30, CALFW, CPLFW, and InsightFace's .bin files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_training.protocols.embedding import Picture, ProtocolError
from model_training.protocols.packed import read_packed

_FOLDS = 10
# Where CALFW and CPLFW keep their pictures, aligned ones and originals.
_PICTURE_FOLDERS = ("aligned images", "images", "")


@dataclass(frozen=True)
class Pair:
    """Two pictures and whether they show one person."""

    first: Picture
    second: Picture
    same: bool


@dataclass(frozen=True)
class PairList:
    """Pairs, fold after fold in equal parts.

    Attributes:
        person: whose picture it is, where the layout says so.
    """

    pairs: list[Pair]
    folds: int
    person: Callable[[Picture], str] | None = None

    @property
    def pictures(self) -> list[Picture]:
        """Each picture once, in the order of the pairs."""
        return list(dict.fromkeys(picture for pair in self.pairs for picture in (pair.first, pair.second)))


def read_lfw_pairs(pairs_file: Path, folder: Path) -> PairList:
    """LFW: `pairs.txt`, and pictures at `Name/Name_0001.jpg`.

    Each fold lists its same-person pairs (`name i j`), then as many of different people (`name i other j`).

    Raises:
        ProtocolError: the file has another form, or a picture is missing.
    """
    lines = [line.split() for line in _lines(pairs_file)]
    try:
        folds, per_fold = int(lines[0][0]), int(lines[0][1])
        pairs = [_lfw_pair(row, folder) for row in lines[1:]]
    except (IndexError, ValueError) as error:
        raise ProtocolError(f"{pairs_file} is not a pairs file in LFW's format") from error
    if len(pairs) != folds * per_fold * 2:
        raise ProtocolError(f"{pairs_file} announces {folds * per_fold * 2} pairs and holds {len(pairs)}")
    return _complete(PairList(pairs, folds, lambda picture: picture.name.rpartition("_")[0]))


def _lfw_pair(row: list[str], folder: Path) -> Pair:
    def picture(name: str, number: str) -> Path:
        return folder / name / f"{name}_{int(number):04d}.jpg"

    if len(row) == 3:
        return Pair(picture(row[0], row[1]), picture(row[0], row[2]), same=True)
    first, first_number, second, second_number = row
    return Pair(picture(first, first_number), picture(second, second_number), same=False)


def read_cfp_pairs(folder: Path, kind: str) -> PairList:
    """CFP: `Protocol/Pair_list_F.txt` and `_P.txt` number the pictures, `Protocol/Split/FP/01/same.txt` lists `i,j`.

    Args:
        folder: with `Data` and `Protocol`.
        kind: `FF`, frontal to frontal, or `FP`, frontal to profile.

    Raises:
        ProtocolError: a file is missing or has another form.
    """
    protocol = folder / "Protocol"
    frontal = _numbered(protocol / "Pair_list_F.txt")
    other = frontal if kind == "FF" else _numbered(protocol / "Pair_list_P.txt")
    splits = sorted(path for path in (protocol / "Split" / kind).glob("*") if path.is_dir())
    folds = []
    for split in splits:
        fold = []
        for name, same in (("same.txt", True), ("diff.txt", False)):
            for line in _lines(split / name):
                try:
                    first, second = (int(part) for part in line.split(","))
                    fold.append(Pair(frontal[first], other[second], same))
                except (KeyError, ValueError) as error:
                    raise ProtocolError(f"{split / name}: {line!r} names no two pictures") from error
        folds.append(fold)
    if len(folds) < 2 or len({len(fold) for fold in folds}) > 1:
        raise ProtocolError(f"{protocol / 'Split' / kind} does not hold equal folds")
    # Data/Images/PERSON/frontal/01.jpg
    pairs = [pair for fold in folds for pair in fold]
    return _complete(PairList(pairs, len(folds), lambda picture: Path(str(picture)).parts[-3]))


def _numbered(listing: Path) -> dict[int, Path]:
    """Pictures by number; paths are relative to the listing."""
    root = listing.parent.parent.resolve()
    pictures = {}
    for line in _lines(listing):
        number, _, path = line.strip().partition(" ")
        picture = (listing.parent / path.strip()).resolve()
        if not number.isdigit() or not picture.is_relative_to(root):
            raise ProtocolError(f"{listing}: {line!r} is no number and picture of this data set")
        pictures[int(number)] = picture
    return pictures


def read_two_line_pairs(pairs_file: Path, folder: Path) -> PairList:
    """CALFW and CPLFW: two lines a pair, each a picture's name and a number, which is 0 for different people.

    The numbers of same-person pairs may be folds, but those of different people have none: both are divided in order.

    Raises:
        ProtocolError: the file has another form, or a picture is missing.
    """
    lines = [line.rsplit(maxsplit=1) for line in _lines(pairs_file)]
    pairs = []
    for first, second in zip(lines[::2], lines[1::2], strict=False):
        if len(first) != 2 or len(second) != 2 or first[1] != second[1] or not first[1].isdigit():
            raise ProtocolError(f"{pairs_file}: {first} and {second} are no pair")
        pairs.append(Pair(_found(first[0], folder), _found(second[0], folder), same=first[1] != "0"))
    if len(lines) % 2:
        raise ProtocolError(f"{pairs_file} ends in the middle of a pair")
    # Name_0001.jpg
    return _complete(_in_folds(pairs, pairs_file, lambda picture: picture.name.rpartition("_")[0]))


def _found(name: str, folder: Path) -> Path:
    candidates = [folder / part / name for part in _PICTURE_FOLDERS]
    return next((path for path in candidates if path.is_file()), candidates[-1])


def read_annotated_pairs(annotation: Path, folder: Path) -> PairList:
    """AgeDB-30 and others as aligned pictures with `NAME_ann.txt`: `1 first second`, paths from `folder`; 0 otherwise.

    Raises:
        ProtocolError: the file has another form, or a picture is missing.
    """
    pairs = []
    for line in _lines(annotation):
        parts = line.split()
        if len(parts) != 3 or parts[0] not in {"0", "1"}:
            raise ProtocolError(f"{annotation}: {line!r} is not a label and two pictures")
        pairs.append(Pair(folder / parts[1], folder / parts[2], same=parts[0] == "1"))
    return _complete(_in_folds(pairs, annotation))


def read_packed_pairs(path: Path) -> PairList:
    """InsightFace's .bin files (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, ...): aligned pictures of 112 pixels.

    Raises:
        ProtocolError: the file is something else.
    """
    pictures, labels = read_packed(path)
    pairs = [Pair(pictures[2 * at], pictures[2 * at + 1], same) for at, same in enumerate(labels)]
    return _in_folds(pairs, path)


def _in_folds(pairs: Sequence[Pair], source: Path, person: Callable[[Picture], str] | None = None) -> PairList:
    """Ten folds with a tenth of either kind, each in the order of the file.

    Of files whose folds follow each other, same-person pairs first in each, these are the same folds.
    """
    kinds = [[pair for pair in pairs if pair.same is same] for same in (True, False)]
    if any(not kind or len(kind) % _FOLDS for kind in kinds):
        raise ProtocolError(f"{source} has {len(kinds[0])} and {len(kinds[1])} pairs, which make no {_FOLDS} folds")
    ordered = [
        pair
        for fold in range(_FOLDS)
        for kind in kinds
        for pair in kind[fold * len(kind) // _FOLDS : (fold + 1) * len(kind) // _FOLDS]
    ]
    return PairList(ordered, _FOLDS, person)


def _complete(listed: PairList) -> PairList:
    absent = next((each for each in listed.pictures if isinstance(each, Path) and not each.is_file()), None)
    if absent is not None:
        raise ProtocolError(f"no picture at {absent}")
    return listed


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{path} cannot be read: {error}") from error
    return (line for line in text.splitlines() if line.strip())
