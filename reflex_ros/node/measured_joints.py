# SPDX-License-Identifier: Apache-2.0
"""The joints of a robot that are measured: a velocity is not, nor what no robot interface commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.binding import Binding
from reflex_core.robot.groups import unmeasured_columns, velocity_columns
from reflex_core.values import Floats
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.progress import Tuning

Doubles = NDArray[np.float64]
Believed = tuple[list[float], int]


class MeasuredJoints:
    """What the buffer knows of the joints, as vectors of all actions: 0 where nothing is measured."""

    def __init__(self, buffer: ObservationBuffer, binding: Binding, tuning: Callable[[], Tuning]) -> None:
        self._buffer, self._tuning, self._dt_s = buffer, tuning, binding.dt_s
        names = binding.action_names
        self._unmeasured = unmeasured_columns(binding.groups, len(names))
        self._joints = names if self._unmeasured is None else _chosen(names, ~self._unmeasured)
        rates = velocity_columns(binding.groups, len(names))
        self.velocities = () if rates is None else _chosen(names, rates)

    def position(self, now_ns: int) -> Floats | None:
        """Return (action_dim,) measured positions that are fresh and plausible, None where they are not."""
        if not self._joints:
            return self._spread(np.zeros(0, np.float32))
        measured = self._buffer.measured(self._joints, now_ns, self._tuning().gates.max_age_ms)
        return None if measured is None else self._spread(measured)

    def believed(self) -> Believed | None:
        """Return (action_dim,) the last plausible positions and since when (monotonic ns), None where there are none."""
        believed = self._buffer.believed(self._joints)
        if believed is None or self._unmeasured is None:
            return believed
        return self._spread(np.array(believed[0])).tolist(), believed[1]

    def commanded(self, rows: Floats, first_in_ns: int, now_ns: int) -> None:
        """Note what the joints are commanded. rows: (n, action_dim), the first due `first_in_ns` after `now_ns`."""
        of_joints = rows if self._unmeasured is None else rows[:, ~self._unmeasured]
        self._buffer.commanded(self._joints, of_joints, first_in_ns, now_ns, self._dt_s)

    def _spread(self, positions: NDArray[Any]) -> NDArray[Any]:
        if self._unmeasured is None:
            return positions
        spread = np.zeros(len(self._unmeasured), positions.dtype)
        spread[~self._unmeasured] = positions
        return spread


def _chosen(names: tuple[str, ...], columns: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, wanted in zip(names, columns, strict=True) if wanted)
