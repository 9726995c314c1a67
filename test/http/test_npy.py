# SPDX-License-Identifier: Apache-2.0
"""Arrays as whole .npy files: read without evaluating anything, nothing of a header is believed."""

from __future__ import annotations

import io
import pickle
import struct
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from wires import npy_tag, packed, unpacked

from reflex_core.errors import ObservationError
from reflex_ros.sidecar.wires import npy
from reflex_ros.sidecar.wires.msgpack_codec import NPY, pack, unpack
from reflex_ros.sidecar.wires.numpy_tags import array_of

ROWS = np.arange(6, dtype="<f4").reshape(2, 3)
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


def file_of(
    header: str | bytes = HEADER, data: bytes = ROWS.tobytes(), version: int = 1, **say: int
) -> bytes:
    """A .npy file with any header; length: what it says of that."""
    text = header if isinstance(header, bytes) else header.encode()
    length = say.get("length", len(text))
    size = struct.pack("<H", length & 0xFFFF) if version == 1 else struct.pack("<I", length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def read(file: object) -> Any:
    return array_of({"__ndarray_class__": True, "as_npy": file})


def pickled() -> bytes:
    """A file that NumPy unpickles when it is let."""
    held = io.BytesIO()
    np.save(held, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return held.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        ROWS,
        np.asfortranarray(ROWS),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.arange(6, dtype=">i8"),
        np.array(3.5),
        np.zeros((0, 7), np.float32),
        np.zeros((1, 1, 4, 4, 3), np.uint8),
        np.array([True, False]),
    ],
)
def test_files_of_numpy_are_read_as_numpy_reads_them(array: Any) -> None:
    found = unpack(packed({"a": array}, npy_tag))
    assert found.form == NPY
    assert (found.value["a"].dtype, found.value["a"].shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found.value["a"], array)
    np.testing.assert_array_equal(unpacked(pack({"a": array}, NPY))["a"], array)


def test_an_array_is_a_read_only_view() -> None:
    big = packed({"a": np.zeros((1, 1, 1000, 1000, 3), np.uint8)}, npy_tag)
    tracemalloc.start()
    found = unpack(big).value["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not found.flags.writeable
    assert peak < 1.5 * len(big)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,3,), }",  # of C++ writers
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + " " * 57 + "\n",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_other_writers_and_versions_are_read(header: str, version: int) -> None:
    np.testing.assert_array_equal(read(file_of(header, version=version)), ROWS)


def shaped(shape: str) -> bytes:
    return file_of(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")


def typed(descr: str) -> bytes:
    return file_of(f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2, 3), }}")


LIES: dict[str, object] = {
    "pickle in a file": pickled(),
    "pickle instead of a file": pickle.dumps([1, 2]),
    "object": typed("'|O'"),
    "structure": typed("[('a', '<f4'), ('b', '|O')]"),
    "text": typed("'<U4'"),
    "void": typed("'|V8'"),
    "date": typed("'<M8[s]'"),
    "complex": typed("'<c8'"),
    "nonsense": typed("'no such'"),
    "code as dtype": typed("__import__('os').system('false')"),
    "code as shape": shaped("(__import__('os').getpid(),)"),
    "arithmetic as shape": shaped("(9**9**9**9,)"),
    "power as shape": shaped("(2**3,)"),
    "2^31": shaped("(2147483648, 3)"),
    "product wraps to 6": shaped("(9223372036854775808, 2, 6)"),
    "many digits": shaped(f"({'9' * 150},)"),
    "below zero": shaped("(-2, -3)"),
    "floats": shaped("(2.0, 3.0)"),
    "many axes": shaped("(1, 1, 1, 1, 1, 1, 1, 1, 6)"),
    "too many values": shaped("(2, 4)"),
    "too few values": shaped("(2, 2)"),
    "no comma": shaped("(2 3)"),
    "number alone": shaped("6"),
    "no shape": file_of("{'descr': '<f4', 'fortran_order': False, }"),
    "twice": file_of(HEADER + HEADER),
    "empty header": file_of(""),
    "not ASCII": file_of(HEADER.encode() + b"\xff"),
    "header longer than the file": file_of(length=900, data=b""),
    "header of 64 KiB": file_of(HEADER + " " * 65_000),
    "header that says 4 GiB": file_of(version=2, length=2**32 - 1),
    "nested parentheses": file_of("(" * 1000),
    "version 9": file_of(version=9),
    "magic alone": b"\x93NUMPY",
    "zip": b"PK\x03\x04" + bytes(60),
    "nothing": b"",
    "text as bytes": "file",
    "number": 7,
    "none": None,
}


@pytest.mark.parametrize("file", LIES.values(), ids=LIES)
def test_what_is_no_file_of_numbers_is_refused_in_one_sentence(file: object) -> None:
    with pytest.raises(ObservationError, match=r"^[^\n]{10,300}$") as refused:
        read(file)
    assert refused.value.slug == "bad-array"


def test_a_header_is_refused_at_once_and_without_memory() -> None:
    """Whatever stands in it, it costs no more than looking at it."""
    bombs = ["(" * 1000, "{'descr': '" + "a" * 900, "1," * 500, " " * 1000, "{'shape': (" + "1, " * 300]
    tracemalloc.start()
    began_s = time.monotonic()
    for bomb in bombs * 100:
        with pytest.raises(ValueError, match="header"):
            npy.read_header(file_of(bomb))
    took_s, peak = time.monotonic() - began_s, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took_s < 5.0
    assert peak < 1 << 20
