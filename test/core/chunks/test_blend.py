# SPDX-License-Identifier: Apache-2.0
"""How much of the policy's motion is let through."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.chunks.blend import Blend
from reflex_core.chunks.takeover import SPEED_SHARE
from reflex_core.values import ActionChunk

DT_S, S = 0.1, 10**9
ROWS = np.linspace(0.1, 1.0, 10, dtype=np.float32)[:, None] * np.array([1.0, -2.0], np.float32)
CHUNK = ActionChunk(ROWS, ("a", "b"), DT_S)
PLACE, NO_RATES = np.array([0.5, 0.5]), np.zeros(2, np.bool_)
REST = np.zeros(2)


def test_the_ratio_goes_to_where_it_is_wanted_at_its_rate_and_back_from_where_it_is() -> None:
    blend = Blend(0.0)
    assert blend.aim(1.0, 2.0, 0)
    assert not blend.aim(1.0, 2.0, S)
    assert [blend.at(t * S // 2) for t in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert blend.aim(0.25, 2.0, S)
    assert [blend.at(S + t * S // 4) for t in range(4)] == [0.5, 0.375, 0.25, 0.25]
    blend.restart(5 * S)
    assert [blend.at(t * S) for t in (5, 6)] == [0.0, 0.25]


def test_without_a_time_the_ratio_is_what_is_wanted_at_once() -> None:
    blend = Blend(1.0)
    blend.aim(0.5, 0.0, 0)
    assert blend.at(0) == 0.5
    blend.restart(0)
    assert blend.at(0) == 0.5


def test_all_of_the_motion_is_the_chunk_itself() -> None:
    blend = Blend(1.0)
    assert blend.whole(0)
    assert blend.blended(CHUNK, 0, PLACE, NO_RATES, 0, DT_S) is CHUNK
    blend.aim(1.0, 1.0, 0)
    blend.restart(0)
    assert not blend.whole(S - 1)
    assert blend.whole(S)


def test_nothing_of_it_leaves_the_robot_where_it_is_and_half_of_it_leads_half_the_way() -> None:
    for ratio in (0.0, 0.5):
        found = Blend(ratio).blended(CHUNK, 2, PLACE, NO_RATES, 0, DT_S)
        assert (found.actions[:2] == ROWS[:2]).all()
        assert found.actions[2:] == pytest.approx(PLACE + ratio * (ROWS[2:] - PLACE))
        assert found.actions.dtype == np.float32


def test_a_row_has_the_share_of_the_moment_when_it_is_due() -> None:
    blend = Blend(0.0)
    blend.aim(1.0, 0.5, 0)
    found = blend.blended(CHUNK, 0, PLACE, NO_RATES, 0, DT_S).actions
    shares = np.minimum(np.arange(1, 11) * DT_S / 0.5, 1.0)[:, None]
    assert found == pytest.approx(PLACE + shares * (ROWS - PLACE), abs=1e-6)
    assert (found[5:] == ROWS[5:]).all(), "bit for bit, where all of it is let through"


def test_a_velocity_has_its_share_of_itself_and_an_unknown_place_is_the_first_row() -> None:
    found = Blend(0.25).blended(CHUNK, 3, None, np.array([True, False]), 0, DT_S).actions[3:]
    assert found[:, 0] == pytest.approx(0.25 * ROWS[3:, 0])
    assert found[:, 1] == pytest.approx(ROWS[3, 1] + 0.25 * (ROWS[3:, 1] - ROWS[3, 1]))


def test_a_share_of_the_motion_is_led_well_below_the_limits_until_all_of_it_is_let_through() -> None:
    """What turns between two rows is faster than they are."""
    blend = Blend(0.0, np.array([1.0, np.inf]))
    blend.aim(1.0, 0.5, 0)
    rows = np.tile(np.array([5.0, 5.0], np.float32), (10, 1))
    found = blend.blended(ActionChunk(rows, ("a", "b"), DT_S), 0, REST, NO_RATES, 0, DT_S).actions
    steps = np.diff(found[:, 0].astype(np.float64), prepend=0.0)
    assert (steps[:4] <= SPEED_SHARE * DT_S + 1e-6).all()
    assert (steps[4:] <= DT_S + 1e-6).all()
    assert found[:5, 1] == pytest.approx(np.arange(1.0, 6.0))
