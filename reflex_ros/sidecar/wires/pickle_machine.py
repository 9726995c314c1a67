# SPDX-License-Identifier: Apache-2.0
"""A machine that reads pickles without running them: values and containers here, what may be named is its user's.

Sizes are held against the bytes that are there before anything is made of them; instructions, values on the stack, texts and
integers are bounded. Bytes are views of what was sent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from reflex_ros.sidecar.problems import BodyError

MOST_STEPS = 50_000  # an observation of 30 joints and 4 cameras takes about 400
MOST_STACK = 4_096  # a dictionary is filled by 1000 pairs at a time
MOST_TEXT_BYTES = 100_000
MOST_INTEGER_BYTES = 8
PROTOCOLS = (3, 4, 5)


class PickleError(BodyError):
    """Bytes that are no whole pickle, or one that LeRobot's clients never send."""

    slug = "malformed-pickle"


class UnsafePickleError(PickleError):
    """A pickle that asks for what is never done here: to import, to call, to make what no client sends."""

    slug = "unsafe-pickle"


def called(value: object) -> str:
    """Return what a value is, never what it holds: that may be as deep as its sender likes."""
    return str(getattr(value, "kind", type(value).__name__))


class Machine:
    """One reading. `at` is the next byte."""

    def __init__(self, data: memoryview, steps: Mapping[int, Callable[[Machine], None]]) -> None:
        """Begin at the first byte. steps: the instructions that are known, by their code."""
        self.data, self.at, self._steps = data, 0, steps
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        """Return the value on the stack at the end. Raises PickleError and what damaged bytes make of it."""
        for _ in range(MOST_STEPS):
            code = self.data[self.at]
            self.at += 1
            if code == STOP:
                return self._only()
            step = self._steps.get(code)
            if step is None:
                raise UnsafePickleError(
                    f"the pickle has instruction 0x{code:02x}, which LeRobot's clients never send"
                )
            step(self)
            if len(self.stack) > MOST_STACK:
                raise UnsafePickleError(f"the pickle piles up more than {MOST_STACK} values")
        raise UnsafePickleError(f"the pickle has more than {MOST_STEPS} instructions")

    def _only(self) -> object:
        if len(self.stack) != 1 or self.marks:
            raise PickleError("the pickle ends with values left over")
        return self.stack[0]

    def bytes(self, size: int) -> memoryview:
        """Return the next bytes as a view."""
        if size > len(self.data) - self.at:
            raise PickleError(f"the pickle announces {size} bytes and has {len(self.data) - self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, *, signed: bool = False) -> int:
        """Return a little-endian number of so many bytes."""
        return int.from_bytes(self.bytes(size), "little", signed=signed)

    def text(self, size: int) -> str:
        """Return UTF-8."""
        if size > MOST_TEXT_BYTES:
            raise UnsafePickleError(f"a text must have at most {MOST_TEXT_BYTES} bytes, got {size}")
        return str(self.bytes(size), "utf-8")

    def line(self) -> str:
        """Return the rest of a line: names were written so before protocol 4."""
        end = bytes(self.data[self.at : self.at + 256]).find(b"\n")
        if end < 0:
            raise PickleError("the pickle is incomplete or damaged")
        found = self.text(end)
        self.at += 1
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        """Return the value on top, never one below the newest mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleError("the pickle takes more values than it has")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """Return all values above the newest mark, and forget it."""
        begin = self.marks.pop()
        found = self.stack[begin:]
        del self.stack[begin:]
        return found

    def top(self, kind: type) -> Any:
        """Return the value on top, which must be of this kind."""
        value = self.pop()
        self.push(value)
        if not isinstance(value, kind):
            raise PickleError(f"the pickle fills a {called(value)}")
        return value


def _frame(machine: Machine) -> None:
    size = machine.number(8)
    if size > len(machine.data) - machine.at:
        raise PickleError(f"the pickle announces {size} bytes and has {len(machine.data) - machine.at}")


def _protocol(machine: Machine) -> None:
    protocol = machine.number(1)
    if protocol not in PROTOCOLS:
        raise UnsafePickleError(f"the pickle must be of protocol 3 to 5, got {protocol}")


def _integer(machine: Machine) -> None:
    size = machine.number(1)
    if size > MOST_INTEGER_BYTES:
        raise UnsafePickleError(f"an integer must have at most {MOST_INTEGER_BYTES} bytes, got {size}")
    machine.push(machine.number(size, signed=True))


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def make(machine: Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return make


def _put(index: int, machine: Machine) -> None:
    value = machine.pop()
    machine.push(value)
    machine.memo[index] = value


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _appends(machine: Machine) -> None:
    values = machine.since_mark()
    machine.top(list).extend(values)


def _set_items(machine: Machine) -> None:
    _fill(machine, machine.since_mark())


def _set_item(machine: Machine) -> None:
    value = machine.pop()
    _fill(machine, [machine.pop(), value])


def _fill(machine: Machine, values: list[Any]) -> None:
    table, keys = machine.top(dict), values[::2]
    if len(values) % 2 or not all(isinstance(key, str) for key in keys):
        raise PickleError("the keys of a dictionary must be texts")
    table.update(zip(keys, values[1::2], strict=True))


def _mark(machine: Machine) -> None:
    machine.marks.append(len(machine.stack))


def _constant(make: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(make())


def _sized(width: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.bytes(machine.number(width)))


def _text(width: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.text(machine.number(width)))


def _whole(width: int, *, signed: bool = False) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.number(width, signed=signed))


def _get(width: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.memo[machine.number(width)])


STOP = ord(".")
# by the names of pickletools
VALUES: dict[int, Callable[[Machine], None]] = {
    0x80: _protocol,
    0x95: _frame,
    0x28: _mark,
    0x4E: _constant(lambda: None),
    0x88: _constant(lambda: True),
    0x89: _constant(lambda: False),
    0x4A: _whole(4, signed=True),  # BININT
    0x4B: _whole(1),
    0x4D: _whole(2),
    0x8A: _integer,  # LONG1
    0x47: lambda machine: machine.push(struct.unpack(">d", machine.bytes(8))[0]),  # BINFLOAT
    0x8C: _text(1),  # SHORT_BINUNICODE
    0x58: _text(4),
    0x8D: _text(8),
    0x43: _sized(1),  # SHORT_BINBYTES
    0x42: _sized(4),
    0x8E: _sized(8),
    0x96: _sized(8),  # BYTEARRAY8
    0x5D: _constant(list),
    0x7D: _constant(dict),
    0x29: _constant(tuple),
    0x74: lambda machine: machine.push(tuple(machine.since_mark())),
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    0x61: _append,
    0x65: _appends,
    0x73: _set_item,
    0x75: _set_items,
    0x71: lambda machine: _put(machine.number(1), machine),  # BINPUT
    0x72: lambda machine: _put(machine.number(4), machine),
    0x94: lambda machine: _put(len(machine.memo), machine),  # MEMOIZE
    0x68: _get(1),  # BINGET
    0x6A: _get(4),
}
