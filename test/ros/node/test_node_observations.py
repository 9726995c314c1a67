# SPDX-License-Identifier: Apache-2.0
"""What reaches the policy from real topics, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.node import Node
from reflex_ros.msg import ActionChunk
from ros_world import HOME, JOINTS, Spinner, World, rows, wait_for, world
from sensor_msgs.msg import JointState
from servers import ExportDir
from webcams import png_claiming, put_together, restarting, taken_apart
from webcams import scene as webcam_scene

from reflex_core.images.raw_encodings import rgb
from reflex_core.robot.joint_gate import SETTLE_S
from reflex_core.values import Request, Served
from reflex_ros.messages.stamps import stamp_ns
from reflex_ros.node.subscriptions import SENSOR


class Ear:
    """Keeps the newest request that the engine answered."""

    def __init__(self, scene: World) -> None:
        self.scene = scene
        self.heard: list[Request] = []
        scene.server.engine.listen(self)

    def __call__(self, request: Request, _: Served) -> None:
        self.heard.append(request)

    def after(self, change: Any) -> Request:
        """A request whose every sensor message was made after a change."""
        change()
        settled_ns = (
            self.scene.server.now_ns() + 100_000_000
        )  # five ticks of the robot: none is half-way through
        return wait_for(
            lambda: next((r for r in self.heard if r.observation.stamp_ns > settled_ns), None),
            "a later request",
        )


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir) -> Iterator[World]:
    with world(export_dir=str(export_dir("calm")), embodiment="franka", execution_horizon=1) as found:
        found.activate()
        found.robot.next_chunk()
        yield found


@pytest.fixture(autouse=True)
def well_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "scene" not in request.fixturenames:
        return
    robot = request.getfixturevalue("scene").robot
    robot.camera_on = robot.joints_on = True
    robot.frozen_stamp, robot.camera_shift_ns = None, 0
    robot.encoding, robot.padding = "rgb8", 0
    robot.names, robot.positions = list(JOINTS), list(HOME)
    robot.next_chunk()


def colour(request: Request) -> list[int]:
    pixels = rgb(request.observation.frames["camera"])
    assert (pixels == pixels[0, 0]).all(), "one colour everywhere: rows were read at the right step"
    return [int(value) for value in pixels[0, 0]]


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "mono8"])
@pytest.mark.parametrize("padding", [0, 13])
def test_every_usual_encoding_is_read_with_its_row_step(scene: World, encoding: str, padding: int) -> None:
    def change() -> None:
        scene.robot.encoding, scene.robot.padding = encoding, padding

    grey = sum(scene.robot.rgb) // 3
    expected = [grey] * 3 if encoding == "mono8" else list(scene.robot.rgb)
    assert colour(Ear(scene).after(change)) == expected


def test_joints_are_taken_by_name_in_whatever_order_they_come(scene: World) -> None:
    def change() -> None:
        scene.robot.names, scene.robot.positions = JOINTS[::-1], HOME[::-1]

    request = Ear(scene).after(change)
    np.testing.assert_allclose(request.observation.state, HOME, atol=1e-6)


def test_joints_split_over_two_messages_are_merged(scene: World) -> None:
    """Arm and gripper drivers often share the topic: names this policy does not know do not matter."""
    robot = scene.robot
    wrist = [HOME[4] + 0.02, HOME[5] - 0.02, HOME[6] + 0.02]
    second = robot.node.create_publisher(JointState, "joint_states", SENSOR)

    def half() -> None:
        message = JointState(name=["gripper", *JOINTS[4:]], position=[0.04, *wrist])
        message.header.stamp = robot.stamp()
        second.publish(message)

    timer = robot.node.create_timer(0.02, half)
    try:

        def change() -> None:
            robot.names, robot.positions = JOINTS[:4], HOME[:4]

        np.testing.assert_allclose(Ear(scene).after(change).observation.state, [*HOME[:4], *wrist], atol=1e-6)
    finally:
        robot.node.destroy_timer(timer)
        robot.node.destroy_publisher(second)


def test_the_observation_carries_the_oldest_sensor_stamp(scene: World) -> None:
    """The camera lags by 100 ms, and the chunk begins at its stamp."""
    ear = Ear(scene)

    def change() -> None:
        scene.robot.camera_shift_ns = -100_000_000

    request = ear.after(change)
    newest_ns = scene.server.now_ns()
    assert request.observation.age_ms >= 100.0
    assert request.observation.stamp_ns <= newest_ns - 100_000_000
    chunk = wait_for(
        lambda: next((c for c in scene.robot.chunks if c.request_id == request.request_id), None), "its chunk"
    )
    assert stamp_ns(chunk.header.stamp) == request.observation.stamp_ns
    assert chunk.observation_age_ms == pytest.approx(request.observation.age_ms)


def refused(scene: World, reason: str) -> str:
    """The diagnostic's sentence once the robot was commanded to hold for that reason.

    On a slow machine a camera may be late at the same moment, and be the first reason to hold.
    """
    scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
    status = wait_for(
        lambda: next((s for s in scene.robot.statuses[-3:] if s.hold_reason in (reason, "stale")), None),
        f"hold by {reason}",
    )
    assert status.holding
    return str(
        wait_for(
            lambda: next(
                (
                    d.message
                    for d in [scene.robot.diagnostics.get("observations")]
                    if d is not None and d.message.startswith(reason)
                ),
                None,
            ),
            f"diagnostic {reason}",
        )
    )


def metric(scene: World, name: str) -> str:
    text = scene.server.engine.metrics.exposition().decode()
    return "\n".join(line for line in text.splitlines() if line.startswith(name))


def test_a_camera_that_stops_makes_the_robot_hold(scene: World) -> None:
    scene.robot.camera_on = False
    message = refused(scene, "stale")
    # on a slow machine the joints may be late as well; the camera stays away
    wait_for(
        lambda: "camera 'camera' is" in scene.robot.diagnostics["observations"].message,
        f"the camera is named: {message}",
    )
    assert 'reflex_observations_refused_total{reason="stale"}' in metric(scene, "reflex_observations_refused")
    assert 'reflex_holds_total{reason="stale"}' in metric(scene, "reflex_holds")


def test_a_frozen_camera_is_not_mistaken_for_a_live_one(scene: World) -> None:
    """Images keep coming, their stamps do not move."""
    scene.robot.frozen_stamp = scene.robot.stamp()
    assert "max_age_ms" in refused(scene, "stale")


def test_joint_states_that_stop_make_the_robot_hold(scene: World) -> None:
    scene.robot.joints_on = False
    message = refused(scene, "stale")
    # on a slow machine the camera may be late as well; the joints stay away
    wait_for(
        lambda: "the robot state" in scene.robot.diagnostics["observations"].message,
        f"the joints are named: {message}",
    )


def test_a_joint_that_jumps_makes_the_robot_hold_and_go_on_when_it_is_back(scene: World) -> None:
    """A driver that is up before its arm is: zeros."""
    scene.robot.positions = [0.0] * 7
    assert "panda_joint4" in refused(scene, "implausible_state")
    found = scene.robot.diagnosed("measured state", b"\x02")
    values = {value.key: value.value for value in found.values}
    assert values["joint"] == "panda_joint4"
    assert values["value"] == "0"
    assert float(values["expected"]) == pytest.approx(HOME[3], abs=0.01)
    assert "publishers" not in values, "there is one"
    assert 'reflex_implausible_readings_total{joint="panda_joint4"}' in metric(scene, "reflex_implausible")
    held = scene.robot.chunks[-1]
    np.testing.assert_allclose(rows(held), [HOME] * held.horizon, atol=0.03)
    trajectory = scene.robot.trajectories[-1]
    assert stamp_ns(trajectory.header.stamp) == 0, "it begins when it arrives"
    scene.robot.positions = list(HOME)
    scene.robot.next_chunk()
    scene.robot.diagnosed("measured state", b"\x00")


def test_an_arm_that_was_moved_while_its_joint_states_were_silent_is_served_once_they_are_steady(
    scene: World,
) -> None:
    robot = scene.robot
    robot.call("stop")
    for position in (HOME[0] + 0.5, HOME[0]):
        robot.joints_on = False
        wait_for(
            lambda: scene.buffer.ages_ms(scene.server.now_ns())["state"] > 1000.0,
            "nothing is heard of the joints",
        )
        robot.positions = [position, *HOME[1:]]
        robot.call("resume")
        refused, back_s = metric(scene, "reflex_implausible_readings_total"), time.monotonic()
        robot.joints_on = True
        np.testing.assert_allclose(rows(robot.next_chunk())[0], robot.positions, atol=0.15)
        assert time.monotonic() - back_s >= SETTLE_S
        assert metric(scene, "reflex_implausible_readings_total") != refused
        robot.call("stop")
    robot.call("resume")


def test_a_joint_that_does_not_follow_its_command_makes_the_robot_hold_until_it_is_back(scene: World) -> None:
    """A sensor that drifts no faster than the joint could move; an arm that is pushed away looks the same."""
    scene.robot.positions = list(scene.robot.positions)

    def drift() -> None:
        scene.robot.positions = [scene.robot.positions[0] + 0.004, *scene.robot.positions[1:]]

    def message_of(level: bytes) -> str:
        drift()
        found = scene.robot.diagnostics.get("tracking")
        return str(found.message) if found is not None and found.level == level else ""

    assert "panda_joint1" in wait_for(lambda: message_of(b"\x01"), "people are warned first")
    wait_for(
        lambda: drift() or scene.robot.status.hold_reason == "path_tolerance_violated", "the robot holds"
    )
    assert "rad from its command" in scene.robot.status.problem
    assert "panda_joint1" in scene.robot.diagnosed("measured state", b"\x02").message
    assert 'reflex_tracking_errors_total{joint="panda_joint1"}' in metric(scene, "reflex_tracking_errors")
    held = scene.robot.chunks[-1]
    np.testing.assert_allclose(rows(held), [HOME] * held.horizon, atol=0.03)
    scene.robot.positions = list(HOME)
    scene.robot.next_chunk()
    scene.robot.diagnosed("tracking", b"\x00")


def test_two_publishers_that_contradict_each_other_are_named(scene: World) -> None:
    robot = scene.robot
    spinner = Spinner(scene.domain)
    liar = Node("liar", context=spinner.context)
    second = liar.create_publisher(JointState, "joint_states", SENSOR)

    def lie() -> None:
        message = JointState(name=JOINTS, position=[0.0] * 7)
        message.header.stamp = robot.stamp()
        second.publish(message)

    liar.create_timer(0.02, lie)
    spinner.start(liar)
    try:
        refused(scene, "implausible_state")
        found = wait_for(
            lambda: next((d for d in [robot.diagnostics["measured state"]] if "/liar" in d.message), None),
            "both are named",
        )
        assert "/robot" in found.message
    finally:
        spinner.close()
        liar.destroy_node()


def test_a_sensor_clock_that_is_ahead_is_warned_of(scene: World) -> None:
    scene.robot.camera_shift_ns = 80_000_000
    found = scene.robot.diagnosed("clocks", b"\x01")
    assert "camera camera" in found.message
    assert "in the future" in found.message


def test_a_stop_without_a_position_publishes_nothing_and_says_so(export_dir: ExportDir) -> None:
    """Before the first chunk, while a joint reads NaN; with the sensor well again the stop holds."""
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.robot.positions = [float("nan"), *HOME[1:]]
        scene.activate()
        buffer = scene.buffer
        wait_for(lambda: buffer.fault() is not None, "the node learns of it")
        answer = scene.robot.call("stop")
        assert "nothing was published" in answer.message
        assert "panda_joint1" in answer.message
        wait_for(lambda: "nothing was published" in scene.robot.status.problem, "status says so")
        assert scene.robot.chunks == []
        scene.robot.positions = list(HOME)
        wait_for(lambda: buffer.fault() is None, "it is believed")
        assert "nothing" not in scene.robot.call("stop").message
        held = wait_for(lambda: scene.robot.chunks and scene.robot.chunks[-1], "a hold")
        np.testing.assert_allclose(rows(held), [HOME] * held.horizon, atol=1e-5)


def test_a_joint_that_reports_nan_makes_the_robot_hold(scene: World) -> None:
    scene.robot.positions = [*HOME[:3], float("nan"), *HOME[4:]]
    assert "panda_joint4" in refused(scene, "state_not_finite")


def test_streams_too_far_apart_are_refused(scene: World) -> None:
    scene.robot.camera_shift_ns = -220_000_000
    assert "max_skew_ms" in refused(scene, "skewed")


def test_a_stamp_from_the_future_is_refused(scene: World) -> None:
    scene.robot.camera_shift_ns = 3600_000_000_000
    assert "future" in refused(scene, "future_stamp")


def test_the_hold_stays_where_the_robot_was_commanded_to_be(scene: World) -> None:
    before = scene.robot.next_chunk()
    scene.robot.camera_on = False
    hold = scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
    held = rows(hold)[-1]
    latest = [rows(chunk) for chunk in scene.robot.chunks if chunk.source != ActionChunk.SOURCE_HOLD]
    assert held.any(), "never zeros"
    assert hold.horizon <= 2, "braked within two periods"
    apart = min(np.abs(chunk - held).max(axis=1).min() for chunk in latest)
    step = max(np.abs(np.diff(chunk, axis=0)).max() for chunk in latest)
    assert apart <= step, (held, rows(before)[0])


def test_wrong_joint_names_say_which_are_missing_and_which_were_seen(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.robot.names = [f"fr3_joint{number}" for number in range(1, 8)]
        scene.activate()
        message = wait_for(
            lambda: next(
                (d.message for d in scene.robot.diagnostics.values() if "joint_names" in d.message), None
            ),
            "a diagnostic about joint names",
        )
        assert "panda_joint1" in message
        assert "fr3_joint1" in message
        assert not scene.robot.chunks, "nothing was commanded, so nothing had to be held"


def test_no_camera_no_chunk(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.robot.camera_on = False
        scene.activate()
        wait_for(lambda: scene.server._progress.problem == "camera_missing", "camera_missing")
        assert not scene.robot.chunks
        scene.robot.camera_on = True
        assert scene.robot.next_chunk().chunk_id == 0


def test_no_instruction_no_chunk(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.activate(instruction="")
        message = "no_instruction: no instruction yet: publish one on the topic /instruction"
        wait_for(lambda: scene.robot.status.problem == message, "the status says why nothing is inferred")
        wait_for(
            lambda: scene.robot.diagnosed("observations", b"\x01").message == message,
            "the diagnostics say it, too",
        )
        scene.robot.say("reach the red cube")
        assert scene.robot.next_chunk().source == ActionChunk.SOURCE_POLICY
        wait_for(lambda: not scene.robot.status.problem, "nothing is wrong any more")


def test_compressed_images_are_decoded(export_dir: ExportDir) -> None:
    settings: dict[str, Any] = {"export_dir": str(export_dir("calm")), "embodiment": "franka"}
    with world(**settings, image_transport="compressed", execution_horizon=1) as scene:
        ear = Ear(scene)
        scene.activate()
        request = ear.after(lambda: None)
        pixels = rgb(request.observation.frames["camera"])
        np.testing.assert_allclose(pixels[20, 20], scene.robot.rgb, atol=6)
        webcams_and_mosaics_are_decoded(scene, ear)
        bombs_make_the_robot_hold_and_nothing_else(scene)


def webcams_and_mosaics_are_decoded(scene: World, ear: Ear) -> None:
    head, parts = taken_apart(restarting(webcam_scene()))
    webcam = put_together(head, [part + bytes(20) for part in parts])
    mosaic = bytes(cv2.imencode(".png", np.tile([[200, 90], [90, 40]], (24, 32)).astype(np.uint8))[1])
    for format_, data, shape, middle in (
        ("jpeg", webcam, (96, 128, 3), webcam_scene()[40, 40]),
        ("bayer_rggb8; png compressed ", mosaic, (48, 64, 3), (200, 90, 40)),
    ):
        scene.robot.file = (format_, data)
        request = wait_for(
            lambda width=shape[1]: next(
                (r for r in ear.heard[-3:] if r.observation.frames["camera"].width == width
                 and r.observation.frames["camera"].data == scene.robot.file[1]), None
            ),
            "a request with that picture",
        )  # fmt: skip
        pixels = rgb(request.observation.frames["camera"])
        assert pixels.shape == shape
        np.testing.assert_allclose(pixels[40, 40].astype(int), middle, atol=12)


def bombs_make_the_robot_hold_and_nothing_else(scene: World) -> None:
    """Neither decoded nor counted against the model: the robot is served again as soon as the picture is well."""
    loaded = scene.server.engine.loaded
    assert loaded is not None
    wait_for(lambda: "observations" in scene.robot.diagnostics, "diagnostics")
    for bomb in (png_claiming(200_000, 200_000), png_claiming(20_000, 20_000, bytes(48_000))):
        scene.robot.file = ("png", bomb)
        assert "pixels are accepted" in refused(scene, "image-too-large")
        assert loaded.consecutive_failures == 0
        scene.robot.file = None
        scene.robot.next_chunk()


def test_a_truncated_instruction_is_reported(export_dir: ExportDir) -> None:
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.activate("reach " + "the red cube " * 10)
        assert scene.robot.next_chunk().instruction_truncated
