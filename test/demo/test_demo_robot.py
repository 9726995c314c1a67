# SPDX-License-Identifier: Apache-2.0
"""The simulated robot as its own process: what it publishes, how it obeys, how it fails where a test makes it fail."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Duration, Time
from domains import free_domain
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_ros.demo.participant import Participant
from reflex_ros.demo.processes import (
    Child,
    DemoError,
    check_alive,
    ros_environment,
    start,
    stop,
    tail,
)
from reflex_ros.demo.robot import PICTURE_SIZE, PictureError, picture_path
from reflex_ros.demo.robot_messages import CHANNELS, SENSOR_QOS, Frame, compressed_message, image_message
from reflex_ros.demo.scene import JOINT_NAMES, make_scene

REACHED_RAD = 0.01
USUAL: dict[str, bool | int | float | str] = {
    "camera_enabled": True,
    "freeze_camera_stamps": False,
    "camera_encoding": "rgb8",
    "camera_row_padding": 0,
    "joint_order_reversed": False,
    "joint_names_wrong": False,
    "scene_seed": 3,
}


def robot_child(log: Path, *parameters: str) -> Child:
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    command = [sys.executable, "-m", "reflex_ros.demo.robot", "--ros-args", *arguments]
    return start("robot", command, log, os.environ)


@pytest.fixture(scope="module")
def ros_domain() -> Iterator[None]:
    """An environment of its own for the processes and for the participant in this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(free_domain()))
        for name, value in ros_environment(os.environ).items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def own_domain(ros_domain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A domain in which the robot of the other tests is not heard."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))


@dataclass
class World:
    """The robot process and what it has been heard to say."""

    participant: Participant
    child: Child
    pictures_dir: Path
    images: list[Image] = field(default_factory=list)
    states: list[JointState] = field(default_factory=list)

    def __post_init__(self) -> None:
        node = self.participant.node
        node.create_subscription(Image, "camera/image_raw", self.images.append, SENSOR_QOS)
        node.create_subscription(JointState, "joint_states", self.states.append, QoSProfile(depth=100))
        self.trajectories = node.create_publisher(JointTrajectory, "joint_trajectory", QoSProfile(depth=10))

    def set(self, **values: bool | int | float | str) -> None:
        self.participant.set_parameters("robot", values)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        self.participant.spin_until(condition, what, 60.0)

    def next(self, kind: str, count: int, accept: Callable[[Any], bool] = lambda _: True) -> list[Any]:
        """The next `count` messages heard from now on that fit."""
        heard = self.images if kind == "images" else self.states
        first = len(heard)
        self.wait(lambda: sum(map(accept, heard[first:])) >= count, f"{count} {kind}")
        return [message for message in heard[first:] if accept(message)][:count]

    def reset(self, seed: int = 3) -> dict[str, Any]:
        self.set(scene_seed=seed)
        return self.participant.trigger("robot/reset")

    def score(self) -> dict[str, Any]:
        return self.participant.trigger("robot/score")

    def picture(self, name: str) -> NDArray[np.uint8]:
        self.set(picture_path=name)
        saved = Path(self.participant.trigger("robot/save_picture")["path"])
        assert saved.is_relative_to(self.pictures_dir)
        return np.asarray(cv2.imread(str(saved)))

    def command(
        self,
        points: list[tuple[float, NDArray[np.float64]]],
        names: tuple[str, ...] = JOINT_NAMES,
        stamp: Any = None,
    ) -> None:
        message = JointTrajectory(joint_names=names)
        message.header.stamp = stamp or Time()
        for time_s, positions in points:
            since = Duration(sec=int(time_s), nanosec=int(time_s % 1 * 1e9))
            message.points.append(JointTrajectoryPoint(positions=positions.tolist(), time_from_start=since))
        self.trajectories.publish(message)

    def wait_at(self, goal: NDArray[np.float64]) -> None:
        self.wait(lambda: np.abs(positions(self.states[-1]) - goal).max() < REACHED_RAD, f"the arm at {goal}")


@pytest.fixture(scope="module")
def running(ros_domain: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("robot")
    pictures = folder / "pictures"
    child = robot_child(folder / "robot.log", f"pictures_dir:={pictures}")
    try:
        with Participant("test_robot", lambda: check_alive([child])) as participant:
            world = World(participant, child, pictures)
            world.wait(lambda: world.images and world.states, "the robot")
            world.wait(lambda: world.trajectories.get_subscription_count(), "the trajectory subscription")
            yield world
    finally:
        stop([child])


@pytest.fixture
def world(running: World) -> World:
    """The running robot without faults, at rest in its usual scene."""
    running.set(**USUAL)
    running.reset()
    return running


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)


def positions(state: JointState) -> NDArray[np.float64]:
    """In the arm's order, whatever the message's order."""
    return np.array([state.position[state.name.index(name)] for name in JOINT_NAMES])


def pixels_of(message: Image) -> NDArray[np.uint8]:
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    channels = CHANNELS[message.encoding]
    return rows[:, : message.width * channels].reshape(message.height, message.width, channels)


def test_the_camera_says_what_it_sends(world: World) -> None:
    image = world.next("images", 1)[0]
    assert (image.height, image.width, image.encoding, image.step) == (224, 224, "rgb8", 672)
    assert image.header.frame_id == "camera"
    assert pixels_of(image).std() > 10  # not a blank picture


def test_stamps_increase_and_joint_states_come_about_three_to_an_image(world: World) -> None:
    first, states_before = world.next("images", 1)[0], len(world.states)
    images = [first, *world.next("images", 60)]
    states = world.states[states_before:]
    for stamps in ([stamp_ns(image) for image in images], [stamp_ns(state) for state in states]):
        assert (np.diff(stamps) > 0).all()
    between = [state for state in states if stamp_ns(first) < stamp_ns(state) <= stamp_ns(images[-1])]
    periods = (stamp_ns(images[-1]) - stamp_ns(first)) / (1e9 / 30)
    assert len(between) / periods == pytest.approx(100 / 30, rel=0.3)


def test_joint_states_name_the_joints_and_carry_velocities(world: World) -> None:
    state = world.next("states", 1)[0]
    assert tuple(state.name) == JOINT_NAMES
    assert len(state.velocity) == len(JOINT_NAMES)
    np.testing.assert_allclose(positions(state), make_scene(3).start_joints_rad, atol=REACHED_RAD)


def test_obeys_a_trajectory_and_holds_at_its_end_when_commands_stop(world: World) -> None:
    start_rad = positions(world.next("states", 1)[0])
    goal = start_rad + np.array([0.3, -0.2, 0.1, 0.2, -0.1, 0.2, 0.3])
    world.command([(0.25, (start_rad + goal) / 2), (0.5, goal)])
    world.wait_at(goal)
    for state in world.next("states", 100):
        np.testing.assert_allclose(positions(state), goal, atol=REACHED_RAD)


def test_takes_the_joints_in_any_order(world: World) -> None:
    goal = positions(world.next("states", 1)[0]) + np.linspace(-0.2, 0.2, 7)
    world.command([(0.3, goal[::-1])], names=JOINT_NAMES[::-1])
    world.wait_at(goal)


def test_of_a_trajectory_with_an_older_stamp_the_elapsed_way_is_not_driven(world: World) -> None:
    state = world.next("states", 30)[-1]
    start_rad = positions(state)
    passed, goal = start_rad - 0.5, start_rad + 0.2
    older = stamp_ns(state) - 200_000_000
    stamp = Time(sec=older // 10**9, nanosec=older % 10**9)
    world.command([(0.001, passed), (0.002, start_rad), (1.0, goal)], stamp=stamp)
    first = len(world.states)
    world.wait_at(goal)
    assert (np.array([positions(each) for each in world.states[first:]]) > start_rad - 0.1).all()


def test_a_trajectory_that_is_not_finite_is_refused_and_counted_as_a_fault_of_its_sender(
    world: World,
) -> None:
    start_rad = positions(world.next("states", 1)[0])
    before = world.score()
    world.command([(0.2, np.full(7, np.nan))])
    world.wait(lambda: world.score()["trajectories_not_finite"] > before["trajectories_not_finite"], "the refusal")  # fmt: skip
    assert world.score()["trajectories_refused"] == before["trajectories_refused"] + 1
    np.testing.assert_allclose(positions(world.next("states", 5)[-1]), start_rad, atol=REACHED_RAD)


def test_the_robot_answers_for_the_parameters_of_its_controller(world: World) -> None:
    client = world.participant.node.create_client(GetParameters, "robot/get_parameters")
    world.wait(client.service_is_ready, "the parameter service")
    names = ["joints", "command_interfaces", "interpolate_from_desired_state", "allow_trajectory_replacement"]
    future = client.call_async(GetParameters.Request(names=names))
    world.wait(future.done, "the parameters")
    joints, interfaces, desired, replacement = future.result().values
    assert tuple(joints.string_array_value) == JOINT_NAMES
    assert interfaces.string_array_value == ["position"]
    assert (desired.bool_value, replacement.bool_value) == (False, False)


@pytest.mark.parametrize("names", [("wrong_joint", *JOINT_NAMES[1:]), JOINT_NAMES[:6]])
def test_other_joints_are_refused_and_the_arm_holds(world: World, names: tuple[str, ...]) -> None:
    start_rad = positions(world.next("states", 1)[0])
    refused = world.score()["trajectories_refused"]
    world.command([(0.2, start_rad[: len(names)] + 0.3)], names=names)
    world.wait(lambda: world.score()["trajectories_refused"] > refused, "the refusal")
    for state in world.next("states", 60):
        np.testing.assert_allclose(positions(state), start_rad, atol=REACHED_RAD)
    assert "Trajectory refused, the arm follows the previous one" in tail(world.child.log)


def test_a_command_for_the_scene_before_a_reset_is_ignored(world: World) -> None:
    old = world.next("states", 1)[0]
    world.reset()
    followed = world.score()["trajectories_followed"]
    world.command([(30.0, positions(old) + 0.5)], stamp=old.header.stamp)
    world.command([(0.2, positions(old) + 0.1)])
    world.wait_at(positions(old) + 0.1)
    assert world.score()["trajectories_followed"] == followed + 1


def test_reset_tells_seed_and_instruction_and_gives_every_episode_another_id(world: World) -> None:
    first, second = world.reset(8), world.reset(8)
    assert first["seed"] == second["seed"] == 8
    assert first["instruction"] == make_scene(8).instruction
    assert first["episode"] != second["episode"]


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(world: World) -> None:
    world.reset(7)
    before = world.picture("before.png")
    world.command([(0.2, np.array(make_scene(7).start_joints_rad) + 0.3)])
    world.wait_at(np.array(make_scene(7).start_joints_rad) + 0.3)
    moved = world.picture("moved.png")
    world.reset(7)
    again = world.picture("again.png")
    world.reset(8)
    other = world.picture("other.png")
    assert before.shape == (PICTURE_SIZE[1], PICTURE_SIZE[0], 3)
    np.testing.assert_array_equal(before, again)
    assert (before != moved).any()
    assert (before != other).any()


def test_the_score_names_the_nearest_and_the_wanted_block(world: World) -> None:
    score = world.score()
    assert score["target"] == make_scene(3).target_colour
    assert score["nearest"] in {block.colour for block in make_scene(3).blocks}
    assert score["reached"] == (score["nearest"] == score["target"] and score["distance_m"] < 0.04)


def test_no_picture_leaves_the_pictures_folder(world: World) -> None:
    world.set(picture_path="../outside.png")
    with pytest.raises(DemoError, match=r"expected a \.png file inside"):
        world.participant.trigger("robot/save_picture")
    assert not (world.pictures_dir.parent / "outside.png").exists()


@pytest.mark.parametrize(
    "path", ["/etc/outside.png", "../outside.png", "picture.jpg", "a/../../outside.png", ""]
)
def test_picture_paths_outside_or_of_another_kind_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(PictureError, match="No picture saved"):
        picture_path(str(tmp_path), path)
    assert picture_path(str(tmp_path), "deeper/inside.png") == tmp_path / "deeper" / "inside.png"


def test_without_a_pictures_folder_no_picture_is_saved() -> None:
    with pytest.raises(PictureError, match="pictures_dir is empty"):
        picture_path("", "view.png")


def test_a_disabled_camera_is_silent_while_the_joints_go_on(world: World) -> None:
    world.set(camera_enabled=False)
    world.next("states", 30)  # images that were under way have arrived
    heard = len(world.images)
    world.next("states", 100)
    assert len(world.images) == heard
    world.set(camera_enabled=True)
    world.next("images", 3)


def test_a_frozen_camera_repeats_stamp_and_pixels(world: World) -> None:
    world.set(freeze_camera_stamps=True)
    world.next("images", 3)
    first, *others = world.next("images", 10)
    assert {stamp_ns(image) for image in others} == {stamp_ns(first)}
    assert all(image.data == first.data for image in others)
    world.set(freeze_camera_stamps=False)
    world.next("images", 3, lambda image: stamp_ns(image) > stamp_ns(first))


@pytest.mark.parametrize("encoding", CHANNELS)
def test_every_encoding_and_row_padding_shows_the_same_picture(world: World, encoding: str) -> None:
    usual = pixels_of(world.next("images", 1)[0])
    world.set(camera_encoding=encoding, camera_row_padding=13)
    image = world.next("images", 1, lambda image: image.encoding == encoding and image.step != 672)[0]
    assert image.step == 224 * CHANNELS[encoding] + 13
    seen = pixels_of(image)
    expected = {
        "rgb8": usual,
        "bgr8": usual[..., ::-1],
        "mono8": cv2.cvtColor(usual, cv2.COLOR_RGB2GRAY)[..., None],
        "rgba8": np.dstack([usual, np.full(usual.shape[:2], 255, np.uint8)]),
    }
    np.testing.assert_array_equal(seen, expected[encoding])


def test_an_unknown_encoding_is_refused(world: World) -> None:
    with pytest.raises(DemoError, match="camera_encoding takes one of rgb8, bgr8, mono8, rgba8, got 'yuv'"):
        world.set(camera_encoding="yuv")


def test_joint_order_can_be_reversed(world: World) -> None:
    usual = positions(world.next("states", 1)[0])
    world.set(joint_order_reversed=True)
    reversed_state = world.next("states", 1, lambda state: state.name[0] == "panda_joint7")[0]
    assert tuple(reversed_state.name) == JOINT_NAMES[::-1]
    np.testing.assert_allclose(positions(reversed_state), usual, atol=1e-3)


def test_joint_names_can_be_wrong(world: World) -> None:
    world.set(joint_names_wrong=True)
    state = world.next("states", 1, lambda state: state.name[0] not in JOINT_NAMES)[0]
    assert not set(state.name) & set(JOINT_NAMES)


def test_compressed_images_come_to_who_subscribes(world: World) -> None:
    heard: list[CompressedImage] = []
    subscription = world.participant.node.create_subscription(
        CompressedImage, "camera/image_raw/compressed", heard.append, SENSOR_QOS
    )
    world.wait(lambda: heard, "a compressed image")
    world.participant.node.destroy_subscription(subscription)
    decoded = cv2.imdecode(np.frombuffer(heard[0].data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    usual = pixels_of(world.next("images", 1)[0]).astype(float)
    assert np.abs(decoded - usual).mean() < 5  # JPEG loses a little


def test_messages_carry_the_frame_that_they_are_made_from() -> None:
    frame = Frame(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3), Time(sec=5, nanosec=7))
    message = image_message(frame)
    assert (message.header.stamp, bytes(message.data)) == (frame.stamp, frame.pixels.tobytes())
    assert compressed_message(frame).header.stamp == frame.stamp


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_cleanly_on_two_signals(own_domain: None, tmp_path: Path, number: signal.Signals) -> None:
    child = robot_child(tmp_path / "robot.log")
    with Participant("test_ending") as participant:
        try:
            participant.spin_until(lambda: "is ready" in tail(child.log), "the robot", 60.0)
            child.process.send_signal(number)
            child.process.send_signal(number)
            assert child.process.wait(60.0) == 0
        finally:
            stop([child])
    assert "Traceback" not in tail(child.log)


def test_holds_and_goes_on_when_simulated_time_jumps_back(own_domain: None, tmp_path: Path) -> None:
    child = robot_child(tmp_path / "robot.log", "use_sim_time:=true")
    try:
        with Participant("test_clock", lambda: check_alive([child])) as participant:
            world = World(participant, child, tmp_path)
            clock = participant.node.create_publisher(Clock, "/clock", QoSProfile(depth=1))

            def run_clock_until(condition: Callable[[], object], now_s: float) -> float:
                while not condition():
                    now_s += 0.01
                    clock.publish(Clock(clock=Time(sec=int(now_s), nanosec=int(now_s % 1 * 1e9))))
                    participant.spin_for(0.005)
                return now_s

            now_s = run_clock_until(
                lambda: world.states and world.trajectories.get_subscription_count(), 1000.0
            )
            held = positions(world.states[-1])
            world.command([(5.0, held + 1.0)])
            run_clock_until(lambda: positions(world.states[-1])[0] > held[0] + 0.1, now_s)
            world.states.clear()
            now_s = run_clock_until(lambda: world.states and stamp_ns(world.states[-1]) < 500e9, 100.0)
            stopped = positions(world.states[-1])
            run_clock_until(lambda: len(world.states) > 50, now_s)
            np.testing.assert_allclose(positions(world.states[-1]), stopped, atol=0.05)
            assert "The clock jumped back" in tail(child.log)
    finally:
        stop([child])
