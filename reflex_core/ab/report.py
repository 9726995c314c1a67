# SPDX-License-Identifier: Apache-2.0
"""Report a tally: a document for programs and a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from reflex_core.ab.sequential import difference_interval
from reflex_core.ab.tally import SlotTally, Tally
from reflex_core.metrics.intervals import two_sided_p, wilson
from reflex_core.slots.routing import SLOTS
from reflex_core.text.untrusted import escaped

LINE_CHARACTERS, NAME_CHARACTERS = 1000, 40

RATIO_ALARM = 0.001
PERCENTILES = (50, 95, 99)

Document = dict[str, Any]


def report_document(tally: Tally, warnings: Sequence[str] = ()) -> Document:
    """Return the whole report as plain values: rates and p-values 0..1, latencies in milliseconds."""
    return {
        "slots": {name: _slot(tally.slots[name]) for name in sorted(tally.slots)},
        "comparison": _comparison(tally),
        "sample_ratio": _sample_ratio(tally),
        "left_out": {
            "episodes_driven_by_two_policies": tally.mixed,
            "episodes_without_outcome": tally.without_outcome,
            "outcomes_without_slot": tally.without_slot,
            "requests_without_episode": tally.without_episode,
        },
        "outcomes_corrected": tally.corrected,
        "errors": tally.errors,
        "warnings": [*_doubts(tally), *warnings],
    }


def _slot(slot: SlotTally) -> Document:
    low, high = wilson(slot.outcomes.successes, slot.outcomes.trials)
    reported = slot.outcomes.trials > 0
    return {
        "models": sorted(slot.models - {""}),
        "requests": slot.requests,
        "episodes": slot.episodes,
        "outcomes": slot.outcomes.trials,
        "successes": slot.outcomes.successes,
        "success_rate": slot.outcomes.value if reported else None,
        "success_interval": [low, high] if reported else None,
        "latency_ms": {f"p{number}": slot.latency.percentile(number) for number in PERCENTILES},
        "clamped_chunks": slot.clamped,
        "violations": slot.violations,
        "late": slot.late,
        "errors": slot.errors,
        "sources": dict(sorted(slot.sources.items())),
        "shadow": {"compared": slot.shadows, "max_abs": slot.divergence} if slot.shadows else None,
    }


def _comparison(tally: Tally) -> Document | None:
    """Compare the success rates of both slots; None until both have an outcome."""
    test = tally.test
    a, b = (test.rates[name] for name in SLOTS)
    if not (a.trials and b.trials):
        return None
    return {
        "difference": a.value - b.value,
        "difference_interval": list(difference_interval(a, b, test.alpha)),
        "p_always_valid": test.p,
        "alpha": test.alpha,
        "episodes": test.episodes,
        "decided_at_episode": test.decided_at,
        "better": test.better,
    }


def _sample_ratio(tally: Tally) -> Document | None:
    """Compare the share of episodes per slot with the configured split; None where no record holds the split."""
    if tally.routed == 0:
        return None
    off = tally.routed_to_a - tally.expected_in_a
    deviation = (
        off / math.sqrt(tally.variance) if tally.variance else math.copysign(math.inf, off) if off else 0.0
    )
    p = two_sided_p(deviation)
    return {
        "episodes": tally.routed,
        "in_a": tally.routed_to_a,
        "expected_in_a": tally.expected_in_a,
        "p": p,
        "mismatch": p < RATIO_ALARM,
    }


def _doubts(tally: Tally) -> Iterator[str]:
    for name, slot in sorted(tally.slots.items()):
        if len(slot.models - {""}) > 1:
            yield f"slot {name} was {len(slot.models - {''})} models in these traces; compare traces of one pair"
    if tally.routed_unknown and not tally.routed:
        yield "these traces do not say what the split was; give it with --split to have the sample ratio checked"


def table(document: Document) -> str:
    """Return the document as text, at most 100 columns wide. Names from traces (slots, models) are untrusted and escaped."""
    lines = [*_slot_lines(document["slots"]), "", *_verdict(document["comparison"])]
    lines += _ratio_lines(document["sample_ratio"])
    left_out = [f"{count} {what.replace('_', ' ')}" for what, count in document["left_out"].items() if count]
    lines += [f"left out: {', '.join(left_out)}"] if left_out else []
    lines += [f"{document['errors']} requests failed"] if document["errors"] else []
    lines += [f"WARNING: {warning}" for warning in document["warnings"]]
    return "\n".join(escaped(line, LINE_CHARACTERS) for line in lines)


def _slot_lines(slots: dict[str, Document]) -> list[str]:
    head = (
        "slot",
        "requests",
        "episodes",
        "success",
        "95 % interval",
        "p50 ms",
        "p95",
        "p99",
        "clamped",
        "late",
    )
    rows = [head, *(_row(escaped(name, NAME_CHARACTERS), slot) for name, slot in slots.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    models = [f"{name}: {', '.join(slot['models'])}" for name, slot in slots.items() if slot["models"]]
    return [*lines, *models]


def _row(name: str, slot: Document) -> tuple[str, ...]:
    success, interval = "-", "-"
    if slot["success_rate"] is not None:
        low, high = slot["success_interval"]
        success = f"{slot['successes']}/{slot['outcomes']} = {slot['success_rate']:.1%}"
        interval = f"{low:.1%} to {high:.1%}"
    latency = [f"{value:.1f}" if value is not None else "-" for value in slot["latency_ms"].values()]
    clamped = f"{slot['clamped_chunks'] / slot['requests']:.1%}" if slot["requests"] else "-"
    counts = (str(slot["requests"]), str(slot["episodes"]))
    return (name, *counts, success, interval, *latency, clamped, str(slot["late"]))


def _verdict(comparison: Document | None) -> list[str]:
    if comparison is None:
        return ["success: nothing to compare, outcomes of both slots are needed"]
    low, high = comparison["difference_interval"]
    sure = 1 - comparison["alpha"]
    says = (
        f"success of a minus b: {comparison['difference']:+.1%}, {sure:.0%} sure at any time: {low:+.1%} to"
        f" {high:+.1%}; p = {comparison['p_always_valid']:.2g} after {comparison['episodes']} episodes"
    )
    if comparison["better"]:
        return [
            says,
            f"DECIDED after episode {comparison['decided_at_episode']}: {comparison['better']} is better",
        ]
    return [says, "not decided: go on, and look as often as you like"]


def _ratio_lines(ratio: Document | None) -> list[str]:
    if ratio is None:
        return []
    says = (
        f"sample ratio: {ratio['in_a']} of {ratio['episodes']} episodes in a, expected {ratio['expected_in_a']:.1f},"
        f" p = {ratio['p']:.2g}"
    )
    if not ratio["mismatch"]:
        return [says]
    return [
        says,
        "WARNING: the episodes were NOT shared as the split says (p < 0.001): a drained slot, or traces that are"
        " missing; the slots did not have the same kind of episodes, do not trust the comparison",
    ]
