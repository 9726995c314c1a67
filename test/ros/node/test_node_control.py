# SPDX-License-Identifier: Apache-2.0
"""What the robot is commanded: chunks in time, holds on doubt, stop that stays stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.parameter import Parameter
from reflex_ros.msg import ActionChunk
from ros_world import BEYOND, HOME, JOINTS, World, wait_for, world
from servers import ExportDir
from trajectory_msgs.msg import JointTrajectory

from reflex_core.chunks.handover import LEAD_S
from reflex_core.chunks.interpolation import Spline
from reflex_core.files.share import share
from reflex_ros.messages.stamps import stamp_ns


@pytest.fixture
def scene(export_dir: ExportDir) -> Iterator[World]:
    with world(export_dir=str(export_dir("calm")), embodiment="franka", robot_id="cell-9", seed=5) as found:
        found.activate()
        yield found


def rows(chunk: ActionChunk) -> Any:
    return np.array(chunk.data, np.float32).reshape(chunk.horizon, chunk.action_dim)


def test_a_chunk_says_everything_about_itself(scene: World) -> None:
    chunk = scene.robot.next_chunk()
    assert (chunk.horizon, chunk.action_dim, len(chunk.data)) == (50, 7, 350)
    assert list(chunk.names) == JOINTS
    assert chunk.dt_s == pytest.approx(0.05)
    assert chunk.policy_slot == "prod"
    assert chunk.model_version.startswith("pi0-mono@")
    assert chunk.denoise_steps == 10
    assert chunk.seed >= 5
    assert chunk.latency_ms > 0
    assert chunk.trace_seq == -1
    assert chunk.episode_id.startswith("ep_cell-9_")


def due_ns(trajectory: JointTrajectory) -> list[int]:
    """When every point is due, on the robot's clock."""
    since = [point.time_from_start for point in trajectory.points]
    return [stamp_ns(trajectory.header.stamp) + each.sec * 10**9 + each.nanosec for each in since]


def test_the_trajectory_begins_when_it_is_published_where_the_running_one_is_and_leads_through_the_chunk(
    scene: World,
) -> None:
    robot = scene.robot
    robot.next_chunk()
    chunk = robot.next_chunk()
    last = tuple(rows(chunk)[-1].tolist())
    index, trajectory = wait_for(
        lambda: next(
            ((i, t) for i, t in enumerate(robot.trajectories) if tuple(t.points[-1].positions) == last), None
        ),
        "its twin",
    )
    assert list(trajectory.joint_names) == JOINTS
    assert stamp_ns(trajectory.header.stamp) > stamp_ns(chunk.header.stamp), "the moment of publishing"
    anchor, *points = trajectory.points
    assert anchor.time_from_start.sec == anchor.time_from_start.nanosec == 0
    start, step_ns = chunk.horizon - len(points), round(chunk.dt_s * 1e9)
    assert 0 <= start - chunk.start_index <= 1, "one that is due at once is left out"
    np.testing.assert_allclose([list(point.positions) for point in points], rows(chunk)[start:], atol=1e-6)
    assert due_ns(trajectory)[1:-1] == [
        stamp_ns(chunk.header.stamp) + (row + 1) * step_ns for row in range(start, chunk.horizon - 1)
    ]
    assert list(points[-1].velocities) == [0.0] * 7
    assert all(
        np.isfinite(point.velocities).all() and len(point.velocities) == 7 for point in trajectory.points
    )
    before = robot.trajectories[index - 1]
    running = Spline(
        np.array(due_ns(before)), np.array([point.positions for point in before.points]),
        np.array([point.velocities for point in before.points]),
    )  # fmt: skip
    position, velocity = running.at(stamp_ns(trajectory.header.stamp))
    np.testing.assert_allclose(anchor.positions, position, atol=1e-9)
    np.testing.assert_allclose(anchor.velocities, velocity, atol=1e-9)


def test_a_robot_at_rest_gets_its_first_point_after_a_while_and_a_stop_brakes_the_motion(
    scene: World,
) -> None:
    robot = scene.robot
    robot.next_chunk()
    first = wait_for(lambda: robot.trajectories[0] if robot.trajectories else None, "the first trajectory")
    assert due_ns(first)[0] - stamp_ns(first.header.stamp) >= int(LEAD_S * 1e9)
    robot.next_chunk()
    assert robot.call("stop").success
    hold = wait_for(
        lambda: next((t for t in robot.trajectories if stamp_ns(t.header.stamp) == 0), None), "the hold"
    )
    assert due_ns(hold)[0] == 0, "it begins where the running motion is"
    assert [list(point.velocities) for point in hold.points[-1:]] == [[0.0] * 7]
    assert len(hold.points) <= 3


def test_a_controller_that_bridges_trajectories_gets_no_point_at_the_moment_of_publishing(
    export_dir: ExportDir,
) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka", trajectory_era="blend") as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.next_chunk()
        trajectories = wait_for(lambda: scene.robot.trajectories[1:2], "the second trajectory")
        assert due_ns(trajectories[0])[0] > stamp_ns(trajectories[0].header.stamp)


def test_the_next_chunk_comes_before_the_running_one_is_spent(scene: World) -> None:
    first = scene.robot.next_chunk()
    second = wait_for(
        lambda: next((c for c in scene.robot.chunks if c.chunk_id == first.chunk_id + 1), None),
        "the next chunk",
    )
    gap_s = (stamp_ns(second.header.stamp) - stamp_ns(first.header.stamp)) * 1e-9
    assert gap_s < first.horizon * first.dt_s
    assert gap_s >= 24 * first.dt_s, "the embodiment's execution horizon of 25 actions is used"


def test_seeds_count_up_so_that_every_chunk_can_be_reproduced(scene: World) -> None:
    first = scene.robot.next_chunk()
    second = scene.robot.next_chunk()
    assert second.seed == first.seed + 1


def test_another_instruction_is_acted_on_at_once(scene: World) -> None:
    first = scene.robot.next_chunk()
    scene.robot.say("reach the blue ball")
    second = scene.robot.next_chunk()
    gap_s = (stamp_ns(second.header.stamp) - stamp_ns(first.header.stamp)) * 1e-9
    assert gap_s < 24 * first.dt_s, "not after the execution horizon"
    wait_for(lambda: scene.robot.status.instruction == "reach the blue ball", "status shows it")


def test_a_new_episode_starts_counting_again(scene: World) -> None:
    scene.robot.next_chunk()
    scene.robot.begin("ep_42")
    chunk = wait_for(
        lambda: next((c for c in scene.robot.chunks if c.episode_id == "ep_42"), None),
        "a chunk of the episode",
    )
    assert chunk.chunk_id == 0
    answer = scene.robot.call("new_episode")
    assert answer.success
    assert answer.message not in ("", "ep_42")
    wait_for(lambda: scene.robot.chunks[-1].episode_id == answer.message, "chunks of the new episode")


def test_stop_holds_and_stays_stopped_until_resume(scene: World) -> None:
    scene.robot.next_chunk()
    assert scene.robot.call("stop").success
    wait_for(lambda: scene.robot.chunks[-1].source == ActionChunk.SOURCE_HOLD, "a hold")
    wait_for(lambda: scene.robot.status.stopped, "status says stopped")
    assert scene.robot.status.problem == "stopped: call ~/resume to go on"
    scene.robot.say("reach the green bowl")
    scene.robot.begin("ep_43")
    count = len(scene.robot.statuses)
    wait_for(lambda: len(scene.robot.statuses) > count + 5, "a second of status messages")
    assert scene.robot.chunks[-1].source == ActionChunk.SOURCE_HOLD, (
        "neither instruction nor episode undoes a stop"
    )
    assert scene.robot.call("resume").success
    chunk = scene.robot.next_chunk()
    assert chunk.source == ActionChunk.SOURCE_POLICY
    wait_for(lambda: not scene.robot.status.holding, "status says it goes on")


def test_a_stop_after_the_arm_was_moved_by_hand_holds_where_it_is(scene: World) -> None:
    """The past command is 0.8 rad away: no robot is to be sent there in a period."""
    robot = scene.robot
    robot.next_chunk()
    assert robot.call("stop").success
    wait_for(lambda: robot.chunks[-1].source == ActionChunk.SOURCE_HOLD, "a hold")
    buffer = scene.buffer
    for moved in np.arange(0.02, 0.801, 0.02):  # slowly enough to be believed
        robot.positions = [HOME[0] + float(moved), *HOME[1:]]
        wait_for(
            lambda at=robot.positions[0]: abs(buffer.believed(JOINTS)[0][0] - at) < 1e-6,
            "the node measures it",
        )
    assert buffer.fault() is None
    count = len(robot.chunks)
    assert "nothing" not in robot.call("stop").message
    held = wait_for(lambda: len(robot.chunks) > count and robot.chunks[-1], "a hold where it is")
    np.testing.assert_allclose(rows(held), [robot.positions] * held.horizon, atol=1e-5)


def test_a_stop_while_the_joint_states_are_silent_commands_no_old_pose(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        robot = scene.robot
        robot.camera_on = False
        scene.activate()
        buffer = scene.buffer
        wait_for(lambda: buffer.believed(JOINTS) is not None, "the node measures the joints")
        robot.joints_on = False
        wait_for(
            lambda: (
                buffer.ages_ms(scene.server.now_ns()).get("state", 0.0) > 2 * scene.server.settings.max_age_ms
            ),
            "what it measured is old",
        )
        assert "nothing was published" in robot.call("stop").message
        wait_for(lambda: "nothing was published" in robot.status.problem, "status says so")
        assert (robot.chunks, robot.trajectories) == ([], [])


def test_services_say_so_when_the_node_is_not_active(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        answer = scene.robot.call("stop")
        assert not answer.success
        assert "not active" in answer.message


def test_nan_from_the_model_holds_at_a_real_position(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm_nan")), embodiment="franka", execution_horizon=1) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        chunk = scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
        assert np.isfinite(rows(chunk)).all()
        assert rows(chunk).any(), "never zeros"
        assert chunk.guard_clamped
        assert "non_finite" in chunk.guard_violations[0]
        np.testing.assert_allclose(rows(chunk), [HOME] * chunk.horizon, atol=0.03)


def test_a_model_that_raises_makes_the_robot_hold_and_recovers(export_dir: ExportDir) -> None:
    with world(
        export_dir=str(export_dir("calm_raise")), embodiment="franka", execution_horizon=1,
        max_consecutive_crashes=0,
    ) as scene:  # fmt: skip
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.positions = list(BEYOND)
        scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
        wait_for(lambda: scene.robot.status.errors_total > 0, "errors are counted")
        wait_for(lambda: _level(scene) == b"\x02", "diagnostic ERROR")
        scene.robot.positions = list(HOME)
        assert scene.robot.next_chunk().source == ActionChunk.SOURCE_POLICY


def test_a_clock_that_jumps_back_drops_what_it_knew_and_goes_on(export_dir: ExportDir) -> None:
    parameters = [Parameter("use_sim_time", value=True)]
    with world(parameters, export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.robot.clock_ns = 100_000_000_000
        scene.activate()
        before = scene.robot.next_chunk()
        assert 100e9 <= stamp_ns(before.header.stamp) < 1000e9, "stamps are simulated time"
        scene.robot.clock_ns = 1_000_000_000
        after = wait_for(
            lambda: next((c for c in scene.robot.chunks if stamp_ns(c.header.stamp) < 90e9), None),
            "a chunk after the jump",
        )
        assert after.source == ActionChunk.SOURCE_POLICY


def test_a_guarded_chunk_says_which_joint_was_clamped(export_dir: ExportDir, tmp_path: Any) -> None:
    document = json.loads((share() / "config" / "embodiments" / "franka.json").read_text())
    document["action_space"]["ranges"][3] = [HOME[3] + 0.001, -0.0698]
    narrow = tmp_path / "narrow.json"
    narrow.write_text(json.dumps(document))
    with world(export_dir=str(export_dir("calm")), custom_embodiment_config=str(narrow)) as scene:
        scene.activate()
        chunk = scene.robot.next_chunk()
        assert chunk.guard_clamped
        assert any(text.startswith("panda_joint4 below min") for text in chunk.guard_violations)
        assert (rows(chunk)[:, 3] > HOME[3]).all()
        wait_for(lambda: scene.robot.status.guard_clamped_total > 0, "status counts it")


def _level(scene: World) -> bytes:
    found = scene.robot.diagnostics.get("observations")
    return found.level if found else b""


def test_the_rate_of_chunks_is_that_of_the_last_two_seconds(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka", execution_horizon=8) as scene:
        scene.activate()
        wait_for(lambda: scene.robot.status.chunks_total >= 8, "some chunks, one every 0.4 s")
        newest = scene.robot.statuses[-1]
        end_ns = stamp_ns(newest.header.stamp)
        window = [each for each in scene.robot.statuses if end_ns - stamp_ns(each.header.stamp) < 2.1e9]
        seconds = (end_ns - stamp_ns(window[0].header.stamp)) * 1e-9
        counted = newest.chunks_total - window[0].chunks_total
        assert (
            abs(newest.chunk_rate_hz - counted / seconds) < 1.1 / seconds
        )  # a chunk at the edge is in or out
