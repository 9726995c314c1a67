# SPDX-License-Identifier: Apache-2.0
"""The second reading of recordings, of traces and of streams: it has the frames that the first one counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from reflex_core.dataset.survey import Episode, Key, Layout, Survey, as_surveyed
from reflex_core.records.trace.parse import TraceError

ONE, TWO, LATER = ("session", "ep_1"), ("session", "ep_2"), ("session", "ep_3")


def surveyed(counts: dict[Key, int]) -> Survey:
    layout = Layout({}, 0, 1, ("joint",), (), 0.02, "arm")
    episodes = {
        key: Episode(number, key[1], f"{key[1]}.jsonl", True, 0, 0, count)
        for number, (key, count) in enumerate(counts.items())
    }
    return Survey(layout, episodes, {}, Counter(), 0, [], [])


def read(counts: dict[Key, int], frames: Sequence[tuple[Key, int]]) -> list[tuple[str, int]]:
    found = as_surveyed(surveyed(counts), iter(frames), "requests")
    return [(episode.episode_id, frame) for episode, frame in found]


def test_each_frame_comes_with_its_episode_and_what_was_added_meanwhile_is_left_out() -> None:
    frames = [(ONE, 1), (TWO, 2), (ONE, 3), (LATER, 4), (TWO, 5), (ONE, 6)]
    assert read({ONE: 2, TWO: 1}, frames) == [("ep_1", 1), ("ep_2", 2), ("ep_1", 3)]


def test_a_recording_that_became_shorter_is_refused_by_name() -> None:
    with pytest.raises(TraceError, match=r"^ep_2\.jsonl: has fewer requests than a moment ago"):
        read({ONE: 1, TWO: 2}, [(ONE, 1), (TWO, 2)])
