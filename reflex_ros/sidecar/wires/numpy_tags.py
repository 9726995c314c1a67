# SPDX-License-Identifier: Apache-2.0
"""NumPy arrays inside JSON and msgpack, as the field tags them. Nothing of a tag is believed before it is checked.

An array is a map with its raw bytes in C order, its dtype as `numpy.dtype.str` has it, and its shape:
json_numpy `__numpy__` (base64), forks of it `__ndarray__` (base64) and `__numpy_array__` + `data` (base64); openpi-client and
vla-eval `__ndarray__` + `data`, a scalar `__npgeneric__` + `data`; the package msgpack-numpy `nd` + `type`, `kind`, `data`;
Isaac-GR00T `__ndarray_class__` + `as_npy`, a whole .npy file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ObservationError
from reflex_core.text.base64_bytes import decoded, encoded
from reflex_core.text.untrusted import shown
from reflex_ros.sidecar.wires import npy

KINDS = "biuf"  # truth values and numbers; none that NumPy reads with pickle, and no texts
MOST_AXES = 8
MOST_DEPTH = 16  # of lists and maps in each other
BAD_ARRAY = "bad-array"

Array = NDArray[Any]


def array_of(tagged: Mapping[Any, Any]) -> Array | None:
    """Return the array or scalar of a map with one of the known tags, None for any other map.

    The array is a read-only view of the map's bytes. Keys may be str or bytes. Raises ObservationError.
    """
    if len(tagged) > 5 or not tagged:  # a tag has two to five entries
        return None
    fields = {_text(key): value for key, value in tagged.items()}
    for tag in ("__numpy__", "__ndarray__"):
        if isinstance(fields.get(tag), str):
            return array_from(_decoded(fields[tag]), fields.get("dtype"), fields.get("shape"))
    if fields.get("__ndarray__") is True or fields.get("__numpy_array__") is True:
        return array_from(_decoded(fields.get("data")), fields.get("dtype"), fields.get("shape"))
    if fields.get("__npgeneric__") is True:
        return _scalar(fields.get("data"), fields.get("dtype"))
    if isinstance(fields.get("nd"), bool) and "type" in fields:
        return _of_msgpack_numpy(fields)
    if fields.get("__ndarray_class__") is True:
        return _of_npy(fields.get("as_npy"))
    return None


def image_of(tagged: Mapping[Any, Any]) -> Array | bytes | None:
    """Return the image of a map as vla-eval tags it, a file's bytes or an array; None for any other map. Raises ObservationError."""
    if tagged.get("__image__") is not True:
        return None
    data = tagged.get("data")
    if tagged.get("format") == "raw":
        return array_from(data, tagged.get("dtype"), tagged.get("shape"))
    if not isinstance(data, bytes):
        raise ObservationError(f"the bytes of an image must be binary, got {shown(data)}", BAD_ARRAY)
    return data


def array_from(data: object, dtype: object, shape: object) -> Array:
    """Return a read-only array over these bytes. Raises ObservationError unless dtype, shape and size fit each other."""
    made = _dtype(dtype)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ObservationError(f"the bytes of an array must be binary, got {shown(data)}", BAD_ARRAY)
    axes = _shape(shape)
    if math.prod(axes) * made.itemsize != len(data):  # whole numbers of Python: a product never overflows
        raise ObservationError(
            f"an array of {made.str} and shape {shown(list(axes))} has {math.prod(axes) * made.itemsize} bytes, got {len(data)}",
            BAD_ARRAY,
        )
    found = np.frombuffer(data, dtype=made).reshape(axes)
    found.flags.writeable = False
    return found


def tagged_json(array: Array) -> dict[str, Any]:
    """Return an array as json_numpy writes it."""
    whole = np.ascontiguousarray(array)
    return {
        "__numpy__": encoded(whole.tobytes()),
        "dtype": whole.dtype.str,
        "shape": list(array.shape),
    }


def with_arrays(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with arrays in the places of their tags. Raises ObservationError."""
    if isinstance(value, dict):
        array = array_of(value)
        if array is not None:
            return array
    elif not isinstance(value, list):
        return value
    if depth >= MOST_DEPTH:
        raise ObservationError(
            f"lists and objects must be at most {MOST_DEPTH} deep in each other", "bad-body"
        )
    if isinstance(value, dict):
        return {key: with_arrays(item, depth + 1) for key, item in value.items()}
    return [with_arrays(item, depth + 1) if isinstance(item, dict | list) else item for item in value]


def _of_msgpack_numpy(fields: Mapping[str, Any]) -> Array:
    if fields["nd"] is False:
        return _scalar_from_bytes(fields.get("data"), fields["type"])
    kind = fields.get("kind", "")
    if kind not in ("", b""):  # V is a structure, O a pickle
        raise ObservationError(f"an array of kind {shown(kind)} is not read: send numbers", BAD_ARRAY)
    return array_from(fields.get("data"), fields["type"], fields.get("shape"))


def _of_npy(data: object) -> Array:
    """Return the array of a .npy file, whose header says of it what other tags say beside it."""
    if not isinstance(data, bytes):
        raise ObservationError(f"the bytes of a .npy file must be binary, got {shown(data)}", BAD_ARRAY)
    try:
        header = npy.read_header(data)
    except ValueError as error:
        raise ObservationError(f"an array is no .npy file that is read here: {error}", BAD_ARRAY) from error
    values = memoryview(data)[header.size :]
    if header.by_columns:
        return array_from(values, header.dtype, header.shape[::-1]).T
    return array_from(values, header.dtype, header.shape)


def _scalar(value: object, dtype: object) -> Array:
    made = _dtype(dtype)
    if not isinstance(value, bool | int | float):
        raise ObservationError(f"a scalar of {made.str} must be a number, got {shown(value)}", BAD_ARRAY)
    try:
        with np.errstate(over="ignore"):
            return np.array(value, dtype=made)
    except (OverflowError, ValueError) as error:
        raise ObservationError(f"{shown(value)} is no {made.str}", BAD_ARRAY) from error


def _scalar_from_bytes(data: object, dtype: object) -> Array:
    return array_from(data, dtype, [])


def _dtype(name: object) -> np.dtype[Any]:
    text = _text(name)
    try:
        if not isinstance(text, str) or len(text) > 16:
            raise TypeError
        found = np.dtype(text)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ObservationError(
            f"the dtype of an array must be as NumPy writes it, |u1 or <f4, got {shown(name)}", BAD_ARRAY
        ) from error
    if found.kind not in KINDS or found.shape or found.names:
        raise ObservationError(
            f"the dtype of an array must be of truth values, whole numbers or floats, got {shown(name)}",
            BAD_ARRAY,
        )
    return found


def _shape(shape: object) -> tuple[int, ...]:
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > MOST_AXES
        or any(not isinstance(axis, int) or isinstance(axis, bool) or axis < 0 for axis in shape)
    ):
        raise ObservationError(
            f"the shape of an array must be a list of at most {MOST_AXES} whole numbers, got {shown(shape)}",
            BAD_ARRAY,
        )
    return tuple(shape)


def _decoded(data: object) -> object:
    """Return the bytes of base64 text; anything else as it is."""
    if not isinstance(data, str):
        return data
    try:
        return decoded(data)
    except ValueError as error:
        raise ObservationError("the bytes of an array are not base64", BAD_ARRAY) from error


def _text(value: object) -> Any:
    """Return bytes that are text as such: marker keys are bytes in Python's clients and str in others."""
    if not isinstance(value, bytes):
        return value
    return value.decode("ascii", "replace") if len(value) <= 64 else value
