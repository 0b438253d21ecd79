"""python -m tests.chaos run [--fault NAME ...] [--people FOLDER] --out FILE; python -m tests.chaos report FILE."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.chaos import cast, experiment, report
from tests.chaos.faults import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The service under faults.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run faults, and write what came of them")
    run.add_argument("--fault", action="append", choices=sorted(FAULTS), help="may be given several times; else all")
    run.add_argument("--people", type=Path, help="a folder of people, such as LFW; else two portraits")
    run.add_argument("--out", type=Path, required=True)
    told = commands.add_parser("report", help="print the table of a run")
    told.add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "report":
        outcomes = list(json.loads(arguments.file.read_text()).values())
        print(f"{report.table(outcomes)}\n\n{report.legend(outcomes)}")
        return 0
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    people = cast.people_in(arguments.people) if arguments.people else cast.portraits()
    out: Path = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    # Faults that are run again replace what they had, and the others keep theirs.
    known: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    names = arguments.fault or list(FAULTS)
    passed = True
    for name in names:
        outcome = experiment.run(FAULTS[name](), people, out.with_name(f"{out.stem}-{name}.log"))
        known[name] = outcome.as_json()
        passed &= outcome.passed or bool(outcome.skipped)
        known = {fault: known[fault] for fault in FAULTS if fault in known}
        out.write_text(json.dumps(known, indent=1) + "\n")
        print(json.dumps(known[name]), flush=True)
    print(report.table(list(known.values())))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
