# SPDX-License-Identifier: Apache-2.0
"""Arrays in files that people hand over: plain ones are read, everything else is refused in one sentence."""

from __future__ import annotations

import io
import os
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reflex_core.files.arrays import ArrayError, read_array, read_arrays

Files = list[tuple[str, bytes]]


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def claiming(shape: str) -> bytes:
    """The begin of an .npy file of float32 with this shape, and nothing behind it."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(path: Path, files: Files, way: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", way) as written:
        for name, data in files:
            written.writestr(name, data)
    return path


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    wanted = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "n": np.int64(3),
        "text": np.str_("reach"),
        "on": np.True_,
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "found.npz", **wanted)
        found = read_arrays(tmp_path / "found.npz")
        assert list(found) == list(wanted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    np.save(tmp_path / "one.npy", wanted["a"])
    np.testing.assert_array_equal(read_array(tmp_path / "one.npy"), wanted["a"])


NO_PLAIN_ARRAY: dict[str, bytes] = {
    "objects": npy(np.array([{}], object)),
    "complex numbers": npy(np.zeros(3, np.complex64)),
    "days": npy(np.array(["2026-11-29"], "M8[D]")),
    "columns": npy(np.zeros(2, [("x", "f4")])),
    "terabytes that are not there": claiming("(1000000000000,)"),
    "gigabytes that are not there": claiming("(2000000000,)"),
    "fewer than none": claiming("(-5,)"),
    "a header of brackets": claiming("(" * 4000 + ")" * 4000),
    "half a header": npy(np.zeros(3))[:20],
    "half its numbers": npy(np.zeros(300))[:-20],
    "nothing": b"",
    "a text": b"hello",
}


@pytest.mark.parametrize("name", list(NO_PLAIN_ARRAY))
def test_what_is_no_plain_array_is_refused_alone_and_among_others(tmp_path: Path, name: str) -> None:
    (tmp_path / "one.npy").write_bytes(NO_PLAIN_ARRAY[name])
    for read in (
        lambda: read_array(tmp_path / "one.npy"),
        lambda: read_arrays(archive(tmp_path / "a.npz", [("a.npy", NO_PLAIN_ARRAY[name])])),
    ):
        with pytest.raises(ArrayError) as caught:
            read()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200


ZEROS = npy(np.zeros(3))
NO_ARCHIVE: dict[str, tuple[Callable[[Path], object], str]] = {
    "one name twice": (lambda path: archive(path, [("a.npy", ZEROS), ("a.npy", npy(np.ones(3)))]), "the array 'a' twice"),
    "other files": (lambda path: archive(path, [("a.npy", ZEROS), ("x\n[ERROR] fake", b"")]), "'x.n.ERROR. fake', which is no"),
    "another packing": (lambda path: archive(path, [("a.npy", ZEROS)], zipfile.ZIP_LZMA), "that numpy does not write"),
    "a wrong checksum": (lambda path: path.write_bytes(archive(path, [("a.npy", ZEROS)], 0).read_bytes().replace(
        b"<f8", b"<f4")), "plain arrays, got something else"),
    "one array": (lambda path: path.write_bytes(ZEROS), "got one array"),
    "no archive": (lambda path: path.write_bytes(b"PK"), "got something else"),
    "a pipe": (lambda path: os.mkfifo(path), "must be a regular file, it is a FIFO"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", list(NO_ARCHIVE))
def test_what_is_no_archive_of_arrays_is_refused(tmp_path: Path, name: str) -> None:
    make, says = NO_ARCHIVE[name]
    make(tmp_path / "found.npz")
    with pytest.raises(ArrayError, match=says):
        read_arrays(tmp_path / "found.npz")


def test_kilobytes_that_unpack_to_gigabytes_are_refused_before_they_do(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    block = bytes(1 << 20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as written,
        written.open("a.npy", "w") as stream,
    ):
        stream.write(claiming(f"({64 << 18},)"))
        for _ in range(64):
            stream.write(block)
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArrayError, match="unpacks to 671.*, at most 1048576 are accepted"):
        read_arrays(path, most_bytes=1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # kB
    assert len(read_arrays(path)["a"]) == 64 << 18


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    for read in (read_array, read_arrays):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nowhere")
