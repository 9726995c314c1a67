# SPDX-License-Identifier: Apache-2.0
"""What the panel's pictures show, as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflex_ros.rqt.panel_view import Second, View
from reflex_ros.rqt.scale import LEAST_RANGE, digits_of, latency_top_ms, lines_of, shown_range, ticks

INF = float("inf")


def view(
    *latencies_ms: float, deadline_ms: float | None = None, slo: str = "", slo_ms: float | None = None
) -> View:
    seconds = tuple(Second(at, 1, latency, latency, latency) for at, latency in enumerate(latencies_ms))
    return View("/reflex", seconds=seconds, deadline_ms=deadline_ms, slo=slo, slo_ms=slo_ms)


def test_there_is_a_line_for_what_is_set_and_none_for_what_is_not() -> None:
    assert lines_of(view()) == []
    named = lines_of(view(deadline_ms=150.0, slo="p95=80ms", slo_ms=80.0))
    assert named == [("deadline", 150.0), ("objective p95", 80.0)]


def test_every_latency_and_every_near_line_is_in_view() -> None:
    assert latency_top_ms(view(20.0, 95.0, deadline_ms=150.0), 0.0) > 150.0
    assert latency_top_ms(view(20.0, 95.0), 0.0) > 95.0


def test_a_far_deadline_does_not_flatten_the_latencies() -> None:
    assert latency_top_ms(view(20.0, 30.0, deadline_ms=1000.0), 0.0) < 60.0


def test_without_latencies_the_lines_are_in_view() -> None:
    assert latency_top_ms(view(deadline_ms=1000.0), 0.0) > 1000.0
    assert latency_top_ms(view(), 0.0) > 0.0


def test_latencies_that_have_left_the_picture_do_not_stretch_it() -> None:
    assert latency_top_ms(view(900.0, 20.0), 1.0) < 50.0


@given(st.floats(0.01, 1e6))
def test_the_ticks_are_round_and_few(top: float) -> None:
    found = ticks(top)
    assert 3 <= len(found) <= 7
    assert found[0] == 0.0
    assert found[-1] <= top
    leading = f"{found[1]:e}"
    assert float(leading[: leading.index("e")]) in (1.0, 2.0, 5.0)


def test_a_joint_is_zoomed_to_its_motion_far_from_its_limits() -> None:
    bottom, top = shown_range(np.array([0.1, 0.2]), -2.0, 2.0)
    assert bottom < 0.1
    assert top > 0.2
    assert top - bottom < 0.2


def test_a_limit_is_in_view_where_it_is_near() -> None:
    bottom, top = shown_range(np.array([0.1, 0.2]), -2.0, 0.25)
    assert bottom > -2.0
    assert top > 0.25
    bottom, top = shown_range(np.array([-2.01, -1.9]), -2.0, 2.0)
    assert bottom < -2.01, "a row beyond its limit shows both"
    assert top < 2.0


def test_what_was_wanted_is_in_view() -> None:
    assert shown_range(np.array([0.1, 0.2]), -2.0, 2.0, [0.9])[1] > 0.9
    assert shown_range(np.array([0.1, 0.2]), -2.0, 2.0, [INF])[1] < 0.3


def test_a_joint_that_stands_still_is_not_zoomed_into_its_noise() -> None:
    bottom, top = shown_range(np.array([0.5, 0.500001]), -2.0, 2.0)
    assert top - bottom >= LEAST_RANGE


@pytest.mark.parametrize(
    ("bottom", "top", "digits"), [(-2.0, 1.0, 2), (0.16, 0.59, 2), (-0.003, 0.024, 3), (0.0, 500.0, 2)]
)
def test_the_ends_of_an_axis_differ_in_print(bottom: float, top: float, digits: int) -> None:
    assert digits_of(bottom, top) == digits
    assert f"{bottom:.{digits}f}" != f"{top:.{digits}f}"


@pytest.mark.parametrize("values", [[0.5, 0.5], [np.nan, 0.5], [np.nan], []])
def test_there_is_always_room_to_draw_in(values: list[float]) -> None:
    bottom, top = shown_range(np.array(values), -INF, INF)
    assert np.isfinite([bottom, top]).all()
    assert bottom < top
