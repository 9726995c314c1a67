# SPDX-License-Identifier: Apache-2.0
"""Commands of the pages that need a robot: what they name, so that a test can look whether that exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import yaml

from reflex_core.settings.table import TABLE, settings_from
from reflex_ros.console.ros_args import split_ros_args

NOT_SETTINGS = ("no_ros", "json", "show_calibration", "config", "print_config")
SETTINGS = frozenset(row.name for row in TABLE)


@dataclass(frozen=True)
class Graph:
    """What a running node offers: type by topic, type by service, its parameters; and what a robot has besides."""

    topics: dict[str, str]
    services: dict[str, str]
    parameters: frozenset[str]
    launch_arguments: dict[str, frozenset[str]]

    def check(self, line: str) -> None:
        """Raises AssertionError where the command names what is not there."""
        program, *words = shlex.split(line, comments=True)
        if program == "reflex":
            check_reflex(words)
        elif program == "rqt_plot":
            for word in words:
                assert word.rpartition("/")[0] in self.topics, line
        else:
            assert program == "ros2", f"a command that is not checked: {line}"
            self._ros2(line, words)

    def _ros2(self, line: str, words: list[str]) -> None:
        verb, rest = " ".join(words[:2]), [word for word in words[2:] if not word.startswith("--")]
        if words[0] == "launch":
            self._launch(line, [word for word in words[1:] if not word.startswith("--")])
        elif verb in ("topic echo", "topic hz", "topic info"):
            assert rest[0] in self.topics, line
        elif verb == "topic pub":
            topic, kind, values = rest
            assert self.topics[topic] == kind, line
            assert set(yaml.safe_load(values)) <= set(message(kind).get_fields_and_field_types()), line
        elif verb == "service call":
            assert self.services[rest[0]] == rest[1], line
        elif verb == "param set":
            node, name, value = rest
            assert node == "/reflex", line
            assert name in self.parameters, line
            settings_from({name: yaml.safe_load(value)})
        else:
            assert verb == "control list_controllers", f"a command that is not checked: {line}"

    def _launch(self, line: str, words: list[str]) -> None:
        file = next(word for word in words if word.endswith(".launch.py"))
        given = {word.partition(":=")[0] for word in words if ":=" in word}
        assert given <= self.launch_arguments[file.removeprefix("./")], line


def message(kind: str) -> Any:
    """The class of a type such as std_msgs/msg/String."""
    package, _, name = kind.split("/")
    return getattr(import_module(f"{package}.msg"), name)


def check_reflex(words: list[str]) -> None:
    """The command line is understood and its settings are in their ranges; nothing is run."""
    command, *given = words
    own, _ = split_ros_args(given)
    module = import_module(f"reflex_ros.cli.{command.replace('-', '_')}")
    options = vars(module.parser().parse_args(own))
    if command in ("serve", "doctor"):
        settings_from({name: value for name, value in options.items() if name not in NOT_SETTINGS})


def lines(code: str) -> Iterable[str]:
    """The commands of a block, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", code)
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
