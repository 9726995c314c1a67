# SPDX-License-Identifier: Apache-2.0
"""What a PromQL expression asks for, and what our exposition has: names of samples and of labels."""

from __future__ import annotations

import re
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from reflex_core.metrics.cadence import TickFigures
from reflex_core.metrics.metrics import Metrics
from reflex_core.metrics.smoothness_figures import SmoothnessFigures

# What Prometheus adds to every series of ours: dashboards/prometheus.yml and robots.yml say so.
TARGET_LABELS = {"job", "instance", "robot_id", "cell"}
BY_PROMETHEUS = {
    "up": TARGET_LABELS,
    "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity"},
}

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\S+")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\s*(\{[^}]*\}|\(|)")
_WORDS = {"and", "or", "unless", "bool", "by", "without", "on", "ignoring", "group_left", "group_right"}


def selectors(expression: str) -> tuple[list[tuple[str, set[str]]], set[str]]:
    """Every metric of an expression with the labels that select from it, and the labels that anything is grouped by."""
    bare = _RANGE.sub("", _STRING.sub('""', expression))
    grouped = {
        label.strip() for found in _GROUPING.findall(bare) for label in found.split(",") if label.strip()
    }
    selected = [
        (name, set(re.findall(r"(\w+)\s*[=!]", what)))
        for name, what in _SELECTOR.findall(_GROUPING.sub(" ", bare))
        if what != "(" and name not in _WORDS
    ]
    return selected, grouped


def exposed() -> dict[str, set[str]]:
    """The labels of every sample in /metrics, when everything has happened once, and of what Prometheus adds."""
    metrics = Metrics()
    for metric in vars(metrics).values():
        if names := getattr(metric, "_labelnames", ()):
            metric.labels(*names)
    metrics.recorders.watched = [SimpleNamespace(kind="trace", written=0, dropped=0, problem="")]  # type: ignore[list-item]
    metrics.motion.figures = lambda: SmoothnessFigures(0, 0, 0, *5 * [0.0])
    metrics.ticks.figures = lambda: [TickFigures("arm", 100.0, 0.0, 0.0, 0.0)]
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            found[sample.name] = set(sample.labels) | TARGET_LABELS
    return found | BY_PROMETHEUS


def unknown(expression: str, known: dict[str, set[str]]) -> list[str]:
    """What an expression asks for in vain: metrics that are not exposed, labels that they do not have."""
    selected, grouped = selectors(expression)
    having = {label for name, _ in selected for label in known.get(name, set())}
    wrong = [name for name, _ in selected if name not in known]
    wrong += [
        f"{name}: {label}" for name, labels in selected for label in sorted(labels - known.get(name, set()))
    ]
    return wrong + [f"grouped by {label}" for label in sorted(grouped - having)]
