# SPDX-License-Identifier: Apache-2.0
"""Keep the chunks of a PNG that make its pixels, and remove all others before libpng reads the file.

libpng writes to stderr by itself, and repeats the file's text: the name of a colour profile may be any bytes, line
breaks and escape sequences among them. What a checksum shows to be damaged is refused here, with our own message.
"""

from __future__ import annotations

import struct
import zlib

from reflex_core.errors import ObservationError

MAGIC = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 100_000  # writers put 8 KiB or more into one
_END = b"IEND"
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", _END)
_AROUND = 12  # bytes of a chunk besides its data: length, kind, checksum
_ANCILLARY = 0x20  # bit of a kind's first letter: the pixels can be read without it


def pixel_chunks(data: bytes | memoryview) -> bytes | memoryview:
    """Return a PNG with only the chunks that its pixels need; the same bytes where there are no others.

    Raises ObservationError for a file that ends too early, a wrong checksum, or a chunk that is unknown to libpng.
    """
    view = memoryview(data)
    parts: list[bytes | memoryview] = [MAGIC]
    at = len(MAGIC)
    for _ in range(MOST_CHUNKS):
        if len(view) < at + _AROUND:
            raise _damaged("it ends before its last chunk")
        length, kind = struct.unpack_from(">I4s", view, at)
        end = at + _AROUND + length
        if len(view) < end:
            raise _damaged("it ends inside a chunk")
        if kind in _KEPT:
            if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", view, end - 4)[0]:
                raise _damaged("a checksum is wrong")
            parts.append(view[at:end])
        elif not kind[0] & _ANCILLARY:
            raise _damaged("it has a chunk of an unknown kind")
        at = end
        if kind == _END:
            whole = sum(map(len, parts)) == len(view)
            return data if whole else b"".join(parts)
    raise _damaged(f"it has more than {MOST_CHUNKS} chunks")


def _damaged(why: str) -> ObservationError:
    return ObservationError(f"the image is a damaged PNG: {why}", "bad-image")
