# SPDX-License-Identifier: Apache-2.0
"""Files in NumPy's .npy format inside messages, as Isaac-GR00T sends arrays.

The header is matched against the few words that it may hold instead of being evaluated, so that nothing in it is run, and
what NumPy would unpickle has no way in. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {1: 2, 2: 4, 3: 4}  # of the header's own length, by major version
MOST_HEADER_BYTES = 1024  # NumPy writes 118 for an array of up to four axes

_HEADER = re.compile(
    rb"\{ ?['\"]descr['\"] ?: ?['\"]([^'\"]{1,16})['\"], ?"
    rb"['\"]fortran_order['\"] ?: ?(True|False), ?"
    rb"['\"]shape['\"] ?: ?\(([0-9, ]{0,200})\),? ?\} *\n?"
)
_AXES = re.compile(r"(?:[0-9]{1,19}(?:, ?[0-9]{1,19})*(?:, ?)?)?")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its array. by_columns: the first axis runs fastest. size: bytes before the values."""

    dtype: str
    shape: tuple[int, ...]
    by_columns: bool
    size: int


def read_header(data: bytes) -> Header:
    """Return the header of a file. Raises ValueError; whether dtype and shape fit the bytes is for the caller to check."""
    major = data[len(MAGIC)] if len(data) > len(MAGIC) else 0
    if not data.startswith(MAGIC) or major not in LENGTH_BYTES:
        raise ValueError("it begins with no version of the format")
    start = len(MAGIC) + 2 + LENGTH_BYTES[major]
    length = int.from_bytes(data[len(MAGIC) + 2 : start], "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"its header must have at most {MOST_HEADER_BYTES} bytes, got {length}")
    found = _HEADER.fullmatch(data[start : start + length])
    axes = found[3].decode("ascii").strip() if found is not None else ""
    if found is None or start + length > len(data) or not _AXES.fullmatch(axes):
        raise ValueError("its header must give one dtype of numbers, fortran_order and shape")
    shape = tuple(int(axis) for axis in axes.split(",") if axis.strip())
    return Header(found[1].decode("ascii", "replace"), shape, found[2] == b"True", start + length)


def written(array: NDArray[Any]) -> bytes:
    """Return the file of an array of numbers."""
    held = io.BytesIO()
    np.save(held, array, allow_pickle=False)
    return held.getvalue()
