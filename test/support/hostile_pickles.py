# SPDX-License-Identifier: Apache-2.0
"""Pickles that would do harm to who loads them. Each that could run something would leave MARK behind."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lerobot_client import observation

HEAD = b"\x80\x04"


class Called:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _system(mark: Path) -> bytes:
    import os

    return pickle.dumps(Called(os.system, f"touch {mark}"))


def _eval(mark: Path) -> bytes:
    return pickle.dumps(Called(eval, f"open({str(mark)!r}, 'w')"))


def _getattr(mark: Path) -> bytes:
    """getattr(getattr(__import__("os"), "system"), "__call__")(...), by instructions."""
    chain = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(X\x02\x00\x00\x00ostRX\x06\x00\x00\x00systemtR"
    text = f"touch {mark}".encode()
    return HEAD + chain + b"X" + struct.pack("<I", len(text)) + text + b"\x85R."


def _numpy_load(mark: Path) -> bytes:
    evil = mark.with_suffix(".npy")
    np.save(evil, np.array([Called(eval, f"open({str(mark)!r}, 'w')")], dtype=object), allow_pickle=True)
    return HEAD + b"cnumpy\nload\n(" + _text(str(evil)) + b"tR."


def _object_array(mark: Path) -> bytes:
    inner = np.array([Called(eval, f"open({str(mark)!r}, 'w')")], dtype=object)
    return observation([0.0] * 7, image=inner)


def _huge_shape(mark: Path) -> bytes:
    return _array(b"K\x01(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", b"\x43\x08" + bytes(8))


def _array(shape: bytes, data: bytes) -> bytes:
    """An array alone, with the state that it is given."""
    shell = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    dtype = b"cnumpy\ndtype\n(" + _text("u1") + b"\x89\x88tR"
    return HEAD + shell + b"(" + shape + dtype + b"\x89" + data + b"tb."


def _huge_bytearray(mark: Path) -> bytes:
    return b"\x80\x05\x96" + struct.pack("<Q", 2 << 30) + b"x."


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _built(*codes: bytes) -> Callable[[Path], bytes]:
    return lambda _: HEAD + b"".join(codes)


def _subclasses(mark: Path) -> bytes:
    """A name with dots, which protocol 4 follows through attributes."""
    return HEAD + _text("numpy") + _text("dtype.__class__.__subclasses__") + b"\x93)R."


def _lerobot_module(mark: Path) -> bytes:
    return HEAD + b"clerobot.async_inference.helpers\npickle.loads\n(C\x01.tR."


def _state_of_a_class(mark: Path) -> bytes:
    """BUILD on a class of the table."""
    return HEAD + b"clerobot.async_inference.helpers\nTimedObservation\n}" + _text("x") + b"K\x01sb."


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    # measured against LeRobot's own server
    "os.system": _system,
    "eval": _eval,
    "getattr chain": _getattr,
    "numpy.load": _numpy_load,
    "object array": _object_array,
    "shape of 2^62": _huge_shape,
    "bytearray of 2 GB": _huge_bytearray,
    # of our own
    "dotted name": _subclasses,
    "name through a module": _lerobot_module,
    "attributes of a class": _state_of_a_class,
    "memo of 2^31": _built(b"Nr\xff\xff\xff\x7f."),
    "memo of 2^31, got": _built(b"j\xff\xff\xff\x7f."),
    "long of 255 bytes": _built(b"\x8a\xff" + bytes(254) + b"\x01."),
    "long of 2^31 bytes": _built(b"\x8b\xff\xff\xff\x7f."),
    "decimal long": _built(b"L" + b"9" * 100_000 + b"L\n."),
    "nested lists": _built(b"]" * 100_000 + b"a" * 99_999 + b"."),
    "nested tuples": _built(b")" + b"\x85" * 200_000 + b"."),
    "marks": _built(b"(" * 1_000_000),
    "doubling": _built(b"]\x94" + b"h\x00h\x00\x86\x94" * 10_000 + b"."),
    "text of 4 GB": _built(b"X\xff\xff\xff\xff."),
    "text of 2^63": _built(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f."),
    "frame of 2^63": _built(b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN."),
    "persistent id": _built(b"Pos\n."),
    "extension": _built(b"\x82\x01."),
    "new object with keywords": _built(b"cnumpy\ndtype\n)}\x92."),
    "instance": _built(b"(ios\nsystem\n."),
    "object": _built(b"(cnumpy\nndarray\no."),
    "out-of-band buffer": _built(b"\x97."),
    "protocol 2": lambda _: b"\x80\x02}.",
    "protocol 0": lambda _: b"(dp0\n.",
    "empty": lambda _: b"",
    "no end": _built(b"}"),
    "nothing on the stack": _built(b"."),
    "two values": _built(b"NN."),
    "below the mark": _built(b"}(\x85."),
    "no mark": _built(b"}t."),
    "unhashable key": _built(b"}]Ns."),
    "not UTF-8": _built(b"\x8c\x01\xff."),
    "a number": _built(b"K\x01."),
    "an array": lambda _: _array(b"K\x01K\x08\x85", b"C\x08" + bytes(8)),
    "a torch tensor": _built(b"ctorch._utils\n_rebuild_tensor_v2\n)R."),
    "a dtype with fields": _built(
        b"cnumpy\ndtype\n(", _text("V8"), b"\x89\x88tR(K\x03", _text("|"), b"NNNtb."
    ),
}
