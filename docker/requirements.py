"""Print what the project needs from the package index, so that images install it in a layer of its own.

python requirements.py pyproject.toml --extra milvus --without onnxruntime
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def requirements(pyproject: Path, extras: list[str], without: list[str]) -> list[str]:
    """Requirements of the project and some of its extras, without some packages.

    Raises:
        SystemExit: the project has no such extra, or does not need a package that is to be left out.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    known = project["optional-dependencies"]
    if unknown := set(extras) - set(known):
        raise SystemExit(f"no such extra: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    wanted = [*project["dependencies"], *(line for extra in extras for line in known[extra])]
    if unknown := set(without) - {_name(line) for line in wanted}:
        raise SystemExit(f"not needed anyway: {', '.join(sorted(unknown))}")
    return [line for line in wanted if _name(line) not in without]


def _name(line: str) -> str:
    match = _NAME.match(line)
    return match.group() if match else line


def main() -> None:
    """Read the arguments, print one requirement a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pyproject", type=Path)
    parser.add_argument("--extra", action="append", default=[], help="may name several, separated by commas")
    parser.add_argument("--without", action="append", default=[], help="packages; may name several as well")
    arguments = parser.parse_args()
    print("\n".join(requirements(arguments.pyproject, _split(arguments.extra), _split(arguments.without))))


def _split(values: list[str]) -> list[str]:
    return [name for value in values for name in value.split(",") if name]


if __name__ == "__main__":
    main()
