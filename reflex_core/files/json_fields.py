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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from reflex_core.files.regular_file import LFS_POINTER, is_lfs_pointer
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import escaped

MOST_BYTES = 16 << 20  # the largest file of this kind, statistics of 32 joints in many data sets, has 200 kB
MOST_DEPTH = 64
MOST_NUMBER = 1e300  # well inside what a float64 holds
MOST_DIGITS = 1000  # reading and writing whole numbers takes time that grows with the square

# opening a named pipe waits for its writer
_READ_WITHOUT_WAITING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


Refuse = Callable[[str, str, object], Exception]  # key, expected, got


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


def refusing(where: str, error: Callable[[str], Exception]) -> Refuse:
    """Return what makes refusals like "FILE: 'key' must be a number, got null", as errors of one kind."""

    def refuse(key: str, expected: str, got: object) -> Exception:
        return error(f"{where}: '{key}' must be {expected}, got {json_text(got)}")

    return refuse


def json_text(value: object, most: int = 120) -> str:
    """Return a value as JSON writes it, on one line, cut after `most` characters."""
    return json.dumps(value, default=lambda one: dict(one) if isinstance(one, Mapping) else str(one))[:most]


class JsonFields(Mapping[str, Any]):
    """One JSON object whose fields are checked as they are read; as a Mapping it gives them unchecked.

    A field that is absent has its `default`; where that is None, it has to be there. A refusal names the key with the
    objects around it, what it must be and what it is.
    """

    def __init__(self, document: object, refuse: Refuse, name: str = "") -> None:
        """name: of the object, before its keys in refusals. Raises a refusal where `document` is no object."""
        if not isinstance(document, Mapping):
            raise refuse(name or "document", "an object", document)
        self._document: Mapping[str, Any] = document
        self._refuse, self._name = refuse, name

    def __getitem__(self, key: str) -> Any:
        return self._document[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)

    def refusal(self, key: str, expected: str, *got: object) -> Exception:
        """Return the error that says what a field must be, for checks that only the caller knows.

        got: what to show in place of the field's value.
        """
        found = got[0] if got else self.get(key)
        return self._refuse(f"{self._name}.{key}" if self._name else key, expected, found)

    def only(self, known: Collection[str]) -> JsonFields:
        """Return itself; refuse keys that are not known, with those that were meant."""
        if unknown := sorted(set(self) - set(known)):
            meant = ", ".join(dict.fromkeys(filter(None, (nearest(key, known) for key in unknown))))
            only = f"an object with only the keys {', '.join(known)}"
            raise self._refuse(
                self._name or "document", only + (f" (did you mean {meant}?)" if meant else ""), unknown
            )
        return self

    def fields(self, key: str, *, optional: bool = False) -> JsonFields:
        """Return an object in this one; an empty one where it is optional and absent or null."""
        value = self.get(key)
        value = {} if optional and value is None else value
        return JsonFields(value, self._refuse, f"{self._name}.{key}" if self._name else key)

    def item(self, key: str, at: int) -> JsonFields:
        """Return an object in a list of this one."""
        return JsonFields(
            self[key][at], self._refuse, f"{self._name}.{key}[{at}]" if self._name else f"{key}[{at}]"
        )

    def number(
        self, key: str, low: float = -MOST_NUMBER, high: float = MOST_NUMBER, default: float | None = None
    ) -> float:
        """Return a number from `low` to `high`."""
        value = self.get(key, default)
        if not is_number(value, low, high):
            raise self.refusal(key, f"a number{_range(low, high, MOST_NUMBER)}")
        return float(value)

    def whole(
        self, key: str, low: float = -math.inf, high: float = math.inf, default: int | None = None,
        expected: str = "",
    ) -> int:  # fmt: skip
        """Return a whole number from `low` to `high`. expected: what else a refusal says that it must be."""
        value = self.get(key, default)
        if not is_whole(value, low, high):
            raise self.refusal(key, expected or f"a whole number{_range(low, high, math.inf)}")
        return value

    def numbers(self, key: str, low: float = -MOST_NUMBER, high: float = MOST_NUMBER) -> NDArray[np.float64]:
        """Return a list of numbers from `low` to `high`."""
        value = self.get(key)
        if not isinstance(value, list) or not all(is_number(one, low, high) for one in value):
            bounds = _range(low, high, MOST_NUMBER)
            raise self.refusal(key, f"a list of numbers{bounds}" if bounds else "a list of finite numbers")
        return np.array(value, dtype=np.float64)

    def truth(self, key: str, *, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.refusal(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None, expected: str = "a text") -> str:
        """Return a text. expected: what a refusal says that it must be."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self.refusal(key, expected)
        return value

    def choice(self, key: str, choices: Collection[str], default: str | None = None) -> str:
        """Return one of the texts of `choices`."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.refusal(key, f"one of {', '.join(choices)}")
        return value

    def names(self, key: str, default: Collection[str] | None = None) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self.get(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise self.refusal(key, "a list of names")
        return tuple(value)


def leaves(value: object) -> Iterator[object]:
    """Yield everything in a JSON value that is no object and no list, in order; the reader of JSON bounds its depth."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(item)
    else:
        yield value


def _range(low: float, high: float, endless: float) -> str:
    if high < endless:
        return f" from {low:g} to {high:g}"
    return f" from {low:g} on" if low > -endless else ""


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
    level = [document]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                _check_text("".join(value))
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                _check_text(value)
            elif finite and isinstance(value, float) and not math.isfinite(value):
                raise JsonError(
                    f"{escaped(_not_finite(document))} must be a finite number, got NaN or Infinity"
                )
        if not below:
            return
        level = below
    raise JsonError(f"is nested deeper than {MOST_DEPTH} levels")


def _not_finite(document: Any) -> str:
    """Return where the first number that is not finite stands; naming every place costs more than checking it."""
    level = [("", document)]
    while level:
        below: list[tuple[str, Any]] = []
        for where, value in level:
            if isinstance(value, dict):
                below += [(f"{where}.{key}" if where else key, item) for key, item in value.items()]
            elif isinstance(value, list):
                below += [(f"{where}[{index}]", item) for index, item in enumerate(value)]
            elif isinstance(value, float) and not math.isfinite(value):
                return where
        level = below
    return ""


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise JsonError(f"holds a text with half a character, \\u{ord(text[error.start]):04x}") from error
