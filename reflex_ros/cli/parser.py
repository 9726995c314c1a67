# SPDX-License-Identifier: Apache-2.0
"""The parser of every sub-command: grouped help with examples at its end, errors of two lines that suggest what was meant."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from reflex_core.settings.cli import nearest_flag
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import escaped
from reflex_ros.console.program import NAME, called

WIDEST = 100  # characters of a line of help, however wide the terminal is
INDENT = 30  # characters before the text of an option
_Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it
_MISSING = re.compile(r"(\S+): expected (?:one|at least one) argument")
NO_DEFAULT = (None, argparse.SUPPRESS, False)


class _Layout(argparse.HelpFormatter):
    """Options as `-o, --output FILE`, and a column for their text that leaves room for it."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns - 2, WIDEST)
        super().__init__(prog, max_help_position=INDENT, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or isinstance(action, _Commands):
            return super()._format_action_invocation(action)
        if isinstance(action, argparse.BooleanOptionalAction) and "default: on" not in str(action.help):
            return action.option_strings[0]  # its opposite is what happens anyway
        value = "" if action.nargs == 0 else f" {_value(action)}{'...' if action.nargs == '+' else ''}"
        return f"{', '.join(action.option_strings)}{value}"

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, _Commands):
            return super()._format_action(action)
        self._dedent()  # commands stand where options stand
        lines = [self._format_action(command) for command in self._iter_indented_subactions(action)]
        self._indent()
        return self._join_parts(lines)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        unsaid = any(action.default is none for none in NO_DEFAULT) or action.default in ("", (), [])
        if unsaid or not action.option_strings or isinstance(action, argparse.BooleanOptionalAction):
            return text
        return text if "efault" in text else f"{text} [default: %(default)s]"


class Parser(argparse.ArgumentParser):
    """argparse's parser with the errors and the help that every verb has."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        """Create the parser. examples: command lines, printed at the end of the help. The rest is argparse's."""
        options.setdefault("formatter_class", _Layout)
        options.setdefault("allow_abbrev", False)  # what --forc means today it need not mean tomorrow
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)
        self._positionals.title = "arguments"
        for action in self._actions:  # --help, so far
            action.help = "show this help"

    @property
    def actions(self) -> tuple[argparse.Action, ...]:
        """What this parser takes, in the order in which it was added."""
        return tuple(self._actions)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; an option that is unknown is refused here, where it is known which ones there are."""
        words = sys.argv[1:] if args is None else list(args)
        if not self._nested():
            self._refuse_unknown(words)  # before what is missing: it may be what was misspelt
        known, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(self._no_such(unknown[0]))
        return known, []

    def add_subparsers(self, **options: Any) -> Any:
        """Add commands below this verb, titled and named as everywhere."""
        return super().add_subparsers(**{"title": "commands", "metavar": "COMMAND", **options})

    def error(self, message: str) -> NoReturn:
        """End the process with status 2 and two lines: what is wrong, and where the options are listed."""
        verb = self.prog.removeprefix(NAME).strip()
        helping = f"{called()} help {verb}".rstrip() if self.prog.startswith(NAME) else f"{self.prog} --help"
        message = message.removeprefix("argument ").replace("\n", " ")
        if found := _MISSING.fullmatch(message):
            action = self._option_string_actions[found[1].rpartition("/")[2]]
            message = f"{_name(action)} needs a value: {_name(action)} {_value(action)}"
        listed = "commands" if self._nested() else "options"
        self.exit(2, f"{self.prog}: {escaped(message, 400)}\n`{helping}` lists the {listed}.\n")

    def format_usage(self) -> str:
        """Return one short line of usage: what must be given by name, the rest as [options]."""
        self.usage = self.usage or self._short_usage()
        return super().format_usage()

    def format_help(self) -> str:
        """Return the help, with the examples at its end."""
        self.usage = self.usage or self._short_usage()
        text = super().format_help()
        if self.examples:
            text += "\nexamples:\n" + "".join(f"  {example}\n" for example in self.examples)
        return text

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, _Commands):
            meant = nearest(str(value), list(action.choices))
            message = f"no such command {value!r:.100}"
        else:
            choices = [str(choice) for choice in action.choices]
            meant = nearest(str(value), choices)
            message = f"{_name(action)} takes one of {', '.join(choices)}, got {value!r:.100}"
        raise argparse.ArgumentError(None, message + (f"; did you mean {meant}?" if meant else ""))

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        for word in words:
            if word == "--":
                return
            if (
                word.startswith("--")
                and " " not in word
                and word.partition("=")[0] not in self._option_string_actions
            ):
                self.error(self._no_such(word))

    def _no_such(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument {escaped(word, 100)!r}"
        flags = list(self._option_string_actions)
        begun = (
            flag for flag in flags if flag.startswith(word)
        )  # --emb is too short to resemble --embodiment
        meant = nearest_flag(word, flags) or next(begun, "")
        return f"no such option {escaped(word.partition('=')[0], 100)}" + (
            f"; did you mean {meant}?" if meant else ""
        )

    def _nested(self) -> bool:
        return any(isinstance(action, _Commands) for action in self._actions)

    def _short_usage(self) -> str:
        named = [action for action in self._actions if action.required and action.option_strings]
        placed = [action for action in self._actions if not action.option_strings]
        given = [f"{_name(action)} {_value(action)}" for action in named]
        return " ".join(
            ["%(prog)s", *map(_place, placed), *given, *([] if self._nested() else ["[options]"])]
        )


def add_command(commands: Any, name: str, what: str, examples: Sequence[str] = ()) -> Parser:
    """Add a command below a verb. commands: of `add_subparsers`; what: one line, which is also its description."""
    made: Parser = commands.add_parser(
        name, help=what, description=f"{what[:1].upper()}{what[1:]}.", examples=examples
    )
    return made


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else _value(action)


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _place(action: argparse.Action) -> str:
    name = _value(action)
    if isinstance(action, _Commands):
        return f"{action.metavar or 'COMMAND'} [options]"
    return {"?": f"[{name}]", "+": f"{name}...", "*": f"[{name}...]"}.get(str(action.nargs), name)
