# SPDX-License-Identifier: Apache-2.0
"""Why a library failed, in one line: what it raised first, not the errors that it wrapped around that."""

from __future__ import annotations

import re

from reflex_core.files.directories import FULL
from reflex_core.text.untrusted import escaped

_CHARACTERS = 300
_CODES = re.compile(r"\x1b\[[0-9;]*m")


def first_cause(error: BaseException) -> BaseException:
    """Return the error that an error was raised from, as far back as that is known."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def reason(error: BaseException) -> str:
    """Return type and first line of the first cause, without a terminal's colours."""
    return _in_a_line(first_cause(error))


def with_reason(error: BaseException) -> str:
    """Return type and first line of an error, and those of its first cause, where a reader needs both."""
    cause = first_cause(error)
    return _in_a_line(error) + (f" ({_in_a_line(cause)})" if cause is not error else "")


def _in_a_line(error: BaseException) -> str:
    lines = [line.strip() for line in _CODES.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # "the following was found:" says nothing without what follows
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {escaped(first, _CHARACTERS)}"


def disk_full(error: BaseException) -> OSError | None:
    """Return the error of a disk that was full, where an error came of one."""
    cause = first_cause(error)
    return cause if isinstance(cause, OSError) and cause.errno in FULL else None
