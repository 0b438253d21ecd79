"""Every input that fuzzing began with or found: no crash, no hang, no growth."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from service.vision.imaging import sniff_format
from tests.fuzz import decoder, mutations
from tests.fuzz.targets import NAMES, inputs, target

ROOT = Path(__file__).parents[2]
# Of what an allocator keeps for later; a leak of a picture a round would be a hundred times as much.
MAX_GROWTH_MB = 8.0
ROUNDS = 6


@pytest.mark.parametrize("name", NAMES)
def test_known_inputs_break_no_promise(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.replay", name, "--rounds", str(ROUNDS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert run.stdout, run.stderr[-4_000:]
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen["failures"] == {}
    assert seen["inputs"] >= len(target(name).seeds())
    assert seen["grown_mb"] < MAX_GROWTH_MB


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_small(name: str) -> None:
    assert all(len(data) <= 200_000 for data in inputs(target(name)).values())


def test_a_replay_tells_a_broken_promise_a_hang_and_a_swollen_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.fuzz import replay

    kept: list[bytearray] = []

    def check(data: bytes) -> None:
        if data == b"broken":
            raise ValueError("promise")
        if data == b"slow":
            while not replay.time.process_time() > started + 2 * replay.LIMIT_S:
                pass
        if data == b"large":
            assert len(bytearray(b"x") * 300_000_000) > 0
        if data == b"leak":
            # So large that the allocator asks the system for it, whatever earlier tests have given back.
            kept.append(bytearray(b"x") * 40_000_000)

    monkeypatch.setattr(replay, "LIMIT_S", 0.2)
    monkeypatch.setattr(decoder, "check", check)
    started = replay.time.process_time()
    found = replay.replayed(decoder, {"a": b"", "b": b"broken", "c": b"slow", "d": b"large", "e": b""})
    assert sorted(found) == ["b", "c", "d"]
    assert "promise" in found["b"]
    assert found["c"].startswith("took 0.")
    assert found["d"].endswith("MB")
    assert replay.growth_mb(decoder, {"a": b"leak"}, 3) > 10
    assert abs(replay.growth_mb(decoder, {"a": b""}, 20)) < 2


def test_mutations_know_the_structure_of_files() -> None:
    """Changed and still of a kind that a decoder goes into, and the same for the same seed."""
    chance = random.Random(5)

    def mutate(data: bytes, size: int) -> bytes:
        changed = bytearray(data)
        if changed:
            changed[chance.randrange(len(changed))] ^= 0x55
        return bytes(changed[:size])

    decoded = tried = 0
    for data in decoder.seeds().values():
        for seed in range(12):
            changed = mutations.mutated(data, decoder.MAX_BYTES, seed, mutate)
            assert len(changed) <= decoder.MAX_BYTES
            tried += 1
            decoded += sniff_format(changed) == sniff_format(data)
            decoder.check(changed)
    assert decoded > tried * 0.9
    png = decoder.seeds()["png"]
    assert mutations._png_of(mutations._png_parts(png)) == png
    jpeg = decoder.seeds()["jpeg-progressive"]
    assert mutations._jpeg_of(mutations._jpeg_parts(jpeg)) == jpeg
    webp = decoder.seeds()["webp-alpha"]
    assert mutations._webp_of(mutations._riff_parts(webp)) == webp
