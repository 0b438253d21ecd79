"""The kernel gives large pages where it is asked, and what is in them stays."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from service.gallery.large_pages import ask_for_large_pages
from service.gallery.sieve import Sieve
from service.gallery.team import Team

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SIZE = 16 << 20


def large_kib(address: int, size: int) -> int:
    """Of the mappings that a range lies in."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start < address + size and address < end
        elif inside and first == "AnonHugePages:":
            found += int(line.split()[1])
    return found


@pytest.mark.skipif(
    sys.platform != "linux" or not _ENABLED.exists() or "[never]" in _ENABLED.read_text(), reason="no large pages here"
)
def test_a_written_range_is_moved_to_large_pages() -> None:
    array = np.arange(_SIZE // 8)
    address = array.__array_interface__["data"][0]
    ask_for_large_pages(address, _SIZE)
    assert large_kib(address, _SIZE) >= (_SIZE >> 10) // 2
    np.testing.assert_array_equal(array, np.arange(_SIZE // 8))


@pytest.mark.parametrize(("address", "size"), [(0, 0), (4096, 8192), (1 << 62, 4 << 20)])
def test_nothing_happens_where_there_is_nothing_to_ask_for(address: int, size: int) -> None:
    ask_for_large_pages(address, size)


def test_a_sieve_finds_the_same_with_rows_added_one_part_after_another() -> None:
    drawn = np.random.default_rng(0).normal(size=(90_000, 128)).astype(np.float32)
    matrix = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    team = Team(0)
    begun = Sieve.fitted(matrix[:2_000], gallery_rows=90_000)
    whole, parts = begun.extended(matrix), begun.extended(matrix[:70_000]).extended(matrix[70_000:])
    found = whole.candidates(matrix[:50], 10, team)
    np.testing.assert_array_equal(found, parts.candidates(matrix[:50], 10, team))
    assert (found[:, 0] == np.arange(50)).mean() > 0.9
    for shard in parts._shards:
        assert shard.codes.size() == 90_016 * 32
