# SPDX-License-Identifier: Apache-2.0
"""The window of latencies: what is in it, and its percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflex_core.metrics.latency_window import LatencyWindow, percentile_of

VALUES = st.lists(st.floats(0.0, 1e6), max_size=60)


@given(VALUES, st.floats(0.0, 100.0), st.integers(1, 20))
def test_a_percentile_is_that_of_the_newest_values(values: list[float], percentile: float, most: int) -> None:
    window = LatencyWindow(most)
    for value in values:
        window.add(value)
    newest = values[-most:]
    assert len(window) == len(newest)
    expected = np.percentile(newest, percentile) if newest else 0.0
    assert window.percentile(percentile) == pytest.approx(expected)


def test_values_that_are_too_old_are_gone() -> None:
    now_s = [0.0]
    window = LatencyWindow(10, 60.0, lambda: now_s[0])
    for value in (5.0, 5.0, 7.0):
        window.add(value)
        now_s[0] += 30.0
    assert (len(window), window.percentile(0), window.percentile(100)) == (2, 5.0, 7.0)
    now_s[0] = 120.0
    assert (len(window), window.percentile(50)) == (1, 7.0)
    now_s[0] = 120.001
    assert (len(window), window.percentile(50)) == (0, 0.0)


def test_a_window_may_begin_anew() -> None:
    window = LatencyWindow(3)
    window.add(1.0)
    window.clear()
    assert (len(window), window.percentile(99)) == (0, 0.0)


def test_percentiles_of_what_is_in_order_already() -> None:
    assert percentile_of([], 99) == 0.0
    assert [percentile_of([1.0, 2.0, 4.0], at) for at in (0, 25, 50, 100)] == [1.0, 1.5, 2.0, 4.0]
