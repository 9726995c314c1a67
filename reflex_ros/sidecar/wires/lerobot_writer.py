# SPDX-License-Identifier: Apache-2.0
"""Write `list[TimedAction]` as LeRobot's policy server pickles it (protocol 4): no torch, no LeRobot, no pickle.

Its clients want torch tensors. Each row is one with a storage of its own, in the old format of torch.save inside the pickle:
readers that know only what that server emits (Trossen's SDK) read it, too. They do not know SHORT_BINBYTES.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from reflex_core.values import Floats

HELPERS = "lerobot.async_inference.helpers"
MOST_TIMESTEP = 2**31 - 1
BATCH = 1000  # items that one APPENDS takes, as pickle writes them

# torch.save before 1.6: a magic number, the version of the format, and the sizes of C's integers, each a pickle of its own
MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80\x02M\xe9\x03."
STORAGE_KEY = "0"


def timed_actions(rows: Floats, first_timestep: int, timestamp: float, period_s: float) -> bytes:
    """Return the pickle of (n, action_dim) rows.

    first_timestep: of the first row; the others follow by one. timestamp: of the first row, on the client's clock in s.
    period_s: from one row to the next.
    """
    writer = _Writer()
    writer.code(b"]").remember()
    for begin in range(0, len(rows), BATCH):
        writer.code(b"(")
        for number, row in enumerate(rows[begin : begin + BATCH], begin):
            _timed_action(writer, row, first_timestep + number, timestamp + number * period_s)
        writer.code(b"e")
    body = bytes(writer.code(b".").made)
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


class _Writer:
    """Bytes so far, and what the reader will remember by number."""

    def __init__(self) -> None:
        self.made = bytearray()
        self._remembered: dict[object, int] = {}
        self._count = 0

    def code(self, codes: bytes) -> _Writer:
        self.made += codes
        return self

    def remember(self, what: object = None) -> _Writer:
        """MEMOIZE. what: a text or name that comes again."""
        if what is not None:
            self._remembered[what] = self._count
        self._count += 1
        return self.code(b"\x94")

    def recall(self, what: object) -> bool:
        """Write what was written before by its number; False where it was not."""
        number = self._remembered.get(what)
        if number is None:
            return False
        self.code(b"h" + bytes([number]) if number < 256 else b"j" + struct.pack("<I", number))
        return True

    def text(self, text: str) -> _Writer:
        if self.recall(text):
            return self
        data = text.encode()
        return self.code(b"\x8c" + bytes([len(data)]) + data).remember(text)

    def name(self, module: str, name: str) -> _Writer:
        """Name what the reader imports."""
        if self.recall((module, name)):
            return self
        return self.text(module).text(name).code(b"\x93").remember((module, name))

    def integer(self, number: int) -> _Writer:
        if number < 256:
            return self.code(b"K" + bytes([number]))
        return self.code(b"M" + struct.pack("<H", number) if number < 65536 else b"J" + struct.pack("<i", number))  # fmt: skip

    def float(self, number: float) -> _Writer:
        return self.code(b"G" + struct.pack(">d", number))


def _timed_action(writer: _Writer, row: Floats, timestep: int, timestamp: float) -> None:
    writer.name(HELPERS, "TimedAction").code(b")\x81").remember().code(b"}").remember().code(b"(")
    writer.text("timestamp").float(timestamp)
    writer.text("timestep").integer(timestep)
    writer.text("action")
    _tensor(writer, row)
    writer.code(b"ub")


def _tensor(writer: _Writer, row: Floats) -> None:
    """Write `_rebuild_tensor_v2(storage, 0, (n,), (1,), False, OrderedDict())`."""
    blob = storage(row)
    writer.name("torch._utils", "_rebuild_tensor_v2").code(b"(")
    writer.name("torch.storage", "_load_from_bytes")
    writer.code(b"B" + struct.pack("<I", len(blob)) + blob).remember()
    writer.code(b"\x85").remember().code(b"R").remember()
    writer.integer(0)
    for number in (len(row), 1):  # shape and stride
        writer.integer(number).code(b"\x85").remember()
    writer.code(b"\x89").name("collections", "OrderedDict").code(b")R").remember()
    writer.code(b"t").remember().code(b"R").remember()


def storage(row: Floats) -> bytes:
    """Return a FloatStorage of these numbers as torch.save writes it without a zip file."""
    count, key = len(row), _text(STORAGE_KEY)
    held = b"".join(
        (
            b"\x80\x02(", _text("storage"), b"q\x00ctorch\nFloatStorage\nq\x01", key, b"q\x02", _text("cpu"), b"q\x03",
            _whole(count), b"Ntq\x04Q.",
        )
    )  # fmt: skip
    keys = b"\x80\x02]q\x00" + key + b"q\x01a."
    numbers = np.ascontiguousarray(row, dtype="<f4").tobytes()
    return MAGIC + SYSTEM + held + keys + struct.pack("<q", count) + numbers


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _whole(number: int) -> bytes:
    if number < 256:
        return b"K" + bytes([number])
    return b"M" + struct.pack("<H", number) if number < 65536 else b"J" + struct.pack("<i", number)


def _system() -> Iterator[bytes]:
    """Yield what torch.save says of the machine: the format's version, the order of bytes, sizes of C's integers."""
    yield b"\x80\x02}q\x00("
    yield _text("protocol_version") + b"q\x01M\xe9\x03"
    yield _text("little_endian") + b"q\x02\x88"
    yield _text("type_sizes") + b"q\x03}q\x04("
    for number, (name, size) in enumerate((("short", 2), ("int", 4), ("long", 4)), 5):
        yield _text(name) + b"q" + bytes([number]) + _whole(size)
    yield b"uu."


SYSTEM = b"".join(_system())
