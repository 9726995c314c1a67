# SPDX-License-Identifier: Apache-2.0
"""What reaches the policy from real topics, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ExportDir
from reflex_ros.msg import ActionChunk
from ros_world import HOME, JOINTS, World, wait_for, world
from webcams import png_claiming, put_together, restarting, taken_apart
from webcams import scene as webcam_scene

from reflex_core.frames import rgb
from reflex_core.values import Request, Served


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

    def change() -> None:
        scene.robot.names, scene.robot.positions = ["gripper", *JOINTS], [0.04, *HOME]

    np.testing.assert_allclose(Ear(scene).after(change).observation.state, HOME, atol=1e-6)


def test_the_observation_carries_the_oldest_sensor_stamp(scene: World) -> None:
    chunk = scene.robot.next_chunk()
    stamp_s = chunk.header.stamp.sec + chunk.header.stamp.nanosec * 1e-9
    now_s = scene.server.now_ns() * 1e-9
    assert 0 < now_s - stamp_s < 60
    assert 0 <= chunk.observation_age_ms <= 300


def refused(scene: World, reason: str) -> str:
    """The diagnostic's sentence once the robot was told to hold for that reason."""
    scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
    status = wait_for(
        lambda: next((s for s in scene.robot.statuses[-3:] if s.hold_reason == reason), None),
        f"hold by {reason}",
    )
    assert status.holding
    return str(
        wait_for(
            lambda: next(
                (
                    d.message
                    for d in [scene.robot.diagnostics["observations"]]
                    if d.message.startswith(reason)
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
    assert "camera 'camera' is" in refused(scene, "stale")
    assert 'reflex_observations_refused_total{reason="stale"}' in metric(scene, "reflex_observations_refused")
    assert 'reflex_holds_total{reason="stale"}' in metric(scene, "reflex_holds")


def test_a_frozen_camera_is_not_mistaken_for_a_live_one(scene: World) -> None:
    """Images keep coming, their stamps do not move."""
    scene.robot.frozen_stamp = scene.robot.stamp()
    assert "max_age_ms" in refused(scene, "stale")


def test_joint_states_that_stop_make_the_robot_hold(scene: World) -> None:
    scene.robot.joints_on = False
    assert "the robot state is" in refused(scene, "stale")


def test_a_joint_that_reports_nan_makes_the_robot_hold(scene: World) -> None:
    scene.robot.positions = [*HOME[:3], float("nan"), *HOME[4:]]
    assert "panda_joint4" in refused(scene, "state_not_finite")


def test_streams_too_far_apart_are_refused(scene: World) -> None:
    scene.robot.camera_shift_ns = -220_000_000
    assert "max_skew_ms" in refused(scene, "skewed")


def test_a_stamp_from_the_future_is_refused(scene: World) -> None:
    scene.robot.camera_shift_ns = 3600_000_000_000
    assert "future" in refused(scene, "future_stamp")


def test_the_hold_stays_where_the_robot_was_told_to_be(scene: World) -> None:
    before = scene.robot.next_chunk()
    scene.robot.camera_on = False
    hold = scene.robot.next_chunk(ActionChunk.SOURCE_HOLD)
    rows = np.array(before.data).reshape(before.horizon, before.action_dim)
    held = np.array(hold.data)
    latest = [np.array(chunk.data).reshape(-1, 7) for chunk in scene.robot.chunks if chunk.source != 3]
    assert held.any(), "never zeros"
    assert hold.horizon == 1
    assert any(np.isclose(held, row, atol=1e-6).all() for chunk in latest for row in chunk), (held, rows[0])


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
        said = "no_instruction: no instruction yet: publish one on the topic /instruction"
        wait_for(lambda: scene.robot.status.problem == said, "the status says why nothing is inferred")
        assert scene.robot.diagnosed("observations", b"\x01").message == said
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
