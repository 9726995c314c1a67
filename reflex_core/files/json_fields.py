# SPDX-License-Identifier: Apache-2.0
"""Read JSON files of users: embodiments, safety files, export configurations, observations.

Stricter than `json.loads`, because half of what that accepts is an undetected mistake: a repeated key (the last one
wins), NaN and Infinity (no JSON), numbers that no float64 holds, a named pipe that never ends.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from reflex_core.files.regular_file import LFS_POINTER, is_lfs_pointer
from reflex_core.text.untrusted import escaped

MOST_BYTES = 16 << 20  # the largest file of this kind, statistics of 32 joints in many data sets, has 200 kB
MOST_DEPTH = 64
MOST_NUMBER = 1e300  # well inside what a float64 holds
MOST_DIGITS = 1000  # reading and writing whole numbers takes time that grows with the square

# opening a named pipe waits for its writer
_READ_WITHOUT_WAITING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class JsonError(ValueError):
    """Bytes that are not the expected JSON; the message names no file, the caller does."""


def read_json(path: Path, most_bytes: int = MOST_BYTES, *, finite: bool = True) -> Any:
    """Return the JSON value of a regular file of at most `most_bytes`. Raises OSError, or JsonError.

    finite: refuse NaN and Infinity here; False where the caller checks every number and names its key.
    """
    return parse_json(read_bounded(path, most_bytes), finite=finite)


def read_object(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Return the JSON object of a file. Raises OSError, or JsonError also where it holds something else."""
    document = read_json(path, most_bytes)
    if not isinstance(document, dict):
        raise JsonError(f"must hold a JSON object, got {type(document).__name__}")
    return document


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a regular file. Raises OSError, or JsonError for a pipe, a device, or more than that."""
    with os.fdopen(os.open(path, _READ_WITHOUT_WAITING), "rb") as stream:
        found = os.fstat(stream.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "is a directory", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise JsonError("must be a regular file, got a pipe, a socket or a device")
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise JsonError(f"must have at most {most_bytes} bytes, got {max(found.st_size, len(data))}")
    return data


def parse_json(data: bytes, *, finite: bool = True) -> Any:
    """Return the value of UTF-8 JSON without repeated keys, NaN, Infinity, or anything that cannot be written again.

    Raises JsonError with the position of the fault.
    """
    if is_lfs_pointer(data):
        raise JsonError(f"is {LFS_POINTER}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise JsonError("not readable as JSON: begins with a byte order mark: save it as UTF-8 without one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(
            f"not readable as JSON: not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
        ) from error
    try:
        document = json.loads(text, object_pairs_hook=_once, parse_float=_float, parse_int=_int)
    except RecursionError as error:
        raise JsonError(f"is nested deeper than {MOST_DEPTH} levels") from error
    except json.JSONDecodeError as error:
        raise JsonError(f"not readable as JSON: {error}") from error
    _check(document, finite=finite)
    return document


def is_number(value: object, low: float = -MOST_NUMBER, high: float = MOST_NUMBER) -> TypeGuard[int | float]:
    """Return whether a JSON value is a number from `low` to `high`; true, false and NaN are none.

    It is compared without conversion: an integer of 400 digits has no float.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_whole(value: object, low: float = -math.inf, high: float = math.inf) -> TypeGuard[int]:
    """Return whether a JSON value is an integer from `low` to `high`; true, false and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise JsonError(f"not readable as JSON: key '{escaped(key)}' is there twice")
        table[key] = value
    return table


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"holds the number {escaped(text, 40)}, which no float64 can")
    return value


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise JsonError(f"holds a whole number of {len(text)} digits")
    return int(text)


def _check(document: Any, *, finite: bool) -> None:
    """Raise JsonError for what is nested too deep, for NaN, and for text that cannot be written as UTF-8."""
    level = [("", document)]
    for _ in range(MOST_DEPTH):
        below: list[tuple[str, Any]] = []
        for where, value in level:
            if isinstance(value, dict):
                _check_text("".join(value))
                below += [(f"{where}.{key}" if where else key, item) for key, item in value.items()]
            elif isinstance(value, list):
                below += [(f"{where}[{index}]", item) for index, item in enumerate(value)]
            elif isinstance(value, str):
                _check_text(value)
            elif finite and isinstance(value, float) and not math.isfinite(value):
                raise JsonError(f"{escaped(where)} must be a finite number, got NaN or Infinity")
        if not below:
            return
        level = below
    raise JsonError(f"is nested deeper than {MOST_DEPTH} levels")


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise JsonError(f"holds a text with half a character, \\u{ord(text[error.start]):04x}") from error
