# SPDX-License-Identifier: Apache-2.0
"""A client of LeRobot's asynchronous inference without LeRobot and without torch, by the facts of its wire.

What it sends is pickled by Python's own pickle under LeRobot's names, and what it gets is loaded by the same.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

CAPTURED = Path(__file__).resolve().parents[1] / "fixtures" / "lerobot_wire"
HELPERS = "lerobot.async_inference.helpers"
SERVICE = "/transport.AsyncInference/"
PART_BYTES = 2 << 20
SO101 = [
    f"{name}.pos"
    for name in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
]
PANDA = [f"panda_joint{number}.pos" for number in range(1, 8)]


def captured(name: str) -> bytes:
    """The bytes of a message as the real client sent it."""
    return (CAPTURED / name).read_bytes()


class TimedObservation:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class RemotePolicyConfig(TimedObservation):
    pass


@contextmanager
def as_lerobot(module: str = HELPERS) -> Iterator[None]:
    """Pickle calls the classes of this file by LeRobot's names."""
    before = {cls: cls.__module__ for cls in (TimedObservation, RemotePolicyConfig)}
    made = types.ModuleType(module)
    for cls in before:
        cls.__module__ = module
        setattr(made, cls.__name__, cls)
    parents = [".".join(module.split(".")[:end]) for end in range(1, module.count(".") + 1)]
    added = {name: types.ModuleType(name) for name in parents if name not in sys.modules} | {module: made}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
        for cls, name in before.items():
            cls.__module__ = name


def pickled(value: Any, protocol: int = 4, module: str = HELPERS) -> bytes:
    with as_lerobot(module):
        return pickle.dumps(value, protocol)


def setup(names: Sequence[str] = PANDA, cameras: Sequence[str] = ("camera",), **changes: Any) -> bytes:
    """The pickle of a RemotePolicyConfig."""
    features = {"observation.state": {"dtype": "float32", "shape": (len(names),), "names": list(names)}}
    for name in cameras:
        features[f"observation.images.{name}"] = {
            "dtype": "image", "shape": (32, 32, 3), "names": ["height", "width", "channels"], "info": {"is_depth_map": False},
        }  # fmt: skip
    fields = {
        "policy_type": "act", "pretrained_name_or_path": "some/model", "lerobot_features": features,
        "actions_per_chunk": 50, "device": "cpu", "rename_map": {},
    }  # fmt: skip
    return pickled(RemotePolicyConfig(**(fields | changes)))


def observation(
    numbers: Sequence[float],
    names: Sequence[str] = PANDA,
    *,
    timestep: int = 0,
    timestamp: float = 1_795_977_784.17,
    must_go: bool = False,
    task: str = "reach the red block",
    protocol: int = 4,
    module: str = HELPERS,
    **others: Any,
) -> bytes:
    """The pickle of a TimedObservation. others: cameras, and what else a robot reports."""
    values = {name: float(number) for name, number in zip(names, numbers, strict=True)}
    values |= others or {"camera": np.full((32, 32, 3), 120, np.uint8)}
    values["task"] = task
    timed = TimedObservation(timestamp=timestamp, timestep=timestep, observation=values, must_go=must_go)
    return pickled(timed, protocol, module)


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def message(data: bytes, number: int = 1) -> bytes:
    """A protobuf message with one field of bytes."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def part(data: bytes, state: int) -> bytes:
    return b"\x08" + bytes([state]) + message(data, 2)


def parts(data: bytes, size: int = PART_BYTES) -> list[bytes]:
    """An observation in parts: begin, middle, end; one alone is the end."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    states = [1] + [2] * (len(pieces) - 2) + [3] if len(pieces) > 1 else [3]
    return [part(piece, state) for piece, state in zip(pieces, states, strict=True)]


@dataclass
class TimedAction:
    timestamp: float = 0.0
    timestep: int = 0
    action: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


def load_storage(data: bytes) -> NDArray[np.float32]:
    """What torch.load makes of a storage in the old format."""
    stream = io.BytesIO(data)
    magic, version, system = (_plain(stream) for _ in range(3))
    assert magic == 0x1950A86A20F9469CFC6C
    assert version == 1001
    assert system == {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            assert (module, name) == ("torch", "FloatStorage")
            return name

        def persistent_load(self, pid: Any) -> Any:
            return pid

    kind, storage, key, place, count, view = Reader(stream).load()
    assert (kind, storage, place, view) == ("storage", "FloatStorage", "cpu", None)
    assert _plain(stream) == [key]
    assert struct.unpack("<q", stream.read(8)) == (count,)
    numbers = stream.read()
    assert len(numbers) == 4 * count
    return np.frombuffer(numbers, "<f4")


def _plain(stream: io.BytesIO) -> Any:
    return pickle.Unpickler(stream).load()


def load_actions(data: bytes) -> list[TimedAction]:
    """What the client's pickle.loads makes of an answer; torch's tensors as arrays."""

    def tensor(storage: Any, offset: int, shape: Any, stride: Any, requires_grad: bool, hooks: Any) -> Any:
        assert (offset, stride, requires_grad, hooks) == (0, (1,), False, {})
        assert shape == storage.shape
        return storage

    known = {
        (HELPERS, "TimedAction"): TimedAction,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch.storage", "_load_from_bytes"): load_storage,
        ("collections", "OrderedDict"): dict,
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return known[module, name]

    found: list[TimedAction] = Reader(io.BytesIO(data)).load()
    return found


def instructions(data: bytes) -> list[tuple[str, Any]]:
    """A pickle's instructions with their arguments."""
    return [(code.name, argument) for code, argument, _ in pickletools.genops(data)]


class LerobotClient:
    """One channel to a server, as a robot_client has."""

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        # own connection: channels of a process share one otherwise, and the server would take two robots for one
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
        self.timeout_s = timeout_s
        self._ready = self.channel.unary_unary(SERVICE + "Ready")
        self._setup = self.channel.unary_unary(SERVICE + "SendPolicyInstructions")
        self.send_parts = self.channel.stream_unary(SERVICE + "SendObservations")
        self.get = self.channel.unary_unary(SERVICE + "GetActions")

    def ready(self) -> None:
        assert self._ready(b"", timeout=self.timeout_s) == b""

    def set_up(self, data: bytes) -> None:
        assert self._setup(message(data), timeout=self.timeout_s) == b""

    def start(self, **changes: Any) -> None:
        self.ready()
        self.set_up(setup(**changes))

    def send(self, data: bytes) -> None:
        assert self.send_parts(iter(parts(data)), timeout=self.timeout_s) == b""

    def actions(self) -> list[TimedAction]:
        """The answer to GetActions; none where it is empty."""
        data = self.get(b"", timeout=self.timeout_s)
        if not data:
            return []
        assert data[:1] == b"\x0a"
        size, at = 0, 1
        while True:
            size |= (data[at] & 0x7F) << (7 * (at - 1))
            at += 1
            if data[at - 1] < 0x80:
                break
        assert len(data) == at + size
        return load_actions(data[at:])

    def close(self) -> None:
        self.channel.close()
