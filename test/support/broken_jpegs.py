# SPDX-License-Identifier: Apache-2.0
"""JPEG files with the faults of webcams that can be mended exactly."""

from __future__ import annotations

import simplejpeg
from webcams import (
    progressive,
    put_together,
    restarting,
    scene,
    taken_apart,
)

PICTURE = scene()
WHOLE = restarting(PICTURE)
HEAD, PARTS = taken_apart(WHOLE)
PLAIN = bytes(simplejpeg.encode_jpeg(PICTURE, quality=85))
MANY = range(len(PARTS) - 1)


def after(indices: range | list[int], surplus: bytes) -> list[bytes]:
    """The intervals, some with surplus bytes before their restart marker."""
    return [part + surplus if index in indices else part for index, part in enumerate(PARTS)]


def merged(*indices: int) -> list[bytes]:
    """The intervals without the restart marker behind some of them."""
    parts = [PARTS[0]]
    for index, part in enumerate(PARTS[1:]):
        if index in indices:
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def renumbered(markers: list[int]) -> bytes:
    marked = [HEAD, PARTS[0]]
    for marker, part in zip(markers, PARTS[1:], strict=True):
        marked += [bytes((0xFF, marker)), part]
    return b"".join([*marked, b"\xff\xd9"])


def edited(jpeg: bytes, at: int, *values: int) -> bytes:
    return jpeg[:at] + bytes(values) + jpeg[at + len(values) :]


RIGHT_ORDER = [0xD0 + index % 8 for index in MANY]
SOS_ENDS = len(HEAD) - 3
MENDED: dict[str, bytes] = {
    "a zero before a restart marker": put_together(HEAD, after([3], b"\0")),
    "zeros before a restart marker": put_together(HEAD, after([3], bytes(20))),
    "a zero before every restart marker": put_together(HEAD, after(MANY, b"\0")),
    "zeros before every restart marker": put_together(HEAD, after(MANY, bytes(12))),
    "rubbish before a restart marker": put_together(HEAD, after([3], b"\x12\x34" * 6)),
    "rubbish before every restart marker": put_together(HEAD, after(MANY, b"\x12\x34" * 6)),
    "zeros before the end": WHOLE[:-2] + bytes(30) + WHOLE[-2:],
    "a restart marker missing": put_together(HEAD, merged(5)),
    "three restart markers missing": put_together(HEAD, merged(2, 5, 6)),
    "the last restart marker missing": put_together(HEAD, merged(len(PARTS) - 2)),
    "a restart marker with a wrong number": renumbered([*RIGHT_ORDER[:4], 0xD1, *RIGHT_ORDER[5:]]),
    "restart markers that do not count": renumbered([0xD0] * len(MANY)),
    "restart markers that count from 1": renumbered([0xD0 + (index + 1) % 8 for index in MANY]),
    "a restart marker twice": put_together(HEAD, [*PARTS[:3], b"", *PARTS[3:]]),
    "a restart marker where there are none": PLAIN[:2000] + b"\xff\xd0" + PLAIN[2000:],
    "no end": WHOLE[:-2],
    "half an end": WHOLE[:-1],
    "no end and zeros": WHOLE[:-2] + bytes(64),
    "no end without restarts": PLAIN[:-2],
    "no end, progressive": progressive(PICTURE)[:-2],
    "a scan header without coefficients": edited(WHOLE, SOS_ENDS, 0, 0, 0),
    "a version of JFIF that never was": edited(WHOLE, WHOLE.index(b"JFIF") + 5, 9),
}
