# SPDX-License-Identifier: Apache-2.0
"""Write the machine-readable report while the replay goes on: `header`, `per_request_diffs`, then `summary`."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np
import onnxruntime

from reflex_core.files.json_lines import json_line
from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.comparison import ACTIONS, CACHE, LATENCY, RequestDiff, Tolerances
from reflex_core.replay.runner import Plan
from reflex_core.replay.summary import Tally, Totals


@contextmanager
def writing(where: object) -> Iterator[None]:
    """Raise an OSError in here, which is about the report, as a TraceError about it; a closed pipe is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TraceError(f"--output {where}: cannot be written: {error.strerror or error}") from error


class Report:
    """One JSON object on a stream. Every request is written when it is done, so nothing piles up.

    where: the report's name in errors. Raises TraceError when it cannot be written.
    """

    def __init__(self, stream: BinaryIO, header: Mapping[str, Any], where: object = "-") -> None:
        self._stream, self._where = stream, where
        self._first = True
        self._write(b'{"header":' + json_line(header) + b',\n"per_request_diffs":[')

    def add(self, made: RequestDiff, tolerances: Tolerances) -> None:
        """Write one request."""
        self._write((b"\n" if self._first else b",\n") + json_line(request_document(made, tolerances)))
        self._first = False

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary; the object is whole then."""
        self._write(b'\n],\n"summary":' + json_line(summary) + b"}\n")
        with writing(self._where):
            self._stream.flush()

    def _write(self, data: bytes) -> None:
        with writing(self._where):
            self._stream.write(data)


def request_document(made: RequestDiff, tolerances: Tolerances) -> dict[str, Any]:
    """Return one entry of `per_request_diffs`; a mode that was not requested is left out."""
    document: dict[str, Any] = {"seq": made.seq, "slot": made.slot}
    if made.error:
        return document | {"error": made.error}
    if made.actions is not None:
        actions = made.actions
        document[ACTIONS] = {
            "cosine": _plain(actions.cosine),
            "max_abs_diff": _plain(actions.max_abs),
            "passed": actions.passed,
            "threshold_cos": tolerances.min_cosine,
            "threshold_max_abs": tolerances.max_abs,
            "recorded_shape": actions.recorded_shape,
            "replayed_shape": actions.replayed_shape,
            "joints": {
                joint.name: {"max_abs_diff": _plain(joint.max_abs), "threshold": joint.allowed}
                for joint in actions.joints
            },
        }
    if made.latency is not None:
        latency = made.latency
        document[LATENCY] = {
            "recorded_total_ms": latency.recorded_ms,
            "replayed_total_ms": latency.replayed_ms,
            "delta_ms": latency.replayed_ms - latency.recorded_ms,
            "delta_pct": latency.pct,
            "stages": {
                name: {"recorded_ms": before, "replayed_ms": after}
                for name, (before, after) in latency.stages_ms.items()
            },
            "passed": latency.passed,
            "threshold_pct": tolerances.latency_pct,
        }
    if made.cache is not None:
        cache = made.cache
        document[CACHE] = {
            "recorded_status": cache.recorded,
            "replayed_status": cache.replayed,
            "passed": cache.passed,
        }
    if made.steps is not None:
        document["denoise_steps"] = {"recorded": made.steps[0], "replayed": made.steps[1]}
    return document


def summary_document(totals: Totals, plan: Plan, **fields: Any) -> dict[str, Any]:
    """Return the `summary`. fields: of the caller: trace_file, model, exit_code, warnings."""
    return {
        **fields,
        "diff_mode": "all" if len(plan.modes) > 1 else plan.modes[0],
        "fail_on": plan.fail_on or None,
        "n_records": totals.records,
        "n_replayed": totals.everything.diffed,
        **tally_document(totals.everything, plan),
        "n_left_out": dict(totals.left_out),
        "n_without_seed": totals.without_seed,
        "tolerances": asdict(plan.tolerances),
        "slots": {slot: tally_document(tally, plan) for slot, tally in totals.slots.items()},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
            "platform": platform.platform(),
        },
    }


def tally_document(tally: Tally, plan: Plan) -> dict[str, Any]:
    """Return the counts of one slot, or of all."""
    passes = {f"n_pass_{mode}": tally.passed[mode] if mode in plan.modes else None for mode in tally.passed}
    return {
        "n_diffed": tally.diffed,
        "n_raised": tally.raised,
        **passes,
        "n_shape_mismatch": tally.shape_mismatches,
        "n_other_steps": tally.other_steps,
        "max_abs_diff": _plain(tally.max_abs),
        "n_batched": tally.batched,
        "max_abs_diff_batched": _plain(tally.max_abs_batched),
        "min_cosine": _plain(tally.min_cosine),
        "max_abs_diff_per_joint": {name: _plain(value) for name, value in tally.joints.items()},
        "latency": tally.latency(plan.tolerances.latency_pct),
    }


def _plain(value: float | None) -> float | str | None:
    """Return None for infinity, which JSON does not have."""
    return value if value is None or np.isfinite(value) else str(value)
