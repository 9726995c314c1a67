# SPDX-License-Identifier: Apache-2.0
"""Terminal output of `reflex replay`: the header, a line per request, the summary, a bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reflex_core.replay.comparison import (
    ACTIONS,
    CACHE,
    LATENCY,
    ActionsDiff,
    LatencyDiff,
    RequestDiff,
    Tolerances,
)
from reflex_core.replay.runner import Plan
from reflex_core.replay.summary import Tally, Totals
from reflex_core.text.untrusted import printable

HEADER_KEYS = ("reflex_version", "model_hash", "config_hash", "model_type", "export_kind", "embodiment")
SHOWN_LENGTH = 120
JOINTS_SHOWN = 3


def shown(value: object) -> str:
    """Return a value from a trace safe for a terminal, and not too long."""
    text = printable(str(value))
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."


def header_lines(header: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines about the software, model and machine that recorded the trace."""
    for key in HEADER_KEYS:
        yield f"  {key}: {shown(header.get(key, ''))}"
    redaction = header.get("redaction")
    if isinstance(redaction, dict):
        yield f"  images: {shown(redaction.get('image', ''))}"
    policies = header.get("policies")
    for policy in policies if isinstance(policies, list) else ():
        if isinstance(policy, dict):
            yield f"  slot {shown(policy.get('slot'))}: {shown(policy.get('model_id'))} {shown(policy.get('model_hash'))}"


def request_line(made: RequestDiff) -> str:
    """Return `  seq=   0  actions: cos=1.000000 max_abs=0.00e+00 [PASS]  latency: ...  cache: ...`."""
    parts = [f"  seq={made.seq:4d}"]
    if made.error:
        return "  ".join([*parts, f"replay raised {printable(made.error)} [FAIL]"])
    if made.actions is not None:
        parts.append(f"actions: {_actions_words(made.actions)}")
    if made.latency is not None:
        parts.append(f"latency: {_latency_words(made.latency)}")
    if made.cache is not None:
        cache = made.cache
        parts.append(f"cache: {shown(cache.recorded)}→{shown(cache.replayed)} {_verdict(cache.passed)}")
    if made.steps is not None and 0 < made.steps[0] != made.steps[1]:
        parts.append(f"steps: {made.steps[0]}→{made.steps[1]}")
    return "  ".join(parts)


def _verdict(passed: bool) -> str:
    return "[PASS]" if passed else "[FAIL]"


def _actions_words(actions: ActionsDiff) -> str:
    if actions.cosine is None or actions.max_abs is None:
        return f"shape {actions.recorded_shape}→{actions.replayed_shape} [FAIL]"
    message = f"cos={actions.cosine:.6f} max_abs={actions.max_abs:.2e} {_verdict(actions.passed)}"
    wrong = [joint for joint in actions.joints if not joint.passed]
    if not wrong:
        return message
    worst = sorted(wrong, key=lambda joint: joint.max_abs / joint.allowed, reverse=True)[:JOINTS_SHOWN]
    named = ", ".join(f"{shown(joint.name)} {joint.max_abs:.2e}≥{joint.allowed:.0e}" for joint in worst)
    return f"{message} {named}" + (f" and {len(wrong) - len(worst)} more" if len(wrong) > len(worst) else "")


def _latency_words(latency: LatencyDiff) -> str:
    change = "n/a" if latency.pct is None else f"{latency.pct:+.1f}%"
    return f"{latency.recorded_ms:.0f}→{latency.replayed_ms:.0f}ms ({change}) {_verdict(latency.passed)}"


def summary_lines(totals: Totals, plan: Plan) -> Iterator[str]:
    """Yield counts per mode and slot, medians, and what was left out."""
    everything = totals.everything
    yield "Summary:"
    yield f"  replayed: {everything.diffed}"
    yield f"  diffed: {everything.diffed}"
    yield from _tally_lines(everything, plan, "  ")
    if totals.left_out:
        kinds = ", ".join(f"{count} {shown(kind)}" for kind, count in sorted(totals.left_out.items()))
        yield f"  not replayed, as no policy's answer was recorded: {kinds}"
    if len(totals.slots) > 1:
        for slot, tally in sorted(totals.slots.items()):
            yield f"  slot {shown(slot)}: {tally.diffed} replayed"
            yield from _tally_lines(tally, plan, "    ")


def _tally_lines(tally: Tally, plan: Plan, indent: str) -> Iterator[str]:
    tolerances = plan.tolerances
    limits = {
        ACTIONS: f"cos≥{tolerances.min_cosine:g}, max_abs<{_power(tolerances.max_abs)}",
        LATENCY: f"within ±{tolerances.latency_pct:g}% of recorded total_ms",
        CACHE: "status match",
    }
    for mode in plan.modes:
        yield f"{indent}{mode}: {tally.passed[mode]}/{tally.diffed} pass ({limits[mode]})"
        if mode == ACTIONS and tally.max_abs is not None:
            yield f"{indent}actions at worst: cos={tally.min_cosine:.6f} max_abs={tally.max_abs:.2e}{_worst(tally)}"
        if mode == ACTIONS and tally.max_abs_batched is not None:
            yield f"{indent}recorded in a batch, replayed alone: {tally.batched}, at worst max_abs={tally.max_abs_batched:.2e}"
        if mode == LATENCY:
            yield from _median_lines(tally, tolerances, indent)
    if tally.raised:
        yield f"{indent}raised: {tally.raised}, counted as failed"
    if tally.shape_mismatches:
        yield f"{indent}other shape: {tally.shape_mismatches}, counted as failed"
    if tally.other_steps:
        yield f"{indent}other number of denoise steps: {tally.other_steps}"


def _worst(tally: Tally) -> str:
    if not tally.max_abs or not tally.joints:
        return ""
    name = max(tally.joints, key=tally.joints.__getitem__)
    return f" ({shown(name)})"


def _power(value: float) -> str:
    """Return a power of ten as people write it: 1e-3."""
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _median_lines(tally: Tally, tolerances: Tolerances, indent: str) -> Iterator[str]:
    found = tally.latency(tolerances.latency_pct)
    if found is None:
        return
    interval = "no interval, too few requests"
    if found["low_pct"] is not None:
        interval = f"95% interval {found['low_pct']:+.1f} to {found['high_pct']:+.1f}%"
    yield (
        f"{indent}latency medians: {found['recorded_median_ms']:.1f}→{found['replayed_median_ms']:.1f}ms,"
        f" change {found['median_delta_pct']:+.1f}% ({interval}): {found['verdict']}"
    )
