# SPDX-License-Identifier: Apache-2.0
"""The guard's limits survive the way through a diagnostic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflex_core.robot.limits.limits import Limits
from reflex_ros.messages.limit_text import range_values, ranges_from

BOUND = st.floats(-1e3, 1e3, allow_nan=False) | st.sampled_from([np.inf, -np.inf])
NAME = st.text("abcdefgh_0123456789 to", min_size=1, max_size=12)


def limits(names: tuple[str, ...], low: list[float], high: list[float], workspace: bool = False) -> Limits:
    dim = len(names)
    return Limits(
        names, np.array(low), np.array(high), np.full(dim, np.inf), np.full(dim, np.inf),
        np.full(dim, workspace), np.zeros(dim, np.bool_),
    )  # fmt: skip


def test_a_range_reads_as_a_person_would_say_it() -> None:
    assert range_values(limits(("elbow",), [-2.9], [2.9])) == {"elbow range": "-2.9 to 2.9 rad"}
    assert range_values(limits(("x",), [0.1], [0.7], workspace=True)) == {"x range": "0.1 to 0.7 m"}
    assert range_values(limits(("wheel",), [-np.inf], [np.inf])) == {"wheel range": "-inf to inf rad"}


@given(st.dictionaries(NAME, st.tuples(BOUND, BOUND), max_size=8))
def test_what_is_written_can_be_read(ranges: dict[str, tuple[float, float]]) -> None:
    names = tuple(ranges)
    written = range_values(limits(names, [ranges[n][0] for n in names], [ranges[n][1] for n in names]))
    found = ranges_from(written)
    assert set(found) == set(names)
    for name, pair in found.items():
        np.testing.assert_allclose(pair, ranges[name], rtol=1e-5)


@pytest.mark.parametrize("text", ["", "to", " to ", "a to b", "1 to", "1 2", "1 to x rad"])
def test_what_is_no_range_is_left_out(text: str) -> None:
    assert ranges_from({"elbow range": text, "mode": "clip", "wrist range": "0 to 1 rad"}) == {
        "wrist": (0, 1)
    }
