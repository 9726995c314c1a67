# SPDX-License-Identifier: Apache-2.0
"""The replay itself: record after record, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reflex_core.records.trace.fields import image_mode
from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_core.replay.comparison import (
    ACTIONS,
    ALL,
    LATENCY,
    MODES,
    RequestDiff,
    Source,
    Target,
    Tolerances,
)
from reflex_core.replay.diffs import diff
from reflex_core.replay.summary import SLOWER, Totals
from reflex_core.values import CLOUD, HOLD, POLICY

LATENCY_MEDIAN = "latency-median"
FAIL_ON = (*MODES, ALL, LATENCY_MEDIAN)
MESSAGE_LENGTH = 300
USUAL = Tolerances()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare. limit: so many request records are read, 0 for all. fail_on: empty, or one of FAIL_ON."""

    modes: tuple[str, ...] = (ACTIONS,)
    tolerances: Tolerances = USUAL
    limit: int = 0
    fail_on: str = ""


def modes_of(diff_mode: str) -> tuple[str, ...]:
    """Return the modes that a `--diff` requests."""
    return MODES if diff_mode == ALL else (diff_mode,)


def replay(
    source: Source, targets: Mapping[str, Target], plan: Plan, totals: Totals
) -> Iterator[RequestDiff]:
    """Run every recorded answer of a policy again, and count everything in `totals`.

    targets: by slot; "" answers for every slot that has none of its own. An answer that was no policy's is counted and
    left out. Whatever a target raises is a failed request. Raises TraceError where the source cannot be read on.
    """
    for record in limited(source, plan.limit):
        totals.records += 1
        reason = why_left_out(record)
        if reason:
            totals.left_out[reason] += 1
            continue
        totals.without_seed += record.seed is None
        made = one(record, targets.get(record.slot, targets[""]), plan)
        totals.add(made)
        yield made


def limited(source: Source, limit: int) -> Iterator[Recorded]:
    """Return the first `limit` records, all with 0; none is read beyond."""
    for number, record in enumerate(source, start=1):
        yield record
        if number == limit:
            return


def why_left_out(record: Recorded) -> str:
    """Return why there is nothing to run again; empty where there is.

    A hold that the guard put in the place of a policy's chunk is run again: the chunk is in raw_actions.
    """
    if record.error is not None:
        return "error"
    if record.source == POLICY:
        return ""
    guarded = record.source == HOLD and record.raw_actions is not record.actions
    if guarded and record.denoise_steps > 0 and record.slot != CLOUD:
        return ""
    return record.source


def one(record: Recorded, target: Target, plan: Plan) -> RequestDiff:
    """Run one record and compare."""
    try:
        return diff(record, target.replay(record), plan.modes, plan.tolerances)
    except Exception as error:
        message = " ".join(str(error).split()) or "no message"
        return RequestDiff(
            record.seq, record.slot, error=f"{type(error).__name__}: {message}"[:MESSAGE_LENGTH]
        )


def failed(totals: Totals, plan: Plan) -> bool:
    """Return whether `fail_on` is to be raised. Nothing compared, a target that raised and other shapes are failures."""
    if not plan.fail_on:
        return False
    tally = totals.everything
    if totals.compared == 0 or tally.raised:
        return True
    if plan.fail_on == LATENCY_MEDIAN:
        found = tally.latency(plan.tolerances.latency_pct)
        return found is None or found["verdict"] == SLOWER
    judged = plan.modes if plan.fail_on == ALL else (plan.fail_on,)
    return any(tally.passed[mode] < tally.diffed for mode in judged)


def judges(plan: Plan) -> bool:
    """Return whether what `fail_on` names is compared at all."""
    mode = LATENCY if plan.fail_on == LATENCY_MEDIAN else plan.fail_on
    return mode in ("", ALL) or mode in plan.modes


def hashes_of(header: Mapping[str, Any], slot: str) -> tuple[str, str]:
    """Return (model_hash, config_hash) of what answered in a slot, empty where not recorded.

    The header's own, unless the trace has several policies.
    """
    own = str(header.get("model_hash") or ""), str(header.get("config_hash") or "")
    policies = header.get("policies")
    for policy in policies if isinstance(policies, list) else ():
        if isinstance(policy, dict) and policy.get("slot") == slot:
            model_hash = str(policy.get("model_hash") or "")
            shared = own[1] if model_hash == own[0] else ""
            return model_hash, str(policy.get("config_hash") or shared)
    return own


def require_images(header: Mapping[str, Any], path: object, *, has_files: bool) -> None:
    """Raise TraceError where the trace has no images and they cannot be found elsewhere."""
    mode = image_mode(header)
    if mode == "hash_only" and not has_files:
        raise TraceError(
            f"{path}: was recorded with --record-images hash_only, so it has no pictures to give the policy: name the"
            " directory that holds them with --images, or inspect the trace with --no-replay"
        )
    if mode == "none":
        raise TraceError(
            f"{path}: was recorded with --record-images none, so its pictures cannot be found again and the policy"
            " cannot be run: inspect the trace with --no-replay"
        )
