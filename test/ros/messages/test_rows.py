# SPDX-License-Identifier: Apache-2.0
"""A chunk's rows as a trajectory for a program that plays it itself."""

from __future__ import annotations

import numpy as np

from reflex_core.values import ActionChunk
from reflex_ros.messages.chunks import rows_message, source_code
from reflex_ros.messages.stamps import stamp_ns


def test_every_row_has_its_time_and_the_columns_that_are_positions() -> None:
    actions = np.arange(9, dtype=np.float32).reshape(3, 3) / 7
    message = rows_message(ActionChunk(actions, ("a", "wheel", "b"), 0.4), (0, 2), 5_000_000_001)
    assert list(message.joint_names) == ["a", "b"]
    assert stamp_ns(message.header.stamp) == 5_000_000_001
    times = [point.time_from_start.sec * 10**9 + point.time_from_start.nanosec for point in message.points]
    assert times == [400_000_000, 800_000_000, 1_200_000_000]
    positions = np.array([list(point.positions) for point in message.points])
    np.testing.assert_array_equal(positions, actions[:, [0, 2]].astype(np.float64))


def test_a_source_has_the_number_that_messages_give_it() -> None:
    assert [source_code(name) for name in ("policy", "last_known_good", "cloud", "hold", "")] == [
        0,
        1,
        2,
        3,
        0,
    ]
