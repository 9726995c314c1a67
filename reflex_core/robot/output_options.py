# SPDX-License-Identifier: Apache-2.0
"""The kinds of robot interfaces as data: which groups each takes, and the options that an embodiment may give it.

Checked when the embodiment is read, so that a misspelt option never reaches a robot. reflex_ros/outputs has the code of each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reflex_core.concurrency.real_time import MOST_HZ
from reflex_core.files.json_fields import JsonFields, is_number
from reflex_core.robot.groups import BASE, GRIPPER, JOINTS, POSITION, VELOCITY
from reflex_core.text.suggestions import no_such
from reflex_core.text.untrusted import is_name

JOINT_TRAJECTORY, FORWARD_COMMAND, TWIST = "joint_trajectory", "forward_command", "twist"
GRIPPER_COMMAND, PARALLEL_GRIPPER, GRIPPER_TOPIC = "gripper_command", "parallel_gripper", "gripper_topic"
SERVO_TWIST, SERVO_JOINT_JOG, POSE = "servo_twist", "servo_joint_jog", "pose"
LEAST_SERVO_HZ = 30.0  # Servo halts where nothing comes for 0.1 s: three messages in that
UNITLESS, SPEED_UNITS = "unitless", "speed_units"  # Servo's parameter command_in_type

MOST_NAME = 200  # characters: DDS takes 255, of which a namespace and what an action appends need some
_ROS_NAME = re.compile(r"(/|~/)?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Value:
    """What an option may hold: in words, and as a check of the JSON value."""

    expected: str
    fits: Callable[[object], bool]


def _number(low: float, high: float, unit: str) -> Value:
    return Value(f"a number from {low:g} to {high:g} {unit}", lambda value: is_number(value, low, high))


def _one_of(*choices: str) -> Value:
    return Value(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)


NAME = Value(
    f"a ROS name such as /arm_controller/joint_trajectory, of at most {MOST_NAME} characters",
    lambda value: (
        isinstance(value, str) and len(value) <= MOST_NAME and _ROS_NAME.fullmatch(value) is not None
    ),
)
FRAME = Value("the name of a frame", is_name)
TRUTH = Value("true or false", lambda value: isinstance(value, bool))
RATE_HZ = _number(
    1.0, MOST_HZ, "Hz (for more take joint_trajectory, whose controller interpolates at its own rate)"
)
EFFORT = _number(0.0, 1e4, "N or Nm")
SPEED = _number(1e-6, 100.0, "rad/s or m/s")
DEAD_BAND = _number(0.0, math.pi, "rad or m")
VALUE = _number(-1e6, 1e6, "of what the topic counts")
FADE_S = _number(0.0, 10.0, "s")
SERVO_HZ = _number(LEAST_SERVO_HZ, MOST_HZ, "Hz (Servo halts where nothing comes for a moment)")
TIMEOUT_S = _number(0.01, 10.0, "s")


@dataclass(frozen=True, slots=True)
class OutputKind:
    """What one kind of robot interface takes.

    spaces, commands: of the groups that it can command. options: by key; required: those without which it cannot send. width:
    the only number of columns that it takes, 0 for any. addresses: the options that say where commands go. of_tool: it
    commands where the tool is, for which kinematics are needed.
    """

    spaces: tuple[str, ...]
    commands: tuple[str, ...]
    options: Mapping[str, Value] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    width: int = 0
    addresses: tuple[str, ...] = ("topic",)
    of_tool: bool = False


_GRIPPER_ACTION = {"action": NAME, "controller": NAME, "max_effort": EFFORT, "dead_band": DEAD_BAND}
_SERVO = {
    "topic": NAME,
    "controller": NAME,
    "rate_hz": SERVO_HZ,
    "command_in_type": _one_of(UNITLESS, SPEED_UNITS),
    "incoming_command_timeout_s": TIMEOUT_S,
    "switch_service": NAME,
}

KINDS: Mapping[str, OutputKind] = {
    JOINT_TRAJECTORY: OutputKind(
        (JOINTS, GRIPPER),
        (POSITION,),
        {
            "topic": NAME,
            "controller": NAME,
            "trajectory_era": _one_of("auto", "legacy", "blend"),
            "velocities": TRUTH,
            "fade_s": FADE_S,
        },
    ),
    FORWARD_COMMAND: OutputKind(
        (JOINTS, GRIPPER, BASE),
        (POSITION, VELOCITY),
        {"topic": NAME, "controller": NAME, "rate_hz": RATE_HZ, "accept_unattended_velocity": TRUTH},
        required=("topic",),
    ),
    GRIPPER_COMMAND: OutputKind(
        (GRIPPER,), (POSITION,), _GRIPPER_ACTION, ("action",), width=1, addresses=("action",)
    ),
    PARALLEL_GRIPPER: OutputKind(
        (GRIPPER,),
        (POSITION,),
        _GRIPPER_ACTION | {"max_velocity": SPEED},
        ("action",),
        width=1,
        addresses=("action",),
    ),
    GRIPPER_TOPIC: OutputKind(
        (GRIPPER,),
        (POSITION,),
        {"topic": NAME, "controller": NAME, "rate_hz": RATE_HZ, "open_value": VALUE, "closed_value": VALUE},
        required=("topic",),
        width=1,
    ),
    TWIST: OutputKind(
        (BASE,),
        (VELOCITY,),
        {"topic": NAME, "stamped": TRUTH, "frame": FRAME, "rate_hz": RATE_HZ},
        required=("topic",),
    ),
    SERVO_TWIST: OutputKind(
        (JOINTS,),
        (POSITION,),
        _SERVO | {"frame": FRAME, "scale_linear": SPEED, "scale_rotational": SPEED},
        required=("topic", "frame"),
        of_tool=True,
    ),
    SERVO_JOINT_JOG: OutputKind((JOINTS,), (POSITION,), _SERVO | {"scale_joint": SPEED}, required=("topic",)),
    POSE: OutputKind(
        (JOINTS,),
        (POSITION,),
        {"topic": NAME, "controller": NAME, "frame": FRAME, "rate_hz": RATE_HZ},
        required=("topic", "frame"),
        of_tool=True,
    ),
}


def read_kind(output: JsonFields, space: str, commands: str, width: int) -> str:
    """Return the kind of a group's output. Raises a refusal where there is no such kind, or it cannot command the group."""
    kind = output.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        meant = f" ({no_such('kind', [kind], KINDS)})" if isinstance(kind, str) else ""
        raise output.refusal("kind", f"one of {', '.join(KINDS)}{meant}")
    takes = KINDS[kind]
    if space not in takes.spaces or commands not in takes.commands:
        can = ", ".join(
            name for name, one in KINDS.items() if space in one.spaces and commands in one.commands
        )
        raise output.refusal(
            "kind", f"one that commands the {commands} of a group of space {space} ({can or 'none does'})"
        )
    if takes.width and width != takes.width:
        raise output.refusal("kind", f"one that commands {width} columns (this one takes {takes.width})")
    return kind


def read_options(output: JsonFields, kind: str) -> dict[str, object]:
    """Return the options of an output beside its kind. Raises a refusal for one that the kind does not have, or a wrong value."""
    takes = KINDS[kind]
    options = {key: value for key, value in output.items() if key != "kind"}
    for key, value in options.items():
        if key not in takes.options:
            wrong = no_such(f"option of {kind}", [key], takes.options)
            raise output.refusal(key, f"left out ({wrong}; there are {', '.join(takes.options)})", value)
        if not takes.options[key].fits(value):
            raise output.refusal(key, takes.options[key].expected)
    for key in takes.required:
        if key not in options:
            raise output.refusal(key, takes.options[key].expected)
    return options
