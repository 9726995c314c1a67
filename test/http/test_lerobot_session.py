# SPDX-License-Identifier: Apache-2.0
"""What a LeRobot client has sent and got: which observation is answered, and the numbers of rows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from reflex_core.robot.units import Conversion
from reflex_core.values import Observation
from reflex_ros.sidecar.wires.lerobot import ClientSetup, Labels, RowsCall, TimedRequest
from reflex_ros.sidecar.wires.lerobot_joints import ClientJoints
from reflex_ros.sidecar.wires.lerobot_session import Session, Waiting
from reflex_ros.sidecar.wires.wire import DecodedRequest

ONE = np.ones(1)
JOINTS = ClientJoints(("a",), Conversion(ONE, ONE), np.array([0]), Conversion(ONE, ONE), np.array([False]))
DECODED = DecodedRequest(Observation({}, None, "reach"))


def at(timestep: int, *, must_go: bool = False, timestamp: float = 0.0) -> TimedRequest:
    return TimedRequest(DECODED, timestep, timestamp, must_go, JOINTS)


class Client:
    """Offers observations to a session and takes rows, at times of its own."""

    def __init__(self, fps: float = 0.0) -> None:
        self.session = Session(setup=ClientSetup(rows=50))
        self.session.begin_episode()
        self.now_s, self.fps = 100.0, fps
        self.released: list[int] = []

    def offer(self, timed: TimedRequest) -> bool:
        return self.session.offer(Waiting(timed, lambda: self.released.append(timed.timestep)), self.now_s)

    def take(self) -> tuple[TimedRequest, Labels]:
        taken = self.session.take(self.fps, 0.05)
        assert taken is not None
        return taken[0].timed, taken[1]

    def answered(self, timed: TimedRequest, labels: Labels, count: int = 50) -> bool:
        call = RowsCall(timed, labels)
        call.request_id, call.sent = f"request-{timed.timestep}", count
        return self.session.delivered(timed, labels, call, self.now_s)

    def served(self, timed: TimedRequest) -> tuple[DecodedRequest, Labels]:
        assert self.offer(timed)
        taken, labels = self.take()
        assert self.answered(taken, labels)
        return taken.decoded, labels


@pytest.fixture
def client() -> Client:
    return Client()


def test_no_row_is_lost_and_elapsed_rows_come_from_the_timesteps(client: Client) -> None:
    first, labels = client.served(at(0, must_go=True))
    assert labels == Labels(0, 50, 0.0)
    assert (first.elapsed_rows, first.previous_request_id) == (None, "")
    second, labels = client.served(at(25))
    assert labels.first == 26  # the client has executed 0 to 25 and drops what is not newer
    assert (second.elapsed_rows, second.previous_request_id) == (26, "request-0")
    third, labels = client.served(at(50))
    assert labels.first == 51
    assert (third.elapsed_rows, third.previous_request_id) == (25, "request-25")
    assert len({first.episode_id, second.episode_id, third.episode_id}) == 1


def test_rows_for_another_rate_count_in_the_policys_own(client: Client) -> None:
    client.fps = 30.0
    client.served(at(0))
    decoded, labels = client.served(at(29))
    assert labels.first == 30
    assert decoded.elapsed_rows == pytest.approx(20.0)


def test_the_newest_observation_wins_and_what_it_replaces_is_freed(client: Client) -> None:
    for timestep in (3, 4, 5):
        assert client.offer(at(timestep))
    assert client.released == [3, 4]
    assert client.take()[0].timestep == 5
    assert client.session.take(0.0, 0.05) is None


def test_that_one_must_go_is_not_forgotten_for_a_newer_one(client: Client) -> None:
    client.offer(at(3, must_go=True))
    client.offer(at(4))
    assert client.take()[0].must_go


@pytest.mark.parametrize(("step", "taken"), [(25, False), (27, False), (28, True)])
def test_an_observation_close_to_the_answered_one_is_left_out(client: Client, step: int, taken: bool) -> None:
    client.served(at(25))
    assert client.offer(at(step)) is taken
    assert client.released == ([] if taken else [step])


def test_a_close_observation_goes_where_the_robot_has_nothing_left_or_the_answer_was_lost(
    client: Client,
) -> None:
    client.served(at(25))
    assert client.offer(at(25, must_go=True))
    assert client.take()[0].timestep == 25
    client.now_s += 1.1
    assert client.offer(at(26))


def test_of_short_chunks_fewer_are_left_out(client: Client) -> None:
    client.offer(at(4))
    assert client.answered(*client.take(), 4)
    assert not client.offer(at(4))
    assert client.offer(at(5))


def test_what_arrived_during_an_inference_was_sent_before_the_rows_came(client: Client) -> None:
    client.offer(at(25))
    taken = client.take()
    client.offer(at(34))
    assert client.answered(*taken)
    assert client.session.take(0.0, 0.05) is None
    client.offer(at(60))
    taken = client.take()
    client.offer(at(61, must_go=True))
    assert client.answered(*taken)
    assert client.take()[0].timestep == 61


def test_ready_begins_an_episode_and_late_rows_of_the_last_one_are_not_sent(client: Client) -> None:
    before, _ = client.served(at(0))
    client.offer(at(30))
    taken = client.take()
    client.session.begin_episode()
    assert not client.answered(*taken)
    decoded, labels = client.served(at(0))
    assert labels.first == 0
    assert decoded.elapsed_rows is None
    assert decoded.episode_id != before.episode_id


def test_a_counter_that_begins_again_begins_an_episode(client: Client) -> None:
    before, _ = client.served(at(70))
    decoded, labels = client.served(at(0, must_go=True))
    assert decoded.episode_id != before.episode_id
    assert (labels.first, decoded.elapsed_rows) == (0, None)


def test_a_client_that_connects_again_in_its_episode_goes_on(client: Client) -> None:
    decoded, labels = client.served(at(70))
    assert (labels.first, decoded.elapsed_rows) == (71, None)


def judged(caplog: pytest.LogCaptureFixture, fps: float, must_go: Callable[[int], bool]) -> str:
    session = Session()
    with caplog.at_level(logging.WARNING):
        for step in range(0, 200, 5):
            timed = at(step, timestamp=1e9 + step / fps, must_go=must_go(step))
            session.judge_rate(timed, 20.0)
    return caplog.text


def test_rows_executed_at_another_rate_are_logged_with_both_ways_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = judged(caplog, 30.0, lambda step: step == 0)
    assert "executes 30 rows per second and they are meant for 20" in text
    assert "--fps=20" in text
    assert "--lerobot-fps 30" in text
    assert "1.5 times" in text


@pytest.mark.parametrize(
    ("fps", "must_go"), [(20.5, lambda step: step == 0), (10.0, lambda step: step % 15 == 0)]
)
def test_a_rate_that_fits_or_a_robot_without_rows_is_not_logged(
    caplog: pytest.LogCaptureFixture, fps: float, must_go: Callable[[int], bool]
) -> None:
    assert judged(caplog, fps, must_go) == ""


def test_who_waits_for_an_observation_is_woken(client: Client) -> None:
    async def wait() -> bool:
        waiter = asyncio.ensure_future(client.session.news.wait())
        await asyncio.sleep(0)
        client.offer(replace(at(1)))
        return await asyncio.wait_for(waiter, 5.0)

    assert asyncio.run(wait())
