# SPDX-License-Identifier: Apache-2.0
"""Read what LeRobot's clients pickle, without `pickle`: no name is imported, nothing of the sender's is called.

A pickle is a program for a machine with a stack. Ours (pickle_machine.py) knows the instructions that those clients emit
(protocols 3 to 5) and refuses all others; a name must be in a table, and stands for nothing but itself. Arrays are views of
the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from reflex_core.errors import ObservationError
from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.wires.numpy_tags import Array, array_from
from reflex_ros.sidecar.wires.pickle_machine import VALUES, Machine, PickleError, UnsafePickleError, called

OBSERVATION, SETUP, FEATURE, FEATURE_TYPE = "TimedObservation", "RemotePolicyConfig", "PolicyFeature", "FeatureType"  # fmt: skip
NDARRAY, DTYPE, RECONSTRUCT, SCALAR, FROM_BUFFER = "ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"

# what a pickle may name. Up to 0.3 the helpers were elsewhere, and before NumPy 2 its modules
NAMES = frozenset((
    *((f"lerobot.{where}.helpers", name) for where in ("async_inference", "scripts.server") for name in (OBSERVATION, SETUP)),
    *((where, name) for where in ("lerobot.configs", "lerobot.configs.types") for name in (FEATURE, FEATURE_TYPE)),
    *(("numpy", name) for name in (NDARRAY, DTYPE)),
    *((f"numpy.{core}.multiarray", name) for core in ("_core", "core") for name in (RECONSTRUCT, SCALAR)),
    *((f"numpy.{core}.numeric", FROM_BUFFER) for core in ("_core", "core")),
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names; nothing of it is here but its name."""

    name: str


@dataclass(slots=True)
class Made:
    """An object of one of LeRobot's classes: its attributes."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Dtype:
    """A dtype of NumPy: `u1`, and its byte order."""

    kind: ClassVar[str] = "dtype"
    code: str
    order: str = "|"

    def __str__(self) -> str:
        return f"{self.order}{self.code}"


@dataclass(slots=True)
class _Shell:
    """An array whose shape and bytes are still to come."""

    kind: ClassVar[str] = "array"
    array: Array | None = None


def read_pickle(data: bytes | bytearray) -> Made:
    """Return the object that a client sent. Arrays are views of `data`. Raises PickleError."""
    machine = Machine(memoryview(data), STEPS)
    try:
        found = machine.run()
    except ObservationError as error:
        raise error if isinstance(error, PickleError) else PickleError(f"the pickle: {error}") from error
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise PickleError("the pickle is incomplete or damaged") from error
    if not isinstance(found, Made):
        raise PickleError(f"the pickle must hold a {OBSERVATION} or {SETUP}, got {called(found)}")
    return found


def _named(module: object, name: object) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("the pickle has a name that is no text")
    if (module, name) not in NAMES:
        raise UnsafePickleError(
            f"the pickle names {escaped(f'{module}.{name}', 120)}, which is neither imported nor run: only LeRobot's observations"
            " and setups, and arrays of NumPy, are read"
        )
    return Name(name)


def attribute(value: Any) -> Any:
    """Return a value of an object as it is used: of an array the array."""
    return value.array if isinstance(value, _Shell) else value


def _stack_global(machine: Machine) -> None:
    name = machine.pop()
    machine.push(_named(machine.pop(), name))


def _global(machine: Machine) -> None:
    module = machine.line()
    machine.push(_named(module, machine.line()))


def _new(machine: Machine) -> None:
    arguments, name = machine.pop(), machine.pop()
    is_ours = isinstance(name, Name) and name.name in (OBSERVATION, SETUP, FEATURE)
    if not is_ours or not isinstance(arguments, tuple) or arguments:
        raise UnsafePickleError("the pickle makes an object that LeRobot's clients never send")
    machine.push(Made(name.name))


def _call(machine: Machine) -> None:
    """Make what the few functions of the table would: a shell of an array, a dtype, a number, an array, a text."""
    arguments, name = machine.pop(), machine.pop()
    maker = MAKERS.get(name.name) if isinstance(name, Name) else None
    if maker is None or not isinstance(arguments, tuple):
        raise UnsafePickleError(
            "the pickle calls what is neither an array, a number nor a feature of LeRobot"
        )
    try:
        machine.push(maker(*arguments))
    except TypeError as error:
        raise PickleError(
            f"the pickle makes a {escaped(name.name)} of other values than NumPy writes"
        ) from error


def _shell(_kind: Any, _shape: Any, _code: Any) -> _Shell:
    return _Shell()


def _dtype(code: Any, _align: Any, _copy: Any) -> _Dtype:
    if not isinstance(code, str) or len(code) > 8:
        raise PickleError("the pickle has a dtype that NumPy does not write")
    return _Dtype(code)


def _scalar(dtype: Any, data: Any) -> Array:
    return array_from(data, _written(dtype), ())


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return _array(data, dtype, shape, by_columns=order == "F")


def _feature_type(value: Any) -> str:
    if not isinstance(value, str):
        raise PickleError("the pickle has a feature's type that is no text")
    return value


MAKERS: dict[str, Callable[..., Any]] = {
    RECONSTRUCT: _shell,
    DTYPE: _dtype,
    SCALAR: _scalar,
    FROM_BUFFER: _from_buffer,
    FEATURE_TYPE: _feature_type,
}


def _written(dtype: Any) -> str:
    if not isinstance(dtype, _Dtype):
        raise PickleError(f"the dtype of an array must be one, got {called(dtype)}")
    return str(dtype)


def _array(data: Any, dtype: Any, shape: Any, *, by_columns: bool) -> Array:
    if not by_columns:
        return array_from(data, _written(dtype), shape)
    reverse = shape[::-1] if isinstance(shape, tuple) else shape
    return array_from(data, _written(dtype), reverse).transpose()


def _build(machine: Machine) -> None:
    state = machine.pop()
    target = machine.top(object)
    if isinstance(target, Made) and isinstance(state, dict):
        target.fields.update(state)
    elif (
        isinstance(target, _Dtype)
        and isinstance(state, tuple)
        and len(state) >= 2
        and state[1] in ("<", ">", "|")
    ):
        target.order = state[1]
    elif isinstance(target, _Shell) and isinstance(state, tuple) and len(state) == 5:
        _, shape, dtype, by_columns, data = state
        target.array = _array(data, dtype, shape, by_columns=by_columns is True)
    else:
        raise UnsafePickleError(f"the pickle changes a {called(target)} as NumPy and LeRobot never do")


STEPS: dict[int, Callable[[Machine], None]] = {
    **VALUES,
    0x63: _global,
    0x93: _stack_global,
    0x81: _new,
    0x52: _call,  # REDUCE
    0x62: _build,
}
