# SPDX-License-Identifier: Apache-2.0
"""Keys of other servers' clients: which is which camera, the state and the instruction."""

from __future__ import annotations

import logging
import re

import pytest

from reflex_core.engine.validation import require_sound
from reflex_core.errors import ObservationError, SettingError
from reflex_core.settings.table import settings_from
from reflex_core.settings.wire_keys import GUESSED, key_map
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar.wires import key_map as module
from reflex_ros.sidecar.wires.key_map import Keys, Received, keys_for

FRONT_AND_WRIST = ("front", "wrist")
ALOHA = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")


def guessed(
    images: tuple[str, ...] = (), numbers: tuple[tuple[str, int], ...] = (), texts: tuple[str, ...] = (),
    cameras: tuple[str, ...] = FRONT_AND_WRIST, size: int | None = 7,
) -> Keys:  # fmt: skip
    return keys_for(GUESSED, Received(images, numbers, texts), cameras, size, "openpi")


@pytest.mark.parametrize(
    ("images", "cameras", "expected"),
    [
        # DROID, LIBERO, RoboArena, UR5, OFT, MolmoAct2 YAM
        (("observation/exterior_image_1_left", "observation/wrist_image_left"), FRONT_AND_WRIST, (0, 1)),
        (("observation/image", "observation/wrist_image"), FRONT_AND_WRIST, (0, 1)),
        (("observation/wrist_image_left", "observation/exterior_image_0_left"), FRONT_AND_WRIST, (1, 0)),
        (("base_rgb", "wrist_rgb"), FRONT_AND_WRIST, (0, 1)),
        (("full_image", "wrist_image"), FRONT_AND_WRIST, (0, 1)),
        (("top_cam", "left_cam", "right_cam"), ("top", "left_wrist", "right_wrist"), (0, 1, 2)),
        (("top_cam", "left_cam", "right_cam"), ("top", "left", "right"), (0, 1, 2)),
        # by name, in any order
        (tuple(f"images/{name}" for name in reversed(ALOHA)), ALOHA, (3, 2, 1, 0)),
        (("observation.images.wrist", "observation.images.front"), FRONT_AND_WRIST, (1, 0)),
        (
            ("right_wrist_0_rgb", "left_wrist_0_rgb", "base_0_rgb"),
            ("base", "left_wrist", "right_wrist"),
            (2, 1, 0),
        ),
        (
            ("images/cam_right_wrist", "images/cam_left_wrist", "images/cam_high"),
            ("base", "wrist_l", "wrist_r"),
            (2, 1, 0),
        ),
        # by order where one side names no hand
        (("image_0", "image_1"), FRONT_AND_WRIST, (0, 1)),
        (("image", "wrist_image"), ("a", "b"), (0, 1)),
        (("wrist_image", "image"), ("a", "b"), (1, 0)),
        # one camera: what is not on the hand
        (("observation/image", "observation/wrist_image"), ("camera_front",), (0,)),
        (("observation/wrist_image", "observation/image"), ("camera_front",), (1,)),
        (("image",), ("wrist",), (0,)),
        # what is on the right is never taken for what is on the left
        (("right", "top"), ("left", "top"), (None, 1)),
        (("image_r",), ("camera_left",), (None,)),
        (("right_cam", "other"), ("left", "back"), (None, 1)),
        # a picture of the hand is none of the room
        (("wrist_image",), FRONT_AND_WRIST, (None, 0)),
        ((), FRONT_AND_WRIST, (None, None)),
    ],
)
def test_cameras_are_guessed_by_name_and_then_by_order(
    images: tuple[str, ...], cameras: tuple[str, ...], expected: tuple[int | None, ...]
) -> None:
    found = guessed(images, cameras=cameras).cameras
    assert found == {
        camera: images[at] for camera, at in zip(cameras, expected, strict=True) if at is not None
    }


@pytest.mark.parametrize(
    ("numbers", "size", "expected"),
    [
        ((("observation/state", 7),), 7, ("observation/state",)),
        ((("observation.state", 7),), 7, ("observation.state",)),
        ((("observation/joint_position", 7), ("observation/gripper_position", 1)), 7, (0,)),
        ((("joints", 6), ("gripper", 1)), 9, (0, 1)),  # refused later, by its length
        ((("observation/cartesian_position", 6), ("state", 7)), 7, ("state",)),
        ((("qpos", 14),), None, ("qpos",)),
        ((("state/left_arm", 7), ("state/left_hand", 7)), 14, (0, 1)),
        ((("anything", 7),), 7, ("anything",)),
        ((("one", 7), ("other", 7)), 7, ()),
        ((), 7, ()),
    ],
)
def test_the_state_is_guessed_by_name_and_length(
    numbers: tuple[tuple[str, int], ...], size: int | None, expected: tuple[int | str, ...]
) -> None:
    wanted = tuple(numbers[one][0] if isinstance(one, int) else one for one in expected)
    assert guessed(numbers=numbers, size=size).state == wanted


@pytest.mark.parametrize("joints", ["observation/joint_position", "joints"])
def test_a_gripper_apart_is_never_guessed(joints: str) -> None:
    """0 is open for DROID's clients and closed for others; the robot counts in m."""
    gripper = joints.replace("joint_position", "gripper_position").replace("joints", "gripper")
    for numbers in (((joints, 7), (gripper, 1)), ((gripper, 1), (joints, 7))):
        with pytest.raises(ObservationError, match=f"--wire-keys state={re.escape(joints)}\\+") as caught:
            guessed(numbers=numbers, size=8)
        assert caught.value.slug == "gripper-undeclared"
        chosen = key_map((f"state={joints}+{gripper}",))
        assert keys_for(chosen, Received((), numbers), (), 8, "openpi").state == (joints, gripper)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("prompt",), "prompt"),
        (("robot_type", "observation.task_description"), "observation.task_description"),
        (("annotation.human.task_description",), "annotation.human.task_description"),
        (("whatever",), "whatever"),
        (("one", "other"), ""),
    ],
)
def test_the_instruction_is_guessed_by_name(texts: tuple[str, ...], expected: str) -> None:
    assert guessed(texts=texts).instruction == expected


def test_the_setting_goes_before_the_guess() -> None:
    chosen = key_map(("wrist=a:bgr", "state=j+g", "instruction=say"))
    received = Received(("a", "b"), (("state", 7), ("g", 1), ("j", 6)), ("prompt", "say"))
    found = keys_for(chosen, received, FRONT_AND_WRIST, 7, "openpi")
    assert found.document() == {"front": "b", "wrist": "a:bgr", "state": "j+g", "instruction": "say"}
    assert found.unused == ("state", "prompt")


def test_an_entry_that_is_none_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(SettingError, match="'wire_keys' takes entries such as"):
        require_sound(settings_from({"wire_keys": ["front"]}))


@pytest.mark.parametrize("entry", ["front", "front=", "=a", "=", ""])
def test_an_entry_that_is_none_is_refused_by_name(entry: str) -> None:
    with pytest.raises(SettingError, match="'wire_keys' takes entries such as front=observation/image"):
        key_map((entry,))
    with pytest.raises(SettingError, match="each name once"):
        key_map(("front=a", "front=b"))


def test_a_key_that_is_not_there_is_refused_with_those_that_are() -> None:
    received = Received(("a", "b"), (("c", 2),), ("d",))
    for entry, message in (
        ("front=x", "takes front from 'x', which this request lacks; its images are a, b"),
        ("state=c+y", "takes state from 'y', which this request lacks; its numbers are c"),
        ("instruction=z", "takes instruction from 'z', which this request lacks; its texts are d"),
        ("rear=a", "names camera 'rear'; the robot's cameras are front, wrist"),
    ):
        with pytest.raises(ObservationError, match=message):
            keys_for(key_map((entry,)), received, FRONT_AND_WRIST, 7, "openpi")


@pytest.fixture(autouse=True)
def logged_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_logged", set())
    monkeypatch.setattr(module, "_line", RateLimitedLog(module.log))


def test_a_guess_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "reflex_ros.sidecar.wires.key_map"):
        for length in (7, 2, 7):
            guessed(("logged_once/image",), (("state", length), ("more", 1)), ("prompt",), ("front",))
    lines = [record.getMessage() for record in caplog.records if "logged_once" in record.getMessage()]
    assert lines == [
        "keys of wire openpi, guessed (setting wire_keys): front=logged_once/image state=state instruction=prompt;"
        " not read: more"
    ]


def test_clients_that_invent_keys_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "reflex_ros.sidecar.wires.key_map"):
        for number in range(500):
            guessed((f"image_{number}",))
    assert len(caplog.records) == 65
