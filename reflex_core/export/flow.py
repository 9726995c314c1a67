# SPDX-License-Identifier: Apache-2.0
"""The `flow` of reflex_config.json: which way time runs, and which numbers the network is fed for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import Refuse, is_number

_BUCKET_SLACK = 1e-3  # of a bucket: 0.7 in float32 times 1000 is a little less than 700


@dataclass(frozen=True, slots=True)
class Flow:
    """The network's flow time: from `start` (noise) to `end` (actions) in `steps` equal Euler steps.

    sign: +1 when the network's velocity is dx/dt, -1 when it points the other way.
    pi0 and SmolVLA: x_t = t * noise + (1 - t) * actions, velocity noise - actions, start 1, end 0, sign +1.
    GR00T N1: x_t = (1 - t) * noise + t * actions, velocity actions - noise, start 0, end 1, sign +1.
    time_scale, whole_times: the network is fed t * time_scale, rounded down where it takes integers.
    """

    start: float = 1.0
    end: float = 0.0
    sign: int = 1
    steps: int = 10
    time_scale: float = 1.0
    whole_times: bool = False

    def at(self, step: int, steps: int) -> float:
        """Return the flow time before this step of `steps`."""
        return self.start + (self.end - self.start) * step / steps


@dataclass(frozen=True, slots=True)
class Adaptive:
    """When the flow counts as straight: `patience` relative changes below `threshold` in a row, after `min_steps` steps.

    threshold 0: never.
    """

    threshold: float
    min_steps: int
    patience: int = 1


def read_flow(
    block: Mapping[str, Any], steps: int, time: TensorInfo | None, buckets: int | None, fail: Refuse
) -> Flow:
    """Return the checked flow.

    time: the network's time input, None where the loop is inside the graph. buckets: the scale of the model family's
    integer times, None where it has none. fail: makes the ExportError of (key, expected, got).
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
    """Return the network's time input at these flow times, float64, same shape: GR00T N1's are int(i / n * 1000)."""
    scaled = np.asarray(time, dtype=np.float64) * flow.time_scale
    return np.floor(scaled + _BUCKET_SLACK) if flow.whole_times else scaled
