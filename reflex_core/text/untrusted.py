# SPDX-License-Identifier: Apache-2.0
"""Clean untrusted text on its way into a log line, an error message, a label or a terminal.

A line break forges a line of the log, an escape sequence rewrites a terminal, a right-to-left mark reverses a sentence
around, and a megabyte fills the disk.
"""

from __future__ import annotations

import re
import reprlib

MOST_CHARACTERS = 80
NAME_CHARACTERS = 200

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = MOST_CHARACTERS
_repr.maxlong = 40
_repr.maxlevel = 4
_repr.maxdict = _repr.maxlist = _repr.maxtuple = 8

_ODD = re.compile(r"[^\x20-\x7e]")


def escaped(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""Return the text on one line, with what cannot be printed as `\n` or `\u202e`, in at most `most` characters."""
    cut = text[: most + 1]
    if not cut.isprintable():
        cut = _ODD.sub(_escape, cut)
    return cut if len(cut) <= most else f"{cut[: max(0, most - 3)]}..."


def printable(text: str) -> str:
    """Return text of the same length without control characters, which a recording could use to rewrite a terminal or a page."""
    return "".join(character if character.isprintable() else "?" for character in text)


def is_name(value: object) -> bool:
    """Return whether this is a text that people can read and type as a name: printable, short, no blanks at its ends."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= NAME_CHARACTERS
        and value.isprintable()
        and value == value.strip()
    )


def shown(value: object, most: int = MOST_CHARACTERS) -> str:
    r"""Return any value as Python writes it, bounded before it is written: `'a\nb'`, `[1, 2, ...]`."""
    return escaped(_repr.repr(value), most)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
