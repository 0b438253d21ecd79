"""Whose pictures the service is shown: people it is to know, and strangers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.demo import VERSIONS, jpeg, load_portraits

_KNOWN, _STRANGERS = 24, 24


@dataclass(frozen=True)
class Probe:
    """A picture to identify; `label` is None for a stranger."""

    label: str | None
    picture: bytes


@dataclass(frozen=True)
class Cast:
    """`enrolled` has a picture of each person who is to be known, `probes` other pictures of them, and of strangers."""

    enrolled: Mapping[str, bytes]
    probes: tuple[Probe, ...]


def portraits() -> Cast:
    """Grace Hopper, who is known, and Eileen Collins, who is not: public-domain portraits in several versions."""
    stranger, known = load_portraits()
    probes = [Probe("grace", make(known.pixels)) for make in VERSIONS.values()]
    probes += [Probe(None, make(stranger.pixels)) for make in VERSIONS.values()]
    return Cast({"grace": jpeg(known.pixels)}, tuple(probes))


def people_in(folder: Path) -> Cast:
    """A folder of folders of pictures, each a person's, such as LFW: those with several are known, the others not."""
    known: dict[str, list[Path]] = {}
    strangers: list[Path] = []
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        pictures = sorted(path for path in person.iterdir() if path.is_file())
        if len(pictures) > 1 and len(known) < _KNOWN:
            known[re.sub("[^a-z0-9]+", "-", person.name.lower()).strip("-")] = pictures[:4]
        elif len(pictures) == 1 and len(strangers) < _STRANGERS:
            strangers += pictures
    if not known or not strangers:
        raise SystemExit(f"{folder} needs people with one picture and people with several")
    probes = [Probe(label, path.read_bytes()) for label, paths in known.items() for path in paths[1:]]
    probes += [Probe(None, path.read_bytes()) for path in strangers]
    return Cast({label: paths[0].read_bytes() for label, paths in known.items()}, tuple(probes))
