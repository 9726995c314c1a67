# SPDX-License-Identifier: Apache-2.0
"""Every command line of `reflex` as data, for completion scripts and the man page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reflex_core.files.share import export_path
from reflex_core.robot.presets import preset_names
from reflex_ros.cli.parser import Parser
from reflex_ros.cli.verbs import VERBS

FILES, FOLDERS = "files", "folders"
OF_A_PLACE = ("TRACE", "EXPORT", "LOG", "CHECKPOINT")  # values that are files or folders, as is every Path


@dataclass(frozen=True, slots=True)
class Command:
    """A verb, or a command below one. words: as they are typed; what: in one line."""

    words: tuple[str, ...]
    what: str
    parser: Parser

    @property
    def options(self) -> list[argparse.Action]:
        """What is given by name."""
        return [action for action in self.parser.actions if action.option_strings]

    @property
    def places(self) -> list[argparse.Action]:
        """What is given by its place, without the commands below."""
        return [
            action
            for action in self.parser.actions
            if not action.option_strings and not isinstance(action.choices, dict)
        ]

    @property
    def below(self) -> dict[str, str]:
        """The commands below, each with what it does."""
        return {name: command.parser.description or "" for name, command in _below(self).items()}


def commands() -> Iterator[Command]:
    """Yield every verb, each followed by the commands below it."""
    for verb in VERBS.values():
        command = Command((verb.name,), verb.what, verb.load().parser())
        yield command
        yield from _below(command).values()


def completed(command: Command, action: argparse.Action) -> str | tuple[str, ...]:
    """Return what completes a value: FILES, FOLDERS, words, or () for a value that nothing completes."""
    if action.choices:
        return tuple(map(str, action.choices))
    if action.dest == "embodiment":
        return preset_names()
    if command.words == ("help",) and not action.option_strings:
        return tuple(VERBS)
    if action.metavar == "DIR":
        return FOLDERS
    is_place = action.metavar in ("FILE", *OF_A_PLACE) or action.type in (Path, export_path)
    return FILES if is_place else ()


def takes_value(action: argparse.Action) -> bool:
    """Return whether a word follows the option."""
    return action.nargs != 0


def _below(command: Command) -> dict[str, Command]:
    found: dict[str, Command] = {}
    for action in command.parser.actions:
        if not action.option_strings and isinstance(action.choices, dict):
            for name, parser in action.choices.items():
                found[name] = Command((*command.words, name), parser.description or "", parser)
    return found
