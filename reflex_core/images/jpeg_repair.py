# SPDX-License-Identifier: Apache-2.0
"""Repair JPEGs of USB webcams: nothing is missing, but there are surplus bytes.

libjpeg warns and goes on, and then it is unknown whether the image is complete. So the bytes are repaired instead and
decoded strictly: the result is exactly what the camera saw, or it is refused. Repaired are surplus bytes before a
marker, restart markers that are missing or out of order, a missing end, and headers with meaningless numbers
(ITU-T T.81, B.2). Data that ends too early cannot be repaired.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg

from reflex_core.errors import ObservationError
from reflex_core.metrics.counters import pictures_mended
from reflex_core.text.rate_limit import RateLimit
from reflex_core.text.untrusted import escaped
from reflex_core.values import Pixels

MOST_PIXELS_TRIED = 20_000_000  # decoded while mending one picture; large ones get fewer attempts
LEAST_ATTEMPTS, MOST_ATTEMPTS = 4, 64

SOI, EOI, SOS, DRI, APP14, COM = 0xD8, 0xD9, 0xDA, 0xDD, 0xEE, 0xFE
SEQUENTIAL = (0xC0, 0xC1)
FRAMES = (*SEQUENTIAL, 0xC2)
RESTARTS = range(0xD0, 0xD8)

_EXTRANEOUS = re.compile(r"(\d{1,9}) extraneous bytes before marker 0x([0-9a-f]{2})")

_log_line = RateLimit()
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a JPEG with one scan. head: up to the entropy-coded data. intervals: the data between restarts.

    expected: how many intervals the image must have. pixels: of the image.
    """

    head: bytes
    intervals: tuple[bytes, ...]
    expected: int
    pixels: int


def decode_mended(data: bytes, complaint: str, colorspace: str = "RGB") -> Pixels:
    """Return the pixels of a JPEG that does not decode strictly. Raises ObservationError where it cannot be repaired.

    complaint: libjpeg's message about it.
    """
    layout = _taken_apart(data)
    pixels = _mended(layout, colorspace) if layout is not None else _strictly(_ended(data), colorspace)[0]
    if pixels is None:
        raise ObservationError(f"the image is a damaged JPEG: {escaped(complaint, 120)}", "bad-image")
    pictures_mended.add()
    times = _log_line.times()
    if times:
        log.warning(
            "%d malformed JPEG images were repaired, the last: %s",
            times,
            escaped(complaint, 120),
        )
    return pixels


def _strictly(data: bytes, colorspace: str) -> tuple[Pixels | None, str]:
    try:
        return simplejpeg.decode_jpeg(data, colorspace=colorspace), ""
    except ValueError as error:
        return None, str(error)


def _ended(data: bytes) -> bytes:
    """Append a missing end marker; a file that lacks only that is whole, any other still does not decode."""
    return data.removesuffix(b"\xff") + bytes((0xFF, EOI))


def _mended(layout: Layout, colorspace: str) -> Pixels | None:
    """Return the pixels as soon as the bytes decode strictly and no interval is missing; None when no repair helps."""
    attempts = max(LEAST_ATTEMPTS, min(MOST_ATTEMPTS, MOST_PIXELS_TRIED // max(layout.pixels, 1)))
    # surplus zeros are what webcams send most, before every marker; one of them may belong to the data
    starts = [layout.intervals, *(tuple(_trimmed(i, keep) for i in layout.intervals) for keep in (1, 0))]
    complaints = []
    for intervals in starts:
        pixels, complaint = _strictly(_joined(layout.head, intervals), colorspace)
        if pixels is not None and len(intervals) == layout.expected:
            return pixels
        complaints.append(complaint)
    start = 1 if _EXTRANEOUS.search(complaints[1]) else 0
    return _corrected(layout, starts[start], complaints[start], attempts, colorspace)


def _corrected(
    layout: Layout, intervals: tuple[bytes, ...], complaint: str, attempts: int, colorspace: str
) -> Pixels | None:
    """Correct one interval after the other, from the first that libjpeg complains of on."""
    begin = 0
    while found := _EXTRANEOUS.search(complaint):
        for index, candidate in _corrections(
            intervals, layout.expected, begin, int(found[1]), int(found[2], 16)
        ):
            if attempts <= 0:
                return None
            attempts -= 1
            pixels, now = _strictly(_joined(layout.head, candidate), colorspace)
            if pixels is not None and len(candidate) == layout.expected:
                return pixels
            if now != complaint and _EXTRANEOUS.search(now):
                intervals, complaint, begin = candidate, now, index
                break
        else:
            return None
    return None


def _corrections(
    intervals: Sequence[bytes], expected: int, begin: int, surplus: int, marker: int
) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Yield the intervals without the surplus bytes before a marker, or, where one is missing, split to make one.

    libjpeg names the marker and not the place: every interval from `begin` on that ends with it is tried.
    """
    for index in range(begin, len(intervals)):
        interval = intervals[index]
        ends_with = EOI if index == len(intervals) - 1 else RESTARTS[index % 8]
        if marker != ends_with or not 0 < surplus <= len(interval):
            continue
        kept, rest = interval[:-surplus], interval[-surplus:]
        changed = (kept, rest) if len(intervals) < expected else (kept,)
        yield index, (*intervals[:index], *changed, *intervals[index + 1 :])


def _trimmed(interval: bytes, keep: int) -> bytes:
    """Remove the zeros at its end but `keep`; a zero after 0xff belongs to it."""
    bare = interval.rstrip(b"\0")
    zeros = len(interval) - len(bare)
    return bare + bytes(min(zeros, max(keep, int(bare.endswith(b"\xff")))))


def _joined(head: bytes, intervals: Sequence[bytes]) -> bytes:
    parts = [head]
    for index, interval in enumerate(intervals):
        if index:
            parts.append(bytes((0xFF, RESTARTS[(index - 1) % 8])))
        parts.append(interval)
    return b"".join([*parts, bytes((0xFF, EOI))])


def _taken_apart(data: bytes) -> Layout | None:
    """Parse a JPEG; None for one that has several scans or cannot be parsed."""
    head, at = [bytes((0xFF, SOI))], 2
    interval_mcus = mcus = pixels = 0
    sequential = False
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        code, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if code == 0xFF:  # a fill byte
            at += 1
            continue
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            return None
        at += 2 + length
        if code in FRAMES:
            sequential = code in SEQUENTIAL
            mcus, pixels = _mcus(body)
        if code == DRI and len(body) == 2:
            interval_mcus = int.from_bytes(body, "big")
        if code == SOS:
            if not sequential or not mcus or len(body) < 6:
                return None
            head.append(_segment(code, body[:-3] + b"\x00\x3f\x00"))  # sequential: all coefficients, always
            expected = -(-mcus // interval_mcus) if interval_mcus else 1
            intervals = _intervals(data[at:], restarts=bool(interval_mcus))
            if intervals is None:
                return None
            if len(intervals) > expected:  # a marker that is there twice
                intervals = tuple(interval for interval in intervals if interval)
            return Layout(b"".join(head), intervals, expected, pixels)
        if not _means_nothing(code, body):
            head.append(_segment(code, body))
    return None


def _segment(code: int, body: bytes) -> bytes:
    return bytes((0xFF, code)) + (len(body) + 2).to_bytes(2, "big") + body


def _means_nothing(code: int, body: bytes) -> bool:
    """Return True for segments that a decoder can ignore and may complain of: comments and applications, but not Adobe's colours."""
    if code == APP14:
        return not (body.startswith(b"Adobe") and len(body) >= 12 and body[11] <= 2)
    return code == COM or 0xE0 <= code <= 0xEF


def _mcus(frame: bytes) -> tuple[int, int]:
    """Return (smallest coded units in the only scan, pixels) of a frame header; zeros for an invalid one."""
    if len(frame) < 9 or len(frame) != 6 + 3 * frame[5]:
        return 0, 0
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    sampling = frame[7::3]
    across = max(factor >> 4 for factor in sampling) if len(sampling) > 1 else 1
    down = max(factor & 15 for factor in sampling) if len(sampling) > 1 else 1
    if not height or not width or not across or not down:
        return 0, 0
    return -(-width // (8 * across)) * -(-height // (8 * down)), height * width


def _intervals(scan: bytes, *, restarts: bool) -> tuple[bytes, ...] | None:
    """Split the entropy-coded data up to its end at the restart markers. None where other markers are among it."""
    flat = np.frombuffer(scan, dtype=np.uint8)
    at = np.flatnonzero(flat[:-1] == 0xFF)
    codes = flat[at + 1]
    marked = (codes != 0) & (codes != 0xFF)
    parts, begin, end = [], 0, len(scan)
    for position, code in zip(at[marked].tolist(), codes[marked].tolist(), strict=True):
        if code not in RESTARTS:
            if code != EOI:
                return None
            end = position
            break
        parts.append(scan[begin:position])
        begin = position + 2
    parts.append(scan[begin:end].rstrip(b"\xff"))
    return tuple(parts) if restarts else (b"".join(parts),)
