# SPDX-License-Identifier: Apache-2.0
"""When a chunk is corrected, when it is left alone, and what the reply says about it."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarded import MIDDLE, answering, ramp, spoiled
from guarded import request as request_of
from heads import constant, contents, correction_of, observation, picture, written

from reflex_core.reports import A2C2Report
from reflex_core.values import HOLD, ROS, Request, Served
from reflex_core.wedges.a2c2 import A2C2

LATE_NS, SOON_NS = 200_000_000, 0


def make_request(late_ns: int = LATE_NS) -> Request:
    return replace(request_of(received_ns=time.monotonic_ns() - late_ns), observation=observation())


def wedge_of(path: Path, z: float = 0.3, **other: Any) -> A2C2:
    return A2C2(correction_of(constant(path / "head.npz", z)), **other)


def warmed(wedge: A2C2, late_ns: int = LATE_NS) -> A2C2:
    """The wedge after the answers that it needs to know its latency."""
    for _ in range(4):
        assert wedge(make_request(late_ns), answering(ramp())).a2c2.reason == "cold_start"
    return wedge


def test_a_late_chunk_is_corrected_and_the_reply_says_by_how_much(tmp_path: Path) -> None:
    served = warmed(wedge_of(tmp_path))(make_request(), answering(ramp()))
    residual = math.tanh(0.1) * 3
    np.testing.assert_allclose(served.chunk.actions - ramp(), residual * 0.25, atol=1e-5)
    assert served.a2c2.document() == {
        "applied": True,
        "reason": "applied",
        "correction_magnitude": pytest.approx(residual * math.sqrt(70), rel=1e-4),
    }


def test_what_the_network_said_stays_on_record(tmp_path: Path) -> None:
    served = warmed(wedge_of(tmp_path))(make_request(), answering(ramp()))
    np.testing.assert_array_equal(served.raw_actions, ramp())


def test_the_first_answers_are_left_alone(tmp_path: Path) -> None:
    wedge = wedge_of(tmp_path)
    served = wedge(make_request(), answering(ramp()))
    np.testing.assert_array_equal(served.chunk.actions, ramp())
    assert served.a2c2.document() == {"applied": False, "reason": "cold_start", "correction_magnitude": 0.0}


def test_a_chunk_in_time_is_left_alone(tmp_path: Path) -> None:
    served = warmed(wedge_of(tmp_path, latency_threshold_ms=10_000), SOON_NS)(
        make_request(SOON_NS), answering(ramp())
    )
    np.testing.assert_array_equal(served.chunk.actions, ramp())
    assert served.a2c2.reason == "low_latency"


def test_delay_that_is_added_outside_counts(tmp_path: Path) -> None:
    wedge = warmed(wedge_of(tmp_path, latency_threshold_ms=10_000, injected_ms=lambda: 20_000.0), SOON_NS)
    assert wedge(make_request(SOON_NS), answering(ramp())).a2c2.reason == "applied"


def test_answers_without_an_error_are_no_success(tmp_path: Path) -> None:
    wedge = warmed(wedge_of(tmp_path))
    assert {wedge(make_request(), answering(ramp())).a2c2.reason for _ in range(20)} == {"applied"}


def test_reported_success_is_a_reason_to_leave_chunks_alone(tmp_path: Path) -> None:
    wedge = warmed(wedge_of(tmp_path, success_threshold=0.9))
    for _ in range(4):
        wedge.report(success=True)
    assert wedge(make_request(), answering(ramp())).a2c2.reason == "applied"
    wedge.report(success=True)
    assert wedge(make_request(), answering(ramp())).a2c2.reason == "high_success"
    wedge.report(success=False)
    assert wedge(make_request(), answering(ramp())).a2c2.reason == "applied"


def test_a_correction_that_is_too_large_is_refused_and_the_reply_says_so(tmp_path: Path) -> None:
    served = warmed(wedge_of(tmp_path, z=30.0))(make_request(), answering(ramp()))
    np.testing.assert_array_equal(served.chunk.actions, ramp())
    assert served.a2c2.document() == {
        "applied": False,
        "reason": "magnitude_safety_skip",
        "correction_magnitude": pytest.approx(3 * math.sqrt(70), rel=1e-5),
    }


def test_holds_and_broken_chunks_are_left_as_they_are(tmp_path: Path) -> None:
    wedge = warmed(wedge_of(tmp_path))

    def holding(request: Request) -> Served:
        served = answering(ramp())(request)
        return replace(served, chunk=replace(served.chunk, source=HOLD), hold_reason="deadline")

    def unreached(request: Request) -> Served:
        return replace(answering(ramp())(request), unreached="row 3")

    for proceed, actions in (
        (holding, ramp()),
        (unreached, ramp()),
        (answering(spoiled()), spoiled()),
    ):
        served = wedge(make_request(), proceed)
        np.testing.assert_array_equal(served.chunk.actions, actions)
        assert served.a2c2.reason == "not_a_policy_chunk"


def test_the_head_sees_what_the_robot_sees_now(tmp_path: Path) -> None:
    """The answer must depend on the newest observation, and on nothing else that differs here."""
    path = written(
        tmp_path / "head.npz", contents(obs_dim=7 + 7 + 36, features="state_change+previous+hues12_change")
    )
    request = replace(make_request(), observation=observation(stamp_ns=1_000_000_000))
    moved = observation(picture((200, 20, 20), 48, 70), stamp_ns=1_250_000_000)
    still = observation(stamp_ns=1_250_000_000)
    answers = []
    for newest in (moved, still, None):
        wedge = warmed(A2C2(correction_of(path), newest=lambda _, newest=newest: newest))
        answers.append(wedge(request, answering(ramp())).chunk.actions)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
    assert np.abs(answers[1] - answers[2]).max() > 1e-6  # without one, it learns how late chunks come


def test_the_head_knows_what_the_robot_is_being_commanded(tmp_path: Path) -> None:
    path = written(tmp_path / "head.npz", contents(features="previous"))
    commands = [MIDDLE, MIDDLE + np.float32(0.3)]
    wedges = [warmed(A2C2(correction_of(path), previous=lambda _, rows=rows: rows)) for rows in commands]
    first, second = (wedge(make_request(), answering(ramp())).chunk.actions for wedge in wedges)
    assert np.abs(first - second).max() > 1e-3


def test_an_observation_it_cannot_read_leaves_the_chunk_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wedge = warmed(wedge_of(tmp_path))
    request = replace(make_request(), observation=observation(state=None))
    for _ in range(2):
        served = wedge(request, answering(ramp()))
        np.testing.assert_array_equal(served.chunk.actions, ramp())
        assert served.a2c2.reason == "error:ObservationError"
    assert len(caplog.records) == 1
    assert "needs a state of 7 numbers" in caplog.text


def test_the_metrics_count_every_answer(tmp_path: Path) -> None:
    outcomes: list[A2C2Report] = []
    wedge = wedge_of(tmp_path, on_outcome=outcomes.append)
    for _ in range(6):
        wedge(make_request(), answering(ramp()))
    assert [outcome.reason for outcome in outcomes] == ["cold_start"] * 4 + ["applied"] * 2


def test_many_threads_may_ask_at_once(tmp_path: Path) -> None:
    wedge = warmed(wedge_of(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: wedge(make_request(), answering(ramp())), range(200)))
    assert {served.a2c2.reason for served in answers} == {"applied"}
    assert len({served.chunk.actions.tobytes() for served in answers}) == 1


def test_what_is_corrected_where_it_is_streamed_is_not_corrected_twice(tmp_path: Path) -> None:
    """That is the robot of the node; programs that ask over HTTP get corrected chunks as ever."""
    wedge = warmed(wedge_of(tmp_path, every_step=True))
    streamed = wedge(replace(make_request(), caller=ROS), answering(ramp()))
    np.testing.assert_array_equal(streamed.chunk.actions, ramp())
    assert streamed.a2c2 == A2C2Report(False, "every_step")
    assert wedge(make_request(), answering(ramp())).a2c2.reason == "applied"
    for _ in range(5):
        wedge.report(success=True)
    assert wedge(replace(make_request(), caller=ROS), answering(ramp())).a2c2.reason == "high_success"
    assert (
        wedge(replace(make_request(), caller=ROS), answering(spoiled())).a2c2.reason == "not_a_policy_chunk"
    )
