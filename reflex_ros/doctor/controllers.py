# SPDX-License-Identifier: Apache-2.0
"""Ask the controllers that run what they are, by their parameter services, before anything moves.

One coroutine for the node, which asks before it becomes active, and for `reflex doctor`. What the answers mean is in
controller_rules.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reflex_core.doctor.finding import FAIL, OK, Finding
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import Group
from reflex_core.robot.output_options import JOINT_TRAJECTORY
from reflex_core.settings.table import AUTO
from reflex_ros.doctor.controller_rules import (
    PARAMETERS,
    Running,
    Sent,
    era_of,
    judged,
    judged_clock,
    readable,
)
from reflex_ros.graph.endpoints import UNKNOWN, full_name, subscribers

if TYPE_CHECKING:
    from rclpy.client import Client
    from rclpy.node import Node

PATIENCE_S = 1.0  # for one controller; all are asked at once
LISTEN_S, STATES = 0.5, 20  # to the stamps of a controller's states: so long, or so many
POLL_S = 0.02
MOST_NODES = 8  # nodes on one topic: beyond are recorders and viewers
DEFAULT_TOPIC = "joint_trajectory"
IGNORED = ("/_", "/rosbag2_")  # command line tools and recorders


@dataclass(frozen=True, slots=True)
class Wanted:
    """What we send and the nodes that take it, by their full names."""

    sent: Sent
    takers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """findings: of every group. eras: how its joint_trajectory_controller takes a new trajectory, by the names of groups."""

    findings: tuple[Finding, ...]
    eras: Mapping[str, str]

    def require_fit(self) -> None:
        """Raise ConfigurationError with the sentences of what would be refused, or would end a controller."""
        wrong = [f"{one.name}: {one.said}; {one.do}" for one in self.findings if one.level == FAIL]
        if wrong:
            raise ConfigurationError("; ".join(wrong), "controller-mismatch")


async def ask_all(node: Node, wanted: Iterable[Wanted], patience_s: float = PATIENCE_S) -> Answers:
    """Return what the controllers say. It waits on the node's executor, which serves everything else meanwhile."""
    wanted = list(wanted)
    names = {name for one in wanted for name in _worth_asking(one.takers)}
    executor = node.executor
    assert executor is not None
    tasks = {name: executor.create_task(_ask, node, name, patience_s) for name in sorted(names)}
    running = {name: Running(name, await task) for name, task in tasks.items()}
    findings: list[Finding] = []
    eras: dict[str, str] = {}
    followers: set[str] = set()
    for one in wanted:
        nodes = [running[name] for name in _worth_asking(one.takers)]
        controllers = [each for each in nodes if each.is_controller]
        if not nodes:
            findings.append(_no_receiver(one.sent))
        for each in controllers or nodes[:1]:
            findings += judged(one.sent, each)
        if one.sent.output == JOINT_TRAJECTORY:
            eras.update((one.sent.group.name, era) for era in map(era_of, controllers) if era)
            followers |= {each.name for each in controllers}
    delays = {
        name: executor.create_task(_delay_s, node, name, min(patience_s, LISTEN_S))
        for name in sorted(followers)
    }
    skews = [judged_clock(name, await task) for name, task in delays.items()]
    return Answers((*findings, *filter(None, skews)), eras)


def _worth_asking(takers: Sequence[str]) -> list[str]:
    named = sorted({name for name in takers if name.startswith("/") and not name.startswith(IGNORED)})
    return named[:MOST_NODES]


def _no_receiver(sent: Sent) -> Finding:
    name = f"controller of {sent.group.name}" if sent.group.name else "controller"
    return Finding(
        name, OK, f"no node takes the commands of {sent.who} yet: its controller could not be asked"
    )


async def _ask(node: Node, name: str, patience_s: float) -> Mapping[str, Any] | None:
    """Return those parameters of PARAMETERS that the node of this full name has; None where it does not answer in time."""
    from rcl_interfaces.srv import GetParameters, ListParameters

    end_s = time.monotonic() + patience_s
    # A node of rclcpp answers a request that holds one unknown name with nothing at all.
    listed = await _called(node, ListParameters, f"{name}/list_parameters", ListParameters.Request(), end_s)
    if listed is None:
        return None
    known = [parameter for parameter in PARAMETERS if parameter in listed.result.names]
    request = GetParameters.Request(names=known)
    got = await _called(node, GetParameters, f"{name}/get_parameters", request, end_s) if known else None
    if known and got is None:
        return None
    return _values(known, got.values if got is not None else ())


async def _delay_s(node: Node, name: str, longest_s: float) -> float | None:
    """Return how much later than their stamps the states of a joint_trajectory_controller arrive, the nearest to 0 of some.

    None where it publishes none within `longest_s`, or where control_msgs, which no ROS wheel brings, is not installed.
    """
    try:
        from control_msgs.msg import JointTrajectoryControllerState
    except ImportError:
        return None
    from rclpy.callback_groups import ReentrantCallbackGroup
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.time import Time

    delays_ns: list[int] = []

    def receive(message: Any) -> None:
        stamp = Time.from_msg(message.header.stamp)
        delays_ns.append(int(node.get_clock().now().nanoseconds - stamp.nanoseconds))

    group = ReentrantCallbackGroup()
    subscription = node.create_subscription(
        JointTrajectoryControllerState, f"{name}/controller_state", receive, qos_profile_sensor_data,
        callback_group=group,
    )  # fmt: skip
    try:
        await _until(node, lambda: len(delays_ns) >= STATES, time.monotonic() + longest_s, group)
    finally:
        node.destroy_subscription(subscription)
    return min(delays_ns, key=abs) * 1e-9 if delays_ns else None


def _values(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    from rcl_interfaces.msg import ParameterType
    from rclpy.parameter import parameter_value_to_python

    return readable(
        {
            name: parameter_value_to_python(value)
            for name, value in zip(names, values, strict=False)
            if value.type != ParameterType.PARAMETER_NOT_SET
        }
    )


async def _called(node: Node, kind: Any, service: str, request: Any, end_s: float) -> Any:
    """Return the service's response; None where it is not there or has not answered by `end_s` of time.monotonic."""
    from rclpy.callback_groups import ReentrantCallbackGroup

    # Its own group: the one of the callback that waits here is taken.
    group = ReentrantCallbackGroup()
    client: Client = node.create_client(kind, service, callback_group=group)
    try:
        if not await _until(node, client.service_is_ready, end_s, group):
            return None
        future = client.call_async(request)
        if await _until(node, future.done, end_s, group):
            return future.result()
        client.remove_pending_request(future)
        return None
    finally:
        node.destroy_client(client)


async def _until(node: Node, condition: Callable[[], bool], end_s: float, group: Any) -> bool:
    """Wait on the executor until the condition holds; False when it does not by `end_s` of time.monotonic."""
    from rclpy.clock import Clock, ClockType
    from rclpy.task import Future

    if condition():
        return True
    future: Future = Future(executor=node.executor)

    def look() -> None:
        if not future.done() and (condition() or time.monotonic() > end_s):
            future.set_result(None)

    steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
    timer = node.create_timer(POLL_S, look, callback_group=group, clock=steady)
    try:
        await future
    finally:
        node.destroy_timer(timer)
    return condition()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a group's commands go. names: a topic by every name under which a remapping may know it, or one action."""

    sent: Sent
    names: tuple[str, ...]
    is_action: bool = False


def named_controller(group: Group) -> str:
    """Return the full name of the controller that the group names; empty where it names none."""
    named = str(group.options.get("controller", ""))
    return named if named.startswith("/") or not named else f"/{named}"


def sent_for(group: Group) -> Sent:
    """Return what is sent for a group, which has its robot interface and the options that settings give."""
    era = str(group.options.get("trajectory_era", AUTO))
    return Sent(group, group.output, era, bool(group.options.get("velocities", True)))


def address_of(group: Group, node_name: str) -> Address:
    """Return where a node of this name would send the group's commands, before remapping."""
    sent = sent_for(group)
    if "action" in group.options:
        return Address(sent, (str(group.options["action"]),), is_action=True)
    topic = str(group.options.get("topic", f"~/{DEFAULT_TOPIC}"))
    names = (f"{node_name}/{topic[2:]}", topic) if topic.startswith("~/") else (topic,)
    return Address(sent, names)


def running_controllers(
    wanted: Sequence[Address], ros_args: Sequence[str] = (), look_s: float = 2.0
) -> Iterator[Finding]:
    """Yield what `reflex doctor` finds of the controllers that run now.

    ros_args: remappings, as `reflex serve` would get them. look_s: until other programs are known.
    """
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    context = Context()
    try:
        rclpy.init(args=list(ros_args), context=context)
        node = Node("reflex_doctor", context=context, start_parameter_services=False, enable_rosout=False)
    except Exception:  # the other checks of ROS report it
        rclpy.try_shutdown(context=context)
        return
    try:
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        task = executor.create_task(ask_all, node, _found(node, wanted, look_s))
        executor.spin_until_future_complete(task, 2 * PATIENCE_S + LISTEN_S)
        if task.done():
            yield from task.result().findings
        executor.shutdown()
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _found(node: Node, wanted: Sequence[Address], look_s: float) -> list[Wanted]:
    """Look for the takers of every group's commands until each has one, at most `look_s` seconds."""
    end_s = time.monotonic() + look_s
    while True:
        found = [Wanted(one.sent, _takers(node, one)) for one in wanted]
        if all(one.takers and UNKNOWN not in one.takers for one in found) or time.monotonic() > end_s:
            return found
        time.sleep(POLL_S)


def _takers(node: Node, address: Address) -> tuple[str, ...]:
    """Return who takes the commands. The action of a controller is below its own name."""
    full = [node.resolve_topic_name(name) for name in address.names]
    named = named_controller(address.sent.group)
    if named or address.is_action:
        served_by = named or full[0].rpartition("/")[0]
        here = {full_name(*each) for each in node.get_node_names_and_namespaces()}
        return (served_by,) if served_by in here else ()
    return tuple(taker for name in full for taker in subscribers(node, name))
