# SPDX-License-Identifier: Apache-2.0
"""Record commands with who gave them, in traces and bags: each where people may take the commands, else those of a part of a motion."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from reflex_core.engine.serving_state import ServingState
from reflex_core.records.trace.executed import ExecutedRows, executed_record
from reflex_core.records.trace.writer import TraceWriter
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.msg import ActionChunk as ActionChunkMsg
from reflex_ros.outputs.outputs import Outputs


def record_commands(
    outputs: Outputs, loaded: ServingState, clock_ns: Callable[[], int], *, every: bool
) -> None:
    """Have commands that `outputs` publish recorded from now on. every: else those alone that are not the answer as it was served."""
    traces = [recorder for recorder in loaded.recorders if isinstance(recorder, TraceWriter)]

    def record(message: ActionChunkMsg) -> None:
        if not every and message.blend >= 1.0:
            return
        make = partial(executed_record, executed_rows(message, clock_ns()))
        for trace in traces:
            trace.note(make)
        outputs.recorder_hook.noted(make)

    outputs.executed = record


def executed_rows(message: ActionChunkMsg, began_ns: int) -> ExecutedRows:
    """Return what ~/action_chunk says of a command that was published at `began_ns`."""
    rows = np.array(message.data, np.float32).reshape(message.horizon, message.action_dim)
    return ExecutedRows(
        message.control, began_ns, stamp_ns(message.header.stamp), message.start_index, message.dt_s, tuple(message.names), rows,
        message.request_id, message.episode_id, message.blend,
    )  # fmt: skip
