# SPDX-License-Identifier: Apache-2.0
"""What the first version recorded is read as messages to play."""

from __future__ import annotations

import pytest
from first_version import MADE

from reflex_core.records.trace.reader import TraceReader
from reflex_ros.bag.source import BagSource
from reflex_ros.playing.bags import BagRecording
from reflex_ros.playing.traces import TraceRecording


@pytest.mark.parametrize("bag", ["bags/mcap.bag", "bags/sqlite3.bag"])
def test_a_bag_plays(bag: str) -> None:
    with BagSource(MADE / bag) as source:
        recording = BagRecording(source)
        topics = {offer.topic for offer in recording.offers}
        assert {"/camera/image_raw", "/joint_states", "/instruction"} <= topics
        assert sum(moment.observations for moment in recording.moments()) == 2


def test_a_trace_plays() -> None:
    with TraceReader(MADE / "traces/demo.jsonl.gz") as source:
        recording = TraceRecording(source, source.path)
        assert sum(moment.observations for moment in recording.moments()) == 2
