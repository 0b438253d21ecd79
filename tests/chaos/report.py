"""Outcomes as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_OWN_COLUMNS = ("ok", "wrong")


def table(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, a fault a row."""
    rows = [
        "| fault | requests | right | other answers | wrong | acknowledged | lost or back | right again after |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for outcome in outcomes:
        if outcome["skipped"]:
            rows.append(f"| {outcome['fault']} | not run: {outcome['skipped']} | | | | | | |")
            continue
        requests = outcome["requests"]
        others = ", ".join(f"{count:,} {kind}" for kind, count in requests.items() if kind not in _OWN_COLUMNS)
        cells = [
            outcome["fault"],
            f"{sum(requests.values()):,}",
            f"{requests.get('ok', 0):,}",
            others or "none",
            f"{requests.get('wrong', 0):,}",
            f"{outcome['acknowledged']:,}",
            f"{len(outcome['differences']):,}",
            f"{outcome['recovery_s']:.1f} s",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def legend(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """What each fault is, as a list."""
    return "\n".join(f"- **{outcome['fault']}**: {outcome['what']}." for outcome in outcomes)
