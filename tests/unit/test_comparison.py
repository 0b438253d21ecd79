"""The comparison's own promises: that its tests are there, its sources are named, and what it lacks is told."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
HEAD = "| | ShrinkFace | shown by |"
LACKS = "## What others have and ShrinkFace has not"
KEY = r"[CIRDAZ]\d+"


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is about, our cell, our tests, and the cells of the others."""

    about: str
    ours: str
    tests: tuple[str, ...]
    others: tuple[str, ...]


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    return PAGE.split(f"{title}\n", 1)[1].split("\n## ", 1)[0]


def rows() -> list[Row]:
    """The lines of every table that compares."""
    found, inside = [], False
    for line in PAGE.splitlines():
        inside = line.startswith(HEAD) or (inside and line.startswith("|"))
        if inside and not line.startswith((HEAD, "|---")):
            about, ours, shown, *others = (cell.strip() for cell in line.strip("|").split("|"))
            found.append(Row(about, ours, tuple(re.findall(r"`([^`]+)`", shown)), tuple(others)))
    return found


@cache
def functions(path: str) -> frozenset[str]:
    """Names of the test functions of a file of the repository."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


ROWS = rows()


def test_there_are_rows_of_six_others_and_none_is_there_twice() -> None:
    assert len(ROWS) > 40
    assert {len(row.others) for row in ROWS} == {6}
    assert len({row.about for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.about)
def test_each_yes_of_ours_names_tests_that_exist(row: Row) -> None:
    assert re.match(r"(yes|no)\b", row.ours)
    assert bool(row.tests) == row.ours.startswith("yes")
    for test in row.tests:
        path, name = test.split("::")
        assert path.startswith("tests/")
        assert name in functions(path), test


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.about)
def test_each_cell_of_the_others_names_its_source(row: Row) -> None:
    for cell in row.others:
        assert cell in {"not found", "\N{EN DASH}"} or re.fullmatch(rf"(yes|no|partly)(: .+)? {KEY}", cell), cell


def test_every_source_is_described_and_used() -> None:
    sources = section("## Sources")
    described = re.findall(rf"\*\*({KEY})\*\*", sources)
    assert len(described) == len(set(described))
    tables = PAGE.split("## Sources", 1)[0]
    assert set(re.findall(rf"\b{KEY}\b", tables)) == set(described)


def test_what_two_others_have_and_we_have_not_is_told() -> None:
    told = re.findall(r"^- (.+)$", section(LACKS), re.MULTILINE)
    lacking = [
        row.about
        for row in ROWS
        if not row.ours.startswith("yes") and sum(cell.startswith("yes") for cell in row.others) >= 2
    ]
    assert told == lacking
