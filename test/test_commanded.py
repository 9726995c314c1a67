# SPDX-License-Identifier: Apache-2.0
"""What a robot was last told to do, by episode and by the time that has passed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from reflex_core.commanded import EPISODES_KEPT, Commanded
from reflex_core.values import ActionChunk

SECOND_NS = 1_000_000_000
RAMP = ActionChunk(np.arange(20, dtype=np.float32).reshape(10, 2), ("a", "b"), dt_s=0.05)


@pytest.mark.parametrize(
    ("elapsed_s", "row"), [(-1.0, 0), (0.0, 0), (0.049, 0), (0.051, 1), (0.26, 5), (0.46, 9), (60.0, 9)]
)
def test_the_elapsed_time_picks_the_row(elapsed_s: float, row: int) -> None:
    commanded = Commanded()
    commanded.remember("pick", RAMP, 5 * SECOND_NS)
    found = commanded.at("pick", 5 * SECOND_NS + int(elapsed_s * SECOND_NS))
    assert found is not None
    np.testing.assert_array_equal(found, RAMP.actions[row])


def test_a_newer_chunk_replaces_the_older() -> None:
    commanded = Commanded()
    commanded.remember("pick", RAMP, 0)
    newer = ActionChunk(RAMP.actions + 100, RAMP.names, RAMP.dt_s)
    commanded.remember("pick", newer, SECOND_NS)
    np.testing.assert_array_equal(commanded.at("pick", SECOND_NS), newer.actions[0])


def test_an_answer_to_an_older_observation_that_comes_late_does_not_replace_the_newer() -> None:
    commanded = Commanded()
    newer = ActionChunk(RAMP.actions + 100, RAMP.names, RAMP.dt_s)
    commanded.remember("pick", newer, SECOND_NS)
    commanded.remember("pick", RAMP, 0)
    np.testing.assert_array_equal(commanded.at("pick", SECOND_NS), newer.actions[0])


def test_another_episode_knows_nothing_of_it() -> None:
    commanded = Commanded()
    commanded.remember("pick", RAMP, 0)
    assert commanded.at("place", 0) is None


def test_requests_without_an_episode_share_no_history() -> None:
    commanded = Commanded()
    commanded.remember(None, RAMP, 0)
    assert commanded.at(None, 0) is None


def test_a_chunk_without_a_rate_holds_its_last_row() -> None:
    commanded = Commanded()
    commanded.remember("pick", ActionChunk(RAMP.actions, RAMP.names, dt_s=0.0), 0)
    np.testing.assert_array_equal(commanded.at("pick", 1), RAMP.actions[-1])


def test_old_episodes_are_forgotten_so_that_memory_stays_bounded() -> None:
    commanded = Commanded()
    for number in range(EPISODES_KEPT + 50):
        commanded.remember(f"episode-{number}", RAMP, 0)
        commanded.remember("the one in use", RAMP, 0)
    assert commanded.at("episode-0", 0) is None
    assert commanded.at("the one in use", 0) is not None
    assert len(commanded._chunks) == EPISODES_KEPT


def test_many_threads_may_remember_and_ask() -> None:
    commanded, wrong = Commanded(), []

    def robot(number: int) -> None:
        mine = ActionChunk(np.full((4, 2), number, np.float32), ("a", "b"), dt_s=0.05)
        for step in range(200):
            commanded.remember(f"episode-{number}", mine, step)
            found = commanded.at(f"episode-{number}", step)
            if found is None or found[0] != number:
                wrong.append(number)

    threads = [threading.Thread(target=robot, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
