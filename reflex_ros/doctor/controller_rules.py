# SPDX-License-Identifier: Apache-2.0
"""What the parameters of a running controller mean for what we send it; pure, without ROS.

Sources: the parameters and checks of ros2_controllers 4.42 (Jazzy) to 6.9, read in their source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.robot.groups import Group
from reflex_core.robot.output_options import (
    FORWARD_COMMAND,
    GRIPPER_COMMAND,
    JOINT_TRAJECTORY,
    PARALLEL_GRIPPER,
)
from reflex_core.settings.table import AUTO, BLEND, LEGACY

REPLACEMENT, DESIRED, UPSAMPLING = (
    "allow_trajectory_replacement",
    "interpolate_from_desired_state",
    "positions_upsampling.enable",
)
SKEW_S = 0.01  # a trajectory is that much early or late; the anchor is of no use beyond
# one of them is what makes a node a controller of ros2_control
JOINTS, JOINT = "joints", "joint"
NAMES = (JOINTS, "command_interfaces")
TEXTS = (JOINT, "interface_name")
TRUTHS = (
    DESIRED, "open_loop_control", REPLACEMENT, UPSAMPLING, "allow_nonzero_velocity_at_trajectory_end",
    "allow_partial_joints_goal", "allow_stalling",
)  # fmt: skip
PARAMETERS = (*NAMES, *TEXTS, *TRUTHS)


def readable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are of a controller's types: other nodes may call other things so."""
    return {
        name: value
        for name, value in parameters.items()
        if (name in TEXTS and isinstance(value, str))
        or (name in TRUTHS and isinstance(value, bool))
        or (name in NAMES and isinstance(value, list) and all(isinstance(one, str) for one in value))
    }


@dataclass(frozen=True, slots=True)
class Running:
    """A node that takes commands. parameters: those of PARAMETERS that it has; None: it did not answer."""

    name: str
    parameters: Mapping[str, Any] | None

    @property
    def is_controller(self) -> bool:
        """Return whether it has the parameters of a controller of ros2_control."""
        return self.parameters is not None and (JOINTS in self.parameters or JOINT in self.parameters)


@dataclass(frozen=True, slots=True)
class Sent:
    """What we send for a group. output: its robot interface. era: AUTO, or what the controller is taken for. velocities: sent too."""

    group: Group
    output: str
    era: str = AUTO
    velocities: bool = True

    @property
    def who(self) -> str:
        """Return the group, for a sentence."""
        return f"group '{self.group.name}'" if self.group.name else "the policy"


def era_of(running: Running) -> str | None:
    """Return LEGACY or BLEND; None where the node is no joint_trajectory_controller, or did not answer."""
    if running.parameters is None or JOINTS not in running.parameters:
        return None
    return BLEND if running.parameters.get(REPLACEMENT, False) else LEGACY


def judged(sent: Sent, running: Running) -> list[Finding]:
    """Return what does not fit, worst first; one finding that all is well where nothing is wrong."""
    check = f"controller {running.name}"
    if running.parameters is None:
        do = f"look whether it hangs: ros2 param list {running.name}"
        message = f"it takes the commands of {sent.who} and did not say its parameters: what it does with them is not checked"
        return [Finding(check, WARN, message, do)]
    if not running.is_controller:
        message = (
            f"it takes the commands of {sent.who} and is no controller of ros2_control: nothing to compare"
        )
        return [Finding(check, OK, message)]
    found: list[Finding] = []
    rules, summary = JUDGES.get(sent.output, ((), _named))
    for rule in rules:
        found += [Finding(check, level, message, do) for level, message, do in rule(sent, running.parameters)]
    found.sort(key=lambda finding: finding.level != FAIL)
    written = [
        Finding(one.name, one.level, one.said, one.do.replace("<controller>", running.name)) for one in found
    ]
    return written or [Finding(check, OK, summary(sent, running.parameters))]


def judged_clock(name: str, delay_s: float | None) -> Finding | None:
    """Return a warning where the stamps of a controller's states are too far from our clock; delay_s: None, unknown."""
    if delay_s is None or abs(delay_s) <= SKEW_S:
        return None
    where = "behind" if delay_s > 0.0 else "ahead of"
    message = f"its clock is {abs(delay_s) * 1e3:.0f} ms {where} ours: trajectories begin that much too {'late' if delay_s > 0.0 else 'early'}"
    return Finding(
        f"clock of {name}", WARN, message, "keep the clocks of both machines together (chrony, PTP)"
    )


Parameters = Mapping[str, Any]
Wrong = tuple[str, str, str]  # level, what was seen, what to do


def _in_yaml(line: str) -> str:
    return f"write `{line}` under ros__parameters of <controller> in the controllers' YAML"


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"


def _trajectory_joints(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    ours, its = sent.group.names, list(parameters.get(JOINTS, ()))
    unknown = [name for name in ours if name not in its]
    missing = [name for name in its if name not in ours]
    if unknown:
        message = f"it moves {_listed(its)} and {sent.who} commands {', '.join(unknown)} too: it refuses every trajectory"
        yield FAIL, message, _in_yaml(f"joints: {_listed(ours)}") + ", or correct the group's joints"
    elif missing and not parameters.get("allow_partial_joints_goal", False):
        message = (
            f"{sent.who} does not command {', '.join(missing)} of its joints: it refuses every trajectory"
        )
        yield (
            FAIL,
            message,
            _in_yaml("allow_partial_joints_goal: true") + ", or name those joints in the group",
        )


def _trajectory_interfaces(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    interfaces = list(parameters.get("command_interfaces", ()))
    if interfaces and "position" not in interfaces:
        message = f"it commands {', '.join(interfaces)} and no position: how well it follows {sent.who} depends on its gains"
        yield WARN, message, _in_yaml("command_interfaces: [position]") + " if the hardware has it"


def _trajectory_era(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    joins = bool(parameters.get(REPLACEMENT, False))
    its = BLEND if joins else LEGACY
    if joins:
        message = f"{REPLACEMENT} is true: it joins a new trajectory to the running one by itself, and plays a late one late"
        yield WARN, message, _in_yaml(f"{REPLACEMENT}: false")
    if sent.era not in (AUTO, its):
        message = f"trajectory_era is {sent.era} and it behaves like {its}: the arm jerks at every new chunk"
        yield WARN, message, "set trajectory_era to auto"


def _trajectory_start(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    from_command = parameters.get(DESIRED, False) or parameters.get("open_loop_control", False)
    if not from_command and not parameters.get(REPLACEMENT, False) and sent.era == BLEND:
        message = f"{DESIRED} is false and no anchor is sent: the command jumps back to the measured position at every new chunk"
        yield WARN, message, _in_yaml(f"{DESIRED}: true")


def _trajectory_upsampling(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    if not parameters.get(UPSAMPLING, False):
        return
    if sent.velocities:
        message = (
            f"{UPSAMPLING} is true and {sent.who} sends velocities: it leaves those trajectories as they are"
        )
    else:
        message = (
            f"{UPSAMPLING} is true and {sent.who} sends positions alone: every chunk begins and ends at rest"
        )
    yield WARN, message, _in_yaml(f"{UPSAMPLING}: false") + ", and send velocities"


def _trajectory(sent: Sent, parameters: Parameters) -> str:
    from_command = parameters.get(DESIRED, False) or parameters.get("open_loop_control", False)
    moving = parameters.get("allow_nonzero_velocity_at_trajectory_end", False)
    return (
        f"moves the {len(parameters[JOINTS])} joints of {sent.who}; a new trajectory replaces the running one and begins at"
        f" the {'last command' if from_command else 'measured positions'}; it {'may' if moving else 'must not'} end in motion"
    )


def _forward_joints(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    ours, its = list(sent.group.names), list(parameters.get(JOINTS, ()))
    if len(ours) != len(its):
        message = f"it takes {len(its)} values, of {_listed(its)}, and {sent.who} sends {len(ours)}: the first one deactivates it"
        yield FAIL, message, _in_yaml(f"joints: {_listed(ours)}") + ", or correct the group's joints"
    elif ours != its:
        message = f"it takes its values for {_listed(its)} and {sent.who} sends them for {_listed(ours)}: values carry no names"
        yield FAIL, message, "give the group's joints in the order of the controller"


def _forward_interface(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    interface = parameters.get("interface_name", "")
    if interface and interface != sent.group.commands:
        message = f"it takes its values for {interface} and {sent.who} sends {sent.group.commands}"
        yield FAIL, message, f"set the group's `commands` to {interface}, or take another controller"


def _gripper_joint(sent: Sent, parameters: Parameters) -> Iterator[Wrong]:
    joint = parameters.get(JOINT, "")
    if joint and joint not in sent.group.names:
        message = f"it moves {joint} and {sent.who} commands {', '.join(sent.group.names)}"
        yield FAIL, message, f"name {joint} in the group, or the action of the right gripper"


def _gripper(sent: Sent, parameters: Parameters) -> str:
    stalls = "counts as done" if parameters.get("allow_stalling", False) else "ends the goal as aborted"
    return f"moves {parameters.get(JOINT, 'the gripper')} of {sent.who}; holding an object {stalls}"


def _named(sent: Sent, _parameters: Parameters) -> str:
    return f"takes the commands of {sent.who}"


def _forward(sent: Sent, parameters: Parameters) -> str:
    return f"takes {len(parameters[JOINTS])} values from {sent.who}, in its order; the last one is held when we stop"


Rule = Callable[[Sent, Parameters], Iterator[Wrong]]
Judge = tuple[tuple[Rule, ...], Callable[[Sent, Parameters], str]]
_OF_GRIPPERS: Judge = ((_gripper_joint,), _gripper)
JUDGES: Mapping[str, Judge] = {
    JOINT_TRAJECTORY: (
        (
            _trajectory_joints, _trajectory_interfaces, _trajectory_era, _trajectory_start,
            _trajectory_upsampling,
        ),
        _trajectory,
    ),
    FORWARD_COMMAND: ((_forward_joints, _forward_interface), _forward),
    GRIPPER_COMMAND: _OF_GRIPPERS,
    PARALLEL_GRIPPER: _OF_GRIPPERS,
}  # fmt: skip
