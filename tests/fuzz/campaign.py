"""Looks for new findings for a while: `python -m tests.fuzz.campaign decoder --seconds 600`.

The worker runs in a process of its own with a limit on its memory and on the time of an input. What it finds is tried
again in a fresh process, so that a busy machine makes no finding, and then kept under `tests/fuzz/corpus`, where the
default tests try it ever after.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import CORPUS, NAMES, target

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "runs" / "fuzz"
# Resident memory of the worker, which holds the corpus and the instrumented code beside what an input takes.
RSS_LIMIT_MB = 1_536
MAX_GROWTH_MB = 8.0
_TIMEOUT_S = 20
_MAX_FINDINGS = 20
_GROWTH_ROUNDS = 20
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s+(\d+)", re.MULTILINE)
_FINDINGS = ("crash-", "timeout-", "oom-", "leak-")


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    home = RUNS / arguments.target
    corpus, artifacts = home / "corpus", home / "artifacts"
    for folder in (corpus, artifacts, CORPUS / arguments.target):
        folder.mkdir(parents=True, exist_ok=True)
    for data in (*target(arguments.target).seeds().values(), *_kept(arguments.target)):
        (corpus / hashlib.sha256(data).hexdigest()).write_bytes(data)
    log = home / "worker.log"
    log.unlink(missing_ok=True)
    found = _searched(arguments.target, corpus, artifacts, arguments.seconds)
    executed = sum(map(int, _EXECUTED.findall(log.read_text(errors="replace"))))
    failures, grown_mb = _replayed(arguments.target, corpus)
    inputs = len(list(corpus.iterdir()))
    print(
        f"{arguments.target}: {executed:,} executions, {inputs} inputs, {len(found)} findings, "
        f"memory grew {grown_mb:.1f} MB"
    )
    for path, wrong in found.items():
        print(f"\n{path.relative_to(ROOT)}\n{wrong}")
    for name, wrong in failures.items():
        print(f"\n{(corpus / name).relative_to(ROOT)}\n{wrong}")
    sys.exit(bool(found or failures) or grown_mb > MAX_GROWTH_MB)


def _searched(name: str, corpus: Path, artifacts: Path, seconds: float) -> dict[Path, str]:
    """Findings that were confirmed, and what is wrong with them."""
    found: dict[Path, str] = {}
    words = corpus.parent / "tokens.dict"
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in target(name).tokens()))
    until = time.monotonic() + seconds
    tries = 0
    while (left_s := until - time.monotonic()) > 1 and tries < _MAX_FINDINGS:
        tries += 1
        shutil.rmtree(artifacts)
        artifacts.mkdir()
        command = [sys.executable, "-m", "tests.fuzz.worker", name, str(corpus)]
        options = {
            "max_total_time": int(left_s),
            # Of the clock on the wall, for what never ends; the worker has a limit on the process's time.
            "timeout": _TIMEOUT_S,
            "rss_limit_mb": RSS_LIMIT_MB,
            "max_len": target(name).MAX_BYTES,
            "dict": words,
            "artifact_prefix": f"{artifacts}/",
            "print_final_stats": 1,
            "reload": 0,
        }
        log = artifacts.parent / "worker.log"
        with log.open("ab") as stream:
            subprocess.run(
                [*command, *(f"-{key}={value}" for key, value in options.items())],
                cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, timeout=left_s + 120, check=False,
            )  # fmt: skip
        for path in sorted(artifacts.iterdir()):
            wrong = _confirmed(name, path) if path.name.startswith(_FINDINGS) else None
            # A crash is found again and again; one input of each kind is enough.
            if wrong is not None and _kind(wrong) not in map(_kind, found.values()):
                kept = CORPUS / name / path.name
                shutil.copy(path, kept)
                found[kept] = wrong
    return found


def _kind(wrong: str) -> str:
    """The first error of a traceback, or how long or how much it took."""
    told = re.search(r"^\w*(?:Error|Exception)\b.*", wrong, re.MULTILINE)
    return told.group() if told else wrong.rsplit(maxsplit=1)[-1]


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _confirmed(name: str, path: Path) -> str | None:
    """What is wrong with an input in a process that has seen no other; None if nothing is."""
    command = [sys.executable, "-m", "tests.fuzz.replay", name, str(path)]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "does not end"
    if run.returncode == 0:
        return None
    try:
        failures: dict[str, str] = json.loads(run.stdout.splitlines()[-1])["failures"]
    except (IndexError, ValueError):
        return f"ended with {run.returncode}: {run.stderr[-2_000:]}"
    return failures.get(path.name, "failed")


def _replayed(name: str, corpus: Path) -> tuple[dict[str, str], float]:
    """What is wrong with which input of the corpus, and by how much memory grows over rounds; without libFuzzer."""
    files = sorted(map(str, corpus.iterdir()))[:500]
    command = [sys.executable, "-m", "tests.fuzz.replay", name, *files, "--rounds", str(_GROWTH_ROUNDS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_800, check=False)
    try:
        told = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"all of them": f"ended with {run.returncode}: {run.stderr[-2_000:]}"}, 0.0
    return told["failures"], float(told["grown_mb"])


def _kept(name: str) -> list[bytes]:
    return [path.read_bytes() for path in (CORPUS / name).iterdir() if path.is_file()]


if __name__ == "__main__":
    main()
