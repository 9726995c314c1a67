# SPDX-License-Identifier: Apache-2.0
"""Print man/reflex.1, made from the command lines of every verb: `python -m reflex_ros.cli.man_page > man/reflex.1`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from reflex_core import __version__
from reflex_core.settings.environment import SECRETS
from reflex_core.settings.table import TABLE
from reflex_ros.cli.commands import Command, commands, takes_value
from reflex_ros.cli.verbs import VERBS

SETTINGS_OF = "serve"  # the verb that lists the settings; the others refer to it


def page() -> str:
    """Return the page in roff."""
    return (
        "\n".join([*_head(), *(line for command in commands() for line in _command(command)), *_tail()])
        + "\n"
    )


def _head() -> Iterator[str]:
    yield f'.TH REFLEX 1 "" "reflex_ros {__version__}" "User commands"'
    yield from (".nh", ".ad l")  # names of options are not broken
    yield ".SH NAME"
    yield r"reflex \- run a learned policy on a robot, over ROS 2 and HTTP"
    yield ".SH SYNOPSIS"
    yield r".B reflex"
    yield r"\fIVERB\fR [\fIoptions\fR]"
    yield ".SH DESCRIPTION"
    for group in dict.fromkeys(verb.group for verb in VERBS.values()):
        yield f".SS {_roff(group)}"
        for verb in VERBS.values():
            if verb.group == group:
                yield ".TP"
                yield f".B {_roff(verb.name)}"
                yield _roff(verb.what)
    yield ".SH VERBS"


def _command(command: Command) -> Iterator[str]:
    yield f".SS reflex {_roff(' '.join(command.words))}"
    yield ".nf"
    yield _roff(command.parser.format_usage().strip().removeprefix("usage: "))
    yield ".fi"
    yield ".PP"
    yield _roff(command.parser.description or "")
    shared = (
        {row.name for row in TABLE} if command.words != (SETTINGS_OF,) and _has_settings(command) else set()
    )
    for action in [*command.places, *command.options]:
        if action.dest not in (*shared, "help") or action in command.places:
            yield from _action(action)
    if shared:
        yield from (".PP", f"And every setting of reflex {SETTINGS_OF}.")
    if command.parser.epilog:
        yield from (".PP", _roff(command.parser.epilog))
    if command.parser.examples:
        yield from (".PP", "Examples:", ".PP", ".nf")
        yield from (_roff(f"    {example}") for example in command.parser.examples)
        yield ".fi"


def _has_settings(command: Command) -> bool:
    """Return whether the command takes every setting, as `doctor` does."""
    return {row.name for row in TABLE} <= {option.dest for option in command.options}


def _action(action: argparse.Action) -> Iterator[str]:
    value = action.metavar or "|".join(map(str, action.choices or ()))
    named = ", ".join(rf"\fB{_roff(flag)}\fR" for flag in action.option_strings)
    words = " ".join(filter(None, [named, rf"\fI{_roff(str(value))}\fR" if takes_value(action) else ""]))
    yield ".TP"
    yield words
    yield _roff(_help(action))


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    stated = action.default in (None, argparse.SUPPRESS) or any(
        action.default is none for none in (False, True)
    )
    if stated or action.default in ("", ()) or "efault" in text or not action.option_strings:
        return text
    return f"{text} [default: {action.default}]"


def _tail() -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    yield _roff(
        "Every setting has a variable: REFLEX_ and its name in capitals, REFLEX_MAX_AGE_MS for --max-age-ms. An empty one sets"
        " nothing; an option overrides it, and it overrides the file of --config."
    )
    yield ".PP"
    yield _roff(f"Keys are read from a file or from {', '.join(SECRETS)}, never from the command line.")
    yield ".SH EXIT STATUS"
    yield _roff(
        "0: done; 1: it could not be done; 2: the command line is not understood; 130: stopped by Ctrl-C."
    )
    yield _roff("What differs from this is listed with the verb.")
    yield ".SH SEE ALSO"
    yield _roff("docs/index.md of the source, and `reflex help VERB`.")


def _roff(text: str) -> str:
    """Escape what roff would take for a request, an escape or a typographic hyphen."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    print(page(), end="")
