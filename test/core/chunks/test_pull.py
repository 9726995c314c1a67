# SPDX-License-Identifier: Apache-2.0
"""Pulls and slower velocities by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.chunks.pull import slowed, towards


def test_a_pull_is_bounded_and_nothing_where_the_gap_is_not_known() -> None:
    np.testing.assert_allclose(towards(np.array([0.01, 0.0, -0.02]), 2.0, 1.0), [0.02, 0.0, -0.04])
    np.testing.assert_allclose(towards(np.array([3.0, 4.0]), 2.0, 0.5), [0.3, 0.4])
    for unknown in (np.nan, np.inf):
        np.testing.assert_array_equal(towards(np.array([unknown, 1.0]), 2.0, 0.5), [0.0, 0.0])


@pytest.mark.parametrize(("over", "factor"), [(0.5, 1.0), (1.0, 1.0), (4.0, 0.25)])
def test_a_velocity_is_made_slower_in_its_own_direction(over: float, factor: float) -> None:
    np.testing.assert_allclose(slowed(np.array([2.0, -1.0]), over), np.array([2.0, -1.0]) * factor)
