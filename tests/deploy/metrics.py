"""Whether an expression of Prometheus's is made of what the service exports."""

from __future__ import annotations

import re

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from service import telemetry

_NAMED = re.compile(r"\b((?:shrinkface|process|python)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
# Prometheus adds them, or the cluster.
_ADDED = {"instance", "job", "namespace", "pod"}


def exported() -> dict[str, set[str]]:
    """Names of the service's time series, with the labels of each."""
    series: dict[str, set[str]] = {"up": set()}
    for metric in vars(telemetry).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        (family,) = metric.describe()
        # Public names of a metric's labels there are none.
        labels = set(metric._labelnames)
        match family.type:
            case "histogram":
                series |= {f"{family.name}_sum": labels, f"{family.name}_count": labels}
                series[f"{family.name}_bucket"] = labels | {"le"}
            case "counter":
                series[f"{family.name}_total"] = labels
            case _:
                series[family.name] = labels
    for family in REGISTRY.collect():
        if family.name.startswith(("process_", "python_")):
            series |= {sample.name: set(sample.labels) for sample in family.samples}
    return series


def check_expression(expression: str) -> set[str]:
    """The series that an expression names. Raises AssertionError where a name or a label does not exist."""
    known = exported()
    named = _NAMED.findall(expression)
    assert named, f"names no series: {expression}"
    labels: set[str] = set()
    for name, matchers in named:
        assert name in known, f"the service exports no {name}"
        unknown = set(_MATCHER.findall(matchers)) - known[name] - _ADDED
        assert not unknown, f"{name} has no label {', '.join(sorted(unknown))}"
        labels |= known[name]
    for group in _GROUPED.findall(expression):
        grouped = {label.strip() for label in group.split(",")}
        assert grouped <= labels | _ADDED, f"grouped by a label that is not there: {expression}"
    return {name for name, _ in named}
