# SPDX-License-Identifier: Apache-2.0
"""What clients of other servers send, written here by the facts of their wires and not by our codecs."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import msgpack
import numpy as np
from http_client import STATE, picture
from numpy.typing import NDArray

Array = NDArray[Any]


def json_tag(array: Array) -> dict[str, Any]:
    """An array as json_numpy 2.1.1 writes it."""
    data = base64.b64encode(array.tobytes()).decode()
    return {"__numpy__": data, "dtype": array.dtype.str, "shape": list(array.shape)}


def from_json_tag(tagged: dict[str, Any]) -> Array:
    return np.frombuffer(base64.b64decode(tagged["__numpy__"]), tagged["dtype"]).reshape(tagged["shape"])


def openpi_tag(value: Any) -> Any:
    """An array or scalar as openpi-client 0.1.2 writes it, for msgpack's `default`."""
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    assert isinstance(value, np.generic)
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def msgpack_numpy_tag(value: Any) -> Any:
    """An array as the package msgpack-numpy writes it."""
    return {
        b"nd": True,
        b"type": value.dtype.str,
        b"kind": b"",
        b"shape": value.shape,
        b"data": value.tobytes(),
    }


def vla_eval_tag(value: Any) -> Any:
    """An array as vla-eval 0.8.0 writes it."""
    return {
        "__ndarray__": True,
        "data": value.tobytes(),
        "dtype": value.dtype.str,
        "shape": list(value.shape),
    }


def npy_tag(value: Any) -> Any:
    """An array as Isaac-GR00T writes it: a whole .npy file."""
    held = io.BytesIO()
    np.save(held, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": held.getvalue()}


def packed(value: Any, tag: Any = openpi_tag) -> bytes:
    data: bytes = msgpack.packb(value, default=tag, use_bin_type=True)
    return data


def unpacked(data: bytes) -> Any:
    """A reply, its arrays as arrays."""

    def array(found: dict[Any, Any]) -> Any:
        if "__ndarray_class__" in found:
            return np.load(io.BytesIO(found["as_npy"]), allow_pickle=False)
        for mark, dtype, entry in (
            (b"__ndarray__", b"dtype", b"data"),
            (b"nd", b"type", b"data"),
            ("__ndarray__", "dtype", "data"),
        ):
            if mark in found:
                shape = found["shape" if entry == "data" else b"shape"]
                return np.frombuffer(found[entry], found[dtype]).reshape(shape)
        return found

    return msgpack.unpackb(data, object_hook=array)


def libero(**changes: Any) -> dict[Any, Any]:
    """An observation as the client of openpi's LIBERO example sends it, with the state of the seven-joint exports."""
    return {
        "observation/image": picture(),
        "observation/wrist_image": picture(),
        "observation/state": np.array(STATE),
        "prompt": "reach the red cube",
    } | changes


def in_json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()
