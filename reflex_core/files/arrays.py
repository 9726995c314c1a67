# SPDX-License-Identifier: Apache-2.0
"""The one reader of .npy and .npz files that people hand over: plain numbers and texts, and no more of them than is meant.

numpy's own reader takes the last of two arrays of one name, unpacks what a few kilobytes promise to be gigabytes, and drops the
imaginary part of what is then made real.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from reflex_core.files.regular_file import unreadable
from reflex_core.text.untrusted import escaped

MOST_BYTES = 1 << 30
PLAIN_KINDS = "biufU"  # of numpy's dtypes: truth values, whole numbers, floats, texts
_WAYS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
)  # of packing: those of `np.savez` and `np.savez_compressed`
# what numpy, zipfile and zlib raise on bytes that are not theirs; the parser of headers runs out of stack or memory
_DAMAGED = (
    ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError,
    SyntaxError, OverflowError,
)  # fmt: skip


class ArrayError(ValueError):
    """A file without the expected content; the message names no file, the caller does."""


def read_arrays(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, NDArray[Any]]:
    """Return every array of an .npz file by name. Raises OSError, or ArrayError.

    most_bytes: of all of them together, unpacked.
    """
    _require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive.infolist(), most_bytes)
            return {_name(member): _read_member(archive, member) for member in archive.infolist()}
    except ArrayError:
        raise
    except _DAMAGED as error:
        what = "got one array (.npy)" if _is_one_array(path) else "got something else"
        raise ArrayError(f"expected an .npz file with plain arrays, {what}") from error


def read_array(path: Path) -> NDArray[Any]:
    """Return the array of an .npy file. Raises OSError, or ArrayError."""
    _require_regular(path)
    try:
        with path.open("rb") as stream:
            return _read(stream)
    except ArrayError:
        raise
    except _DAMAGED as error:
        raise ArrayError("not readable as a numpy array of plain numbers") from error


def _is_one_array(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX


def _require_regular(path: Path) -> None:
    why = unreadable(path)
    if why and why != "not there":
        raise ArrayError(f"must be a regular file, it is {why}")


def _check(members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    """Raise ArrayError for what is no set of arrays, before anything is unpacked, by the archive's own directory."""
    seen: set[str] = set()
    for member in members:
        name = _name(member)
        if not member.filename.endswith(".npy"):
            raise ArrayError(f"holds '{escaped(member.filename)}', which is no array")
        if name in seen:
            raise ArrayError(f"holds the array '{escaped(name)}' twice")
        if member.compress_type not in _WAYS:
            raise ArrayError(f"holds '{escaped(name)}' packed in a way that numpy does not write")
        seen.add(name)
    size = sum(member.file_size for member in members)  # zipfile unpacks no more than this of each
    if size > most_bytes:
        raise ArrayError(f"unpacks to {size} bytes, at most {most_bytes} are accepted")


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        return _read(stream)


def _read(stream: IO[bytes]) -> NDArray[Any]:
    array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    if array.dtype.kind not in PLAIN_KINDS:
        raise ArrayError(
            f"holds values of the kind {escaped(str(array.dtype), 40)}, where plain numbers are expected"
        )
    return array
