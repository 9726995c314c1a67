# SPDX-License-Identifier: Apache-2.0
"""The `flow` of reflex_config.json: which way time runs, and which numbers the network is fed for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ExportError
from reflex_core.export.families import Config
from reflex_core.files.json_fields import is_number
from reflex_core.policy.sampler import Flow
from reflex_core.policy.session import TensorInfo

Fail = Callable[[str, str, object], ExportError]

_BUCKET_SLACK = 1e-3  # of a bucket: 0.7 in float32 times 1000 is a little less than 700


def read_flow(block: Config, steps: int, time: TensorInfo | None, buckets: int | None, fail: Fail) -> Flow:
    """The checked flow.

    time: the network's time input, None where the loop is inside the graph. buckets: the scale of the model family's
    whole-number times, None where it has none. fail: makes the ExportError of (key, expected, got).
    """
    start, end, sign = block.get("start", 1.0), block.get("end", 0.0), block.get("sign", 1)
    if not (is_number(start) and is_number(end)) or start == end or sign not in (1, -1):
        raise fail("flow", "'start' and 'end' that differ and 'sign' 1 or -1", block)
    whole = time is not None and not issubclass(time.dtype, np.floating)
    scale = block.get("time_scale", (buckets if whole else None) or 1.0)
    if not is_number(scale) or scale <= 0:
        raise fail("flow.time_scale", "a number above 0", scale)
    flow = Flow(float(start), float(end), int(sign), steps, float(scale), whole)
    if time is not None and whole:
        fed = [float(fed_time(flow, flow.at(step, steps))) for step in range(steps)]
        if time.dtype == np.bool_ or len(set(fed)) < steps:
            shown = ", ".join(str(int(number)) for number in fed[:12])
            raise fail(
                "flow.time_scale",
                f"what makes {steps} different whole numbers of the times {flow.start:g} to {flow.end:g}, as the"
                f" graph's input '{time.name}' takes {np.dtype(time.dtype)} (1000 where it was trained on 1000 buckets)",
                f"{scale:g}, which makes {shown}",
            )
    return flow


def fed_time(flow: Flow, time: float | NDArray[Any]) -> Any:
    """What the network is fed at this flow time, float64, as many as given: GR00T N1's are int(i / n * 1000)."""
    scaled = np.asarray(time, dtype=np.float64) * flow.time_scale
    return np.floor(scaled + _BUCKET_SLACK) if flow.whole_times else scaled
