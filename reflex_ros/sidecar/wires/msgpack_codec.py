# SPDX-License-Identifier: Apache-2.0
"""msgpack with NumPy arrays, both ways: bounded reading, and the tags that each client's own reader knows.

The package `msgpack` is imported when the first message comes: nothing else needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_ros.sidecar.problems import BodyError, TooLargeError
from reflex_ros.sidecar.wires import npy
from reflex_ros.sidecar.wires.numpy_tags import Array, array_of, image_of

MALFORMED = "malformed-msgpack"
MOST_VALUES = 200_000  # in all lists and maps of a message together
MOST_ENTRIES = 16_384  # of one list or map: room for as many is made before its first entry is read
LACKING = "this server cannot read msgpack: install the package msgpack there, as the extra `openpi` of reflex_ros does"

# how a client tags the arrays that it reads
OPENPI, VLA_EVAL, MSGPACK_NUMPY, NPY = "openpi", "vla_eval", "msgpack_numpy", "npy"
FORMS = (OPENPI, VLA_EVAL, MSGPACK_NUMPY, NPY)


class MissingPackageError(BodyError):
    """The package msgpack is not installed here."""

    slug = "msgpack-missing"
    status = 415


def require_msgpack() -> Any:
    """Return the module. Raises MissingPackageError where it is not installed."""
    try:
        import msgpack
    except ImportError as error:
        raise MissingPackageError(LACKING) from error
    return msgpack


def has_msgpack() -> bool:
    """Return whether the package is installed here."""
    try:
        require_msgpack()
    except MissingPackageError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was read. form: how its arrays were tagged, one of `FORMS`; "" where it has none."""

    value: Any
    form: str


def unpack(data: bytes | bytearray | memoryview) -> Message:
    """Return the value of a message, tagged arrays as read-only arrays.

    Memory stays within a small multiple of the message: lists and maps are counted while they are read.
    Raises BodyError, TooLargeError, MissingPackageError, ObservationError for a tag that is no array.
    """
    msgpack = require_msgpack()
    reading = _Reading()
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,  # str and bytes only
            object_pairs_hook=reading.mapping,
            list_hook=reading.sequence,
            ext_hook=_refuse_extension,
            max_array_len=MOST_ENTRIES,
            max_map_len=MOST_ENTRIES,
        )
        return Message(value, reading.form)
    except ObservationError:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise BodyError(f"the message is not msgpack: {_why(error)}", MALFORMED) from error


def pack(value: Any, form: str = OPENPI) -> bytes:
    """Return a value as msgpack, its arrays tagged in one of `FORMS`."""
    packed: bytes = require_msgpack().packb(value, use_bin_type=True, default=_TAGGED[form])
    return packed


class _Reading:
    """Hooks of the reader: they make arrays, note how those are tagged, and end it at too many values."""

    def __init__(self) -> None:
        self._values = 0
        self.form = ""

    def sequence(self, entries: list[Any]) -> list[Any]:
        self._count(len(entries))
        return entries

    def mapping(self, pairs: list[tuple[Any, Any]]) -> Any:
        self._count(len(pairs))
        found = dict(pairs)
        made: Array | bytes | None = array_of(found)
        if made is None:
            made = image_of(found)
        if made is None:
            return found
        self.form = self.form or _form(found)
        return made

    def _count(self, number: int) -> None:
        self._values += number + 1
        if self._values > MOST_VALUES:
            raise TooLargeError(f"the message must hold at most {MOST_VALUES} values, lists and maps")


def _form(tagged: Mapping[Any, Any]) -> str:
    if b"__ndarray__" in tagged or b"__npgeneric__" in tagged:
        return OPENPI
    if "__ndarray_class__" in tagged or b"__ndarray_class__" in tagged:
        return NPY
    return VLA_EVAL if {"__ndarray__", "__npgeneric__", "__image__"} & set(tagged) else MSGPACK_NUMPY


def _refuse_extension(code: int, _: bytes) -> Any:
    raise BodyError(
        f"the message holds a msgpack extension (type {code}), which this server does not read", MALFORMED
    )


def _why(error: Exception) -> str:
    kind = type(error).__name__
    known = {
        "StackError": "lists and maps are too deep in each other",
        "ExtraData": "bytes follow its end",
        "FormatError": "it begins with no msgpack type",
        "UnicodeDecodeError": "a text is not UTF-8",
    }
    return known.get(kind) or str(error) or kind


def _openpi(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    array = _array(value)
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def _vla_eval(value: Any) -> dict[str, Any]:
    array = _array(value)
    return {
        "__ndarray__": True,
        "data": array.tobytes(),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
    }


def _msgpack_numpy(value: Any) -> dict[bytes, Any]:
    array = _array(value)
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": array.shape,
        b"data": array.tobytes(),
    }


def _npy(value: Any) -> dict[str, Any]:
    return {"__ndarray_class__": True, "as_npy": npy.written(_array(value))}


def _array(value: Any) -> Array:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} is no msgpack")
    return np.asarray(value)


_TAGGED: Mapping[str, Callable[[Any], Mapping[Any, Any]]] = {
    OPENPI: _openpi,
    VLA_EVAL: _vla_eval,
    MSGPACK_NUMPY: _msgpack_numpy,
    NPY: _npy,
}
