# SPDX-License-Identifier: Apache-2.0
"""~/get_action_chunk over DDS: the answer of POST /act for who plays a chunk himself, and nothing moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_client import Client, text
from reflex_ros.msg import ActionChunk
from reflex_ros.srv import GetActionChunk
from ros_world import BEYOND, HOME, JOINTS, PATIENCE_S, REACH_HOME, Robot, World, rows, wait_for, world
from sensor_msgs.msg import JointState
from servers import ExportDir

from reflex_core.records.trace.reader import TraceReader
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.node import get_action_chunk
from reflex_ros.node.observation_buffer import Gates

Response = GetActionChunk.Response
HOLD = ActionChunk.SOURCE_HOLD
GATES = Gates(300.0, 150.0)
CALLER = "session:get_action_chunk"


def franka(export: object, **settings: Any) -> dict[str, Any]:
    return {"export_dir": str(export), "embodiment": "franka", "robot_id": "cell-9"} | settings


def ask(robot: Robot, **fields: Any) -> GetActionChunk.Response:
    client = robot.node.create_client(GetActionChunk, "reflex/get_action_chunk")
    return robot._request(client, GetActionChunk.Request(**fields))


def seen(robot: Robot, positions: list[float] = HOME, **fields: Any) -> dict[str, Any]:
    """A request that brings all a policy needs."""
    image = robot.image()
    state = JointState(name=JOINTS, position=positions)
    state.header.stamp = image.header.stamp
    return {
        "instruction": "reach the red cube",
        "image_names": ["camera"],
        "images": [image],
        "robot_state": state,
    } | fields


def over_http(scene: World, sent: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The reply of /act for the same observation."""
    assert scene.server.sidecar is not None
    image, state = sent["images"][0], sent["robot_state"]
    body = {
        "instruction": sent["instruction"],
        "state": list(state.position),
        "image": {
            "data": text(bytes(image.data)),
            "encoding": image.encoding,
            "height": image.height,
            "width": image.width,
        },
    }
    answer = Client(scene.server.sidecar.port).act(body | fields)
    assert answer.status == 200, answer.body
    reply: dict[str, Any] = answer.json
    return reply


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir) -> Iterator[World]:
    """An active node whose robot is stopped: whatever is published, a request has made it."""
    with world(**franka(export_dir("calm"), http=True, port=0)) as found:
        found.activate()
        found.robot.next_chunk(ActionChunk.SOURCE_POLICY, 0)
        assert found.robot.call("stop").success
        wait_for(lambda: found.buffer.peek(found.server.now_ns(), GATES), "it has come to rest")
        yield found


def test_the_answer_is_that_of_act_to_the_bit(scene: World) -> None:
    sent = seen(scene.robot, seed=77)
    answer, reply = ask(scene.robot, **sent), over_http(scene, sent, seed=77)
    assert (answer.success, answer.status, answer.error, answer.message) == (
        True,
        Response.STATUS_CHUNK,
        "",
        "",
    )
    expected = np.array(reply["actions"], np.float32)
    np.testing.assert_array_equal(rows(answer.details), expected)
    positions = np.array([list(point.positions) for point in answer.chunk.points])
    np.testing.assert_array_equal(positions, expected.astype(np.float64))
    assert list(answer.chunk.joint_names) == reply["action_names"] == JOINTS
    assert answer.native_control_period == reply["dt_s"]
    assert (answer.details.seed, answer.details.model_version) == (77, reply["model_version"])
    assert answer.caller == CALLER
    first = answer.chunk.points[0].time_from_start
    assert first.sec + first.nanosec * 1e-9 == pytest.approx(answer.native_control_period)


def test_what_a_request_leaves_out_is_the_nodes_own_newest_and_nothing_moves(scene: World) -> None:
    assert scene.server.engine.loaded is not None
    commands, published = scene.server.engine.loaded.guard.commands, len(scene.robot.chunks)
    before = commands.recall()
    answer = ask(scene.robot)
    assert answer.status == Response.STATUS_CHUNK, answer.message
    age_s = scene.server.now_ns() * 1e-9 - stamp_ns(answer.chunk.header.stamp) * 1e-9
    assert 0.0 <= age_s < PATIENCE_S
    assert answer.details.observation_age_ms > 0.0
    assert answer.details.episode_id.startswith("get_action_chunk_")
    again = ask(scene.robot)
    assert (again.details.episode_id, again.details.chunk_id) == (
        answer.details.episode_id,
        answer.details.chunk_id + 1,
    )
    other = ask(scene.robot, new_episode=True)
    assert other.details.episode_id != answer.details.episode_id
    assert other.details.chunk_id == 0
    assert commands.recall() is before
    assert len(scene.robot.chunks) == published


def test_images_alone_are_completed_by_the_nodes_own_state(scene: World) -> None:
    sent = seen(scene.robot)
    del sent["robot_state"]
    assert ask(scene.robot, **sent).status == Response.STATUS_CHUNK


@pytest.mark.parametrize(
    ("by_s", "half", "slug"),
    [(-600, True, "stale"), (600, True, "future_stamp"), (600, False, "future_stamp")],
)
def test_what_a_caller_brings_is_no_fresher_than_its_stamp(
    scene: World, by_s: int, half: bool, slug: str
) -> None:
    sent = seen(scene.robot)
    for part in (sent["images"][0], sent["robot_state"]):
        part.header.stamp.sec += by_s
    if half:
        del sent["robot_state"]
    answer = ask(scene.robot, **sent)
    assert (answer.success, answer.error) == (False, slug)
    assert "what the request brings" in answer.message


def test_a_request_is_recorded_as_others_are(export_dir: ExportDir, tmp_path: Path) -> None:
    with world(**franka(export_dir("calm"), record=str(tmp_path))) as scene:
        scene.activate()
        answer = ask(scene.robot, **seen(scene.robot, request_id="by-service", episode_id="pick-3"))
        assert answer.details.trace_seq >= 0
    [path] = [found for found in tmp_path.rglob("*") if found.is_file()]
    with TraceReader(path) as trace:
        [record] = [record for record in trace if record.request_id == "by-service"]
    assert record.episode_id == "pick-3"
    np.testing.assert_array_equal(record.actions, rows(answer.details))


@pytest.mark.parametrize(
    ("fields", "slug", "says"),
    [
        ({"image_names": ["nose"]}, "unknown-camera", "there is no camera 'nose'; the cameras are camera"),
        ({"image_names": ["camera", "camera"]}, "bad-image", "has 2 names for 1 images"),
        ({"image_names": []}, "bad-image", "has 0 names for 1 images"),
        (
            {"robot_state": JointState(name=JOINTS[1:], position=HOME[1:])},
            "bad-state",
            "'robot_state' lacks panda_joint1; joints in it: panda_joint2",
        ),
        ({"robot_state": JointState(name=JOINTS, position=HOME[1:])}, "bad-state", "7 names for 6 positions"),
        (
            {"robot_state": JointState(name=[*JOINTS, JOINTS[0]], position=[*HOME, 0.0])},
            "bad-state",
            "names joint 'panda_joint1' twice",
        ),
        ({"robot_state": JointState(position=HOME)}, "bad-state", "positions without names"),
        (
            {"robot_state": JointState(name=JOINTS, position=[float("nan"), *HOME[1:]])},
            "state-not-finite",
            "must be finite",
        ),
        (
            {"robot_state": JointState(name=JOINTS, position=[9.0, *HOME[1:]])},
            "implausible-state",
            "panda_joint1",
        ),
        ({"seed": -2}, "bad-seed", "'seed' must be an integer"),
        ({"elapsed_rows": float("nan")}, "bad-elapsed-rows", "'elapsed_rows' must be a number"),
        ({"deadline_ms": -1.0}, "bad-deadline-ms", "'deadline_ms' must be 0 to 60000, got -1.0"),
        ({"deadline_ms": float("nan")}, "bad-deadline-ms", "got nan"),
        ({"robot_id": "cell-9"}, "reserved-robot-id", "another name"),
        ({"robot_id": "ros"}, "reserved-robot-id", "another name"),
        ({"episode_id": "two\nlines"}, "bad-episode-id", "printable"),
        ({"episode_id": " "}, "bad-episode-id", "not blanks alone"),
        ({"instruction": "x" * 10_001}, "bad-instruction", "at most 10000"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_answered_is_refused_with_a_sentence(
    scene: World, fields: dict[str, Any], slug: str, says: str
) -> None:
    answer = ask(scene.robot, **seen(scene.robot) | fields)
    assert (answer.success, answer.status, answer.error) == (False, Response.STATUS_REFUSED, slug)
    assert says in answer.message
    assert len(answer.chunk.points) == 0


def test_the_episode_of_the_robot_itself_is_no_callers(scene: World) -> None:
    own = scene.server._assignment.episode_id
    answer = ask(scene.robot, **seen(scene.robot, episode_id=own))
    assert (answer.status, answer.error) == (Response.STATUS_REFUSED, "reserved-episode-id")
    assert own in answer.message


def test_a_request_for_what_the_node_does_not_see_just_now_says_why(scene: World) -> None:
    scene.robot.camera_on = False
    try:
        wait_for(
            lambda: scene.buffer.ages_ms(scene.server.now_ns())["camera camera"] > 400.0,
            "the image is too old",
        )
        answer = ask(scene.robot)
        assert (answer.status, answer.error) == (Response.STATUS_NOT_READY, "stale")
        assert "camera 'camera'" in answer.message
        assert ask(scene.robot, **seen(scene.robot)).success, "a request that brings everything is answered"
    finally:
        scene.robot.camera_on = True
        wait_for(lambda: scene.buffer.peek(scene.server.now_ns(), GATES), "the image is fresh")


def test_more_requests_than_threads_are_refused(scene: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_action_chunk, "MOST_UNDER_WAY", 0)
    answer = ask(scene.robot)
    assert (answer.status, answer.error) == (Response.STATUS_NOT_READY, "too-many-requests")


def test_as_many_callers_at_once_as_there_may_be_all_get_an_answer(scene: World) -> None:
    robot = scene.robot
    clients = [robot.node.create_client(GetActionChunk, "reflex/get_action_chunk") for _ in range(20)]
    for client in clients:
        assert client.wait_for_service(PATIENCE_S)
    request = GetActionChunk.Request(**seen(robot))

    async def ask_all() -> list[Any]:
        return [client.call_async(request) for client in clients]

    answers = robot.spinner.do(ask_all)
    wait_for(lambda: all(answer.done() for answer in answers), "all are answered")
    assert {answer.result().status for answer in answers} <= {
        Response.STATUS_CHUNK,
        Response.STATUS_NOT_READY,
    }
    for client in clients:
        robot.node.destroy_client(client)


def test_a_node_that_commands_no_robot_answers_what_is_complete(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("mono_pi0")), http=True, port=0) as scene:
        assert ask(scene.robot).status == Response.STATUS_NOT_READY, "nothing is loaded"
        assert scene.spinner.do(scene.server.start)
        assert scene.state == "inactive"
        refused = ask(scene.robot, instruction="reach the red cube")
        assert (refused.status, refused.error) == (Response.STATUS_REFUSED, "no-own-observation")
        assert "which is inactive, listens to no sensors" in refused.message
        assert scene.server.engine.loaded is not None
        binding = scene.server.engine.loaded.policy.binding
        names = binding.state_names or binding.action_names
        state = JointState(name=names, position=[0.0] * len(names))
        camera = next(iter(binding.cameras.values()))
        answer = ask(scene.robot, **seen(scene.robot, robot_state=state, image_names=[camera]))
        assert answer.status == Response.STATUS_CHUNK, answer.message


def test_a_long_inference_holds_up_no_stop_and_no_status(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_burning_long"))) as scene:
        scene.activate()
        scene.robot.next_chunk(ActionChunk.SOURCE_POLICY, 0)
        client = scene.robot.node.create_client(GetActionChunk, "reflex/get_action_chunk")
        assert client.wait_for_service(PATIENCE_S)
        long = client.call_async(GetActionChunk.Request(**seen(scene.robot, BEYOND, deadline_ms=4000.0)))
        assert scene.server.engine.loaded is not None
        deadline = scene.server.engine.loaded.deadline
        wait_for(lambda: deadline.busy, "the long inference runs")
        count = len(scene.robot.statuses)
        assert scene.robot.call("stop").success
        wait_for(lambda: len(scene.robot.statuses) > count + 1, "status goes on")
        assert ask(scene.robot, **seen(scene.robot, seed=-2)).error == "bad-seed"
        assert not long.done()
        wait_for(long.done, "the long one ends at its deadline")
        assert long.result().status == Response.STATUS_HOLD


def test_a_deadline_of_a_request_bounds_its_answer(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_burning"))) as scene:
        scene.activate()
        scene.robot.next_chunk(ActionChunk.SOURCE_POLICY, 0)
        answer = ask(scene.robot, **seen(scene.robot, BEYOND, deadline_ms=300.0))
        assert (answer.success, answer.status) == (False, Response.STATUS_HOLD)
        assert answer.message == "the answer is a hold: deadline"
        assert (answer.details.source, answer.details.hold_reason) == (HOLD, "deadline")
        assert answer.details.deadline_exceeded
        assert answer.details.latency_ms < 4000.0
        np.testing.assert_allclose(rows(answer.details)[-1], BEYOND, atol=0.01)


def test_a_caller_that_trips_its_guard_does_not_trip_the_robots(export_dir: ExportDir) -> None:
    with world(**franka(export_dir("calm_nan"), max_consecutive_crashes=0)) as scene:
        scene.activate()
        scene.robot.next_chunk(ActionChunk.SOURCE_POLICY, 0)
        sent = seen(scene.robot, BEYOND, robot_id="bench-2")
        answers = [ask(scene.robot, **sent) for _ in range(12)]
        assert all(answer.status == Response.STATUS_HOLD for answer in answers)
        assert answers[0].details.guard_violations[0].startswith("non_finite")
        assert answers[-1].message == "the answer is a hold: guard_tripped"
        assert answers[-1].caller == "bench-2"
        assert not scene.robot.status.guard_tripped


def test_a_chunk_is_guided_by_the_one_before_until_an_episode_begins() -> None:
    with world(http=True, port=0) as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate()
        scene.robot.next_chunk(ActionChunk.SOURCE_POLICY, 0)
        assert scene.robot.call("stop").success
        first = ask(scene.robot, **seen(scene.robot, REACH_HOME))
        assert (first.status, first.rtc_mode) == (Response.STATUS_CHUNK, ""), first.message
        stamp = stamp_ns(first.chunk.header.stamp)
        threading.Event().wait(2 * first.native_control_period)
        by_stamps = ask(scene.robot, **seen(scene.robot, REACH_HOME))
        assert stamp_ns(by_stamps.chunk.header.stamp) > stamp
        assert by_stamps.rtc_mode
        assert by_stamps.rtc_previous == first.details.request_id
        assert by_stamps.rtc_frozen_steps >= 1
        by_rows = ask(
            scene.robot,
            **seen(
                scene.robot, REACH_HOME, elapsed_rows=3.0, previous_request_id=by_stamps.details.request_id
            ),
        )
        assert by_rows.rtc_previous == by_stamps.details.request_id
        other = ask(
            scene.robot, **seen(scene.robot, REACH_HOME, elapsed_rows=3.0, previous_request_id="lost")
        )
        assert other.rtc_mode == ""
        fresh = ask(scene.robot, **seen(scene.robot, REACH_HOME, elapsed_rows=3.0, new_episode=True))
        assert fresh.rtc_mode == ""


def test_the_rest_of_a_chunk_in_place_of_a_late_one_begins_where_the_stamps_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of a simulator that is slower than we are."""
    with world() as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate()
        scene.robot.next_chunk(ActionChunk.SOURCE_POLICY, 0)
        assert scene.robot.call("stop").success
        assert scene.server.engine.loaded is not None
        policy, over = scene.server.engine.loaded.policy, threading.Event()
        first = ask(scene.robot, **seen(scene.robot, REACH_HOME, deadline_ms=30_000.0))
        period_s = first.native_control_period
        threading.Event().wait(5 * period_s)
        sent = seen(scene.robot, REACH_HOME, deadline_ms=200.0)
        stamp = stamp_ns(first.chunk.header.stamp) + round(2 * period_s * 1e9)
        for part in (sent["images"][0], sent["robot_state"]):
            part.header.stamp.sec, part.header.stamp.nanosec = divmod(stamp, 10**9)
        predict = policy.predict

        def late_once(*arguments: Any) -> Any:
            over.wait(PATIENCE_S)
            return predict(*arguments)

        monkeypatch.setattr(policy, "predict", late_once)
        late = ask(scene.robot, **sent)
        over.set()
        assert late.details.source == ActionChunk.SOURCE_LAST_KNOWN_GOOD
        np.testing.assert_array_equal(rows(late.details)[:5], rows(first.details)[2:7])
