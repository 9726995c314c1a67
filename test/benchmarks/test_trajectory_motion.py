# SPDX-License-Identifier: Apache-2.0
"""The benchmark of executed motions: chunks as they are sent now move an arm without a jerk, as positions alone do not."""

from __future__ import annotations

import pytest

from benchmarks.trajectory_motion import AFTER, BEFORE, Case, markdown, row_of, run
from reflex_ros.demo.controllers.options import BLEND, LEGACY


@pytest.mark.parametrize(("desired", "least_rad_s2"), [(False, 20_000.0), (True, 1_000.0)])
def test_the_hand_over_takes_the_jerk_away(desired: bool, least_rad_s2: float) -> None:
    before = run(Case(BEFORE, LEGACY, desired, 5.0, 0.004), seed=0)
    after = run(Case(AFTER, LEGACY, desired, 5.0, 0.004), seed=0)
    assert before.peak_rad_s2 > least_rad_s2
    assert after.peak_rad_s2 < 40.0
    assert after.jump_rad < 1.1 * 1.34e-3, "no step above the speed of the path"
    assert after.jump_rad_s < 0.05 * before.jump_rad_s


def test_where_trajectories_are_joined_they_are_no_longer_played_late() -> None:
    before = run(Case(BEFORE, BLEND, False, 5.0, 0.004), seed=0)
    after = run(Case(AFTER, BLEND, False, 5.0, 0.004), seed=0)
    assert before.error_rad > 0.15
    assert after.error_rad < 0.07, "of which 0.053 are the arm's own lag"


def test_the_table_is_that_of_the_page() -> None:
    lines = markdown([row_of(LEGACY, True, AFTER, 10.0, 1)]).splitlines()
    assert lines[0].startswith("| era | state | chunks | replan Hz | peak 0 mrad |")
    assert lines[2].startswith("| legacy | desired | after | 10 | 2.8 |")
