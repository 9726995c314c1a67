# SPDX-License-Identifier: Apache-2.0
"""Separate our command-line options from those of rclpy, which `ros2 run` and launch files append, and read the latter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reflex_core.errors import SettingError
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import escaped

ROS_ARGS, END = "--ros-args", "--"
NODE = "reflex"

# the options of rcl in Jazzy, but for parameters and remapping
_WITH_VALUE = ("-e", "--enclave", "--log-level", "--log-config-file", "--log-file-name")
_LOGS = ("rosout-logs", "stdout-logs", "external-lib-logs")
_ALONE = (ROS_ARGS, *(f"--{what}-{logs}" for what in ("enable", "disable") for logs in _LOGS))
_OPTIONS = ("-p", "--param", "--params-file", "-r", "--remap", *_WITH_VALUE, *_ALONE)

Source = tuple[str, Callable[[str], dict[str, object]]]


@dataclass(frozen=True, slots=True)
class RosArguments:
    """Arguments after --ros-args, parsed.

    Attributes:
        node: Full name of the node after remapping.
        sources: (name for messages, reader of its parameters) of each parameter source, in the order given.
        rest: Arguments for rclpy: everything but parameters.
    """

    node: str
    sources: tuple[Source, ...]
    rest: tuple[str, ...]


def split_ros_args(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (our arguments, those from --ros-args on). What follows a `--` after --ros-args is ours again, as in rcl."""
    own, theirs = list[str](), list[str]()
    ros = False
    for word in arguments:
        if word == ROS_ARGS:
            ros = True
        elif ros and word == END:
            ros = False
            continue
        (theirs if ros else own).append(word)
    return own, theirs


def read_ros_args(arguments: Sequence[str]) -> RosArguments:
    """Parse the arguments from --ros-args on as rcl does. Raises SettingError for a malformed parameter."""
    sources, rest, rules = list[Source](), list[str](), list[str]()
    words = iter(arguments)
    for word in words:
        if word in ("-p", "--param"):
            sources.append(_assignment(_next(words, word)))
        elif word == "--params-file":
            path = _next(words, word)
            sources.append((path, partial(_file, Path(path))))
        elif word in ("-r", "--remap"):
            rules.append(_next(words, word))
            rest += [word, rules[-1]]
        elif word in _WITH_VALUE:
            rest += [word, _next(words, word)]
        elif word in _ALONE:
            rest.append(word)
        else:
            raise SettingError(_no_option(word))
    name = _remapped(rules, ("__node", "__name")) or NODE
    namespace = _remapped(rules, ("__ns",)).strip("/")
    node = f"/{namespace}/{name}" if namespace else f"/{name}"
    return RosArguments(node, tuple(sources), () if set(rest) <= {ROS_ARGS} else tuple(rest))


def _next(words: Iterator[str], option: str) -> str:
    found = next(words, None)
    if found is None:
        raise SettingError(f"{option} behind {ROS_ARGS} needs a value, got nothing")
    return found


def _no_option(word: str) -> str:
    message = f"{escaped(word, 100)} is no option of ROS, and what follows {ROS_ARGS} is for ROS"
    if word.startswith("--") and (meant := nearest(word, _OPTIONS)):
        return f"{message}; did you mean {meant}?"
    return f"{message}: options of this program go before it, or behind {END}"


def _file(path: Path, node: str) -> dict[str, object]:
    from reflex_core.settings.parameter_file import (
        read_parameters,  # only here: the doctor runs where there is no yaml
    )

    return read_parameters(path, node)


def _assignment(text: str) -> Source:
    """Parse `name:=value` or `node:name:=value`."""
    left, assigned, right = text.partition(":=")
    section, _, name = left.rpartition(":")
    if not assigned or not name:
        raise SettingError(f"-p takes name:=value, got {text!r:.100}")

    def read(node: str) -> dict[str, object]:
        from reflex_core.settings.parameter_file import matches, parameter_value

        if section and section != NODE and not matches(section, node):
            raise SettingError(f"{message}: is for the node {section:.100}, and this is {node}")
        try:
            return {name: parameter_value(right)}
        except SettingError as error:
            raise SettingError(f"{message}: {error}") from error

    message = f"-p {text:.100}"
    return message, read


def _remapped(rules: Sequence[str], names: Sequence[str]) -> str:
    """Return the target of the first remapping rule for one of the names, as rcl does; `reflex:__ns:=/left` is a rule too."""
    for rule in rules:
        left, _, right = rule.partition(":=")
        node, _, name = left.rpartition(":")
        if name in names and node in ("", NODE):
            return right
    return ""
