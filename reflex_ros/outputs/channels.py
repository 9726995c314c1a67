# SPDX-License-Identifier: Apache-2.0
"""Where commands go: the topics and actions of every group, who receives them there, and who commands there too."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import Group
from reflex_ros.graph.endpoints import action_clients, action_servers, publishers, subscribers
from reflex_ros.outputs.base import Acting, Output

if TYPE_CHECKING:
    from rclpy.node import Node

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic or action of a group, with its full name."""

    group: str
    name: str
    is_action: bool = False

    def commanders(self, node: Node) -> list[str]:
        """Return the full names of the nodes that can command here, this one included, one for each publisher or client."""
        return action_clients(node, self.name) if self.is_action else publishers(node, self.name)

    def receivers(self, node: Node) -> list[str]:
        """Return the full names of the nodes that receive the commands; recorders and viewers are among those of a topic."""
        return action_servers(node, self.name) if self.is_action else subscribers(node, self.name)


def channels_of(group: Group, output: Output) -> Iterator[Channel]:
    """Yield the channels of a group."""
    for topic in output.topics:
        yield Channel(group.name, topic)
    if isinstance(output, Acting):
        for action in output.actions:
            yield Channel(group.name, action, is_action=True)


def require_one_each(channels: Iterable[Channel]) -> None:
    """Raise ConfigurationError where two groups command by one topic or action, as each would overwrite the other."""
    taken: dict[str, str] = {}
    for channel in channels:
        if channel.name in taken:
            raise ConfigurationError(
                f"groups '{taken[channel.name]}' and '{channel.group}' both command by {channel.name}: write another name into the"
                " embodiment, or remap one of them elsewhere",
                "bad-output",
            )
        taken[channel.name] = channel.group


def absent(node: Node, channels: Iterable[Channel]) -> list[str]:
    """Return a phrase for each channel of a named group that has no receiver."""
    return [
        f"group '{channel.group}': nothing {'serves the action' if channel.is_action else 'subscribes to'} {channel.name}"
        for channel in channels
        if channel.group and not channel.receivers(node)
    ]


def await_receivers(
    node: Node, channels: Collection[Channel], wait_s: float, ending: Callable[[], bool] = lambda: False
) -> None:
    """Wait until every named group has a receiver, or the process is `ending`.

    Raises ConfigurationError naming the groups without one after `wait_s` seconds; 0: none is required. The one group
    of a robot whose description names none may have its controller come later.
    """
    end_s = time.monotonic() + wait_s
    while wait_s > 0.0 and not ending() and (lacks := absent(node, channels)):
        if time.monotonic() >= end_s:
            raise ConfigurationError(
                f"{'; '.join(lacks)} ({wait_s:g} s waited): start its controller, correct the name in the embodiment, or remap"
                " it; controller_wait_s 0 requires none",
                "no-controller",
            )
        time.sleep(POLL_S)
