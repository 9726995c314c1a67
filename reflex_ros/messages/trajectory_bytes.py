# SPDX-License-Identifier: Apache-2.0
"""JointTrajectory as the bytes of the running middleware, without an object for each point.

What the middleware makes of one message with known numbers is the template: where each number lies in it is searched, not
assumed, and a second message must come out the same. Then a trajectory is a copy of it with other numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from reflex_ros.messages.stamps import time_msg

Doubles = NDArray[np.float64]
Times = NDArray[np.int64]

SECOND_NS = 1_000_000_000


class LayoutError(ValueError):
    """The middleware lays messages out in a way that is not understood here."""


def message_of(
    names: Sequence[str], stamp_ns: int, since_ns: Times, positions: Doubles, velocities: Doubles | None
) -> JointTrajectory:
    """Return the message itself.

    since_ns: (points,) after the stamp. positions, velocities: (points, joints), rad or m, per second.
    """
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp = time_msg(stamp_ns)
    for row, since in enumerate(since_ns.tolist()):
        seconds, rest = divmod(since, SECOND_NS)
        point = JointTrajectoryPoint(positions=array("d", positions[row].tobytes()))
        if velocities is not None:
            point.velocities = array("d", velocities[row].tobytes())
        point.time_from_start = Duration(sec=seconds, nanosec=rest)
        message.points.append(point)
    return message


class TrajectoryBytes:
    """Trajectories of one set of joints and one number of points."""

    def __init__(self, names: Sequence[str], points: int, *, velocities: bool) -> None:
        """Make the template. Raises LayoutError where the middleware's layout is another one than expected."""
        random = (
            np.random.default_rng()
        )  # other numbers each time: memory behind a message may hold an earlier one

        def numbers() -> tuple[int, Times, Doubles, Doubles | None]:
            since_ns = random.integers(1, 2**31 - 1, points) * SECOND_NS + random.integers(
                1, SECOND_NS, points
            )
            moving = random.random((points, len(names))) if velocities else None
            stamp_ns = int(random.integers(2**30, 2**31 - 1)) * SECOND_NS + int(random.integers(1, SECOND_NS))
            return stamp_ns, since_ns, random.random((points, len(names))), moving

        stamp_ns, since_ns, positions, moving = numbers()
        raw: bytes = serialize_message(message_of(names, stamp_ns, since_ns, positions, moving))
        self._stamp = _place(raw, _seconds(np.array([stamp_ns]))[0].tobytes())
        self._since = _places(raw, _seconds(since_ns))
        self._positions = _places(raw, positions)
        self._velocities = None if moving is None else _places(raw, moving)
        # rclpy hands out its whole buffer; a message ends with the time of its last point
        self._template = raw[: self._since[0] + (points - 1) * self._since[1] + 8]
        other = numbers()
        # not the bytes: those between the numbers, which align them, hold whatever the memory held
        if deserialize_message(self(*other), JointTrajectory) != message_of(names, *other):
            raise LayoutError("a second message is not laid out like the first")

    def __call__(
        self, stamp_ns: int, since_ns: Times, positions: Doubles, velocities: Doubles | None
    ) -> bytes:
        """Return the bytes of a message; shapes as in `message_of`."""
        made = bytearray(self._template)
        _view(made, (self._stamp, 8), (1, 2), np.uint32)[:] = _seconds(np.array([stamp_ns]))
        _view(made, self._since, (len(since_ns), 2), np.uint32)[:] = _seconds(since_ns)
        _view(made, self._positions, positions.shape, np.float64)[:] = positions
        if self._velocities is not None and velocities is not None:
            _view(made, self._velocities, velocities.shape, np.float64)[:] = velocities
        return bytes(made)


def _seconds(nanoseconds: Times) -> NDArray[np.uint32]:
    """Return (n, 2): seconds, of a signed number's bits, and the nanoseconds that remain."""
    found = np.empty((len(nanoseconds), 2), np.uint32)
    seconds, found[:, 1] = np.divmod(nanoseconds, SECOND_NS)
    found[:, 0] = seconds.astype(np.int32).view(np.uint32)
    return found


def _place(raw: bytes, known: bytes) -> int:
    """Return where these bytes lie. Raises LayoutError where they do not, or more than once."""
    found = raw.find(known)
    if found < 0 or raw.find(known, found + 1) >= 0:
        raise LayoutError("a number does not lie in the message once, in this machine's byte order")
    return found


def _places(raw: bytes, rows: NDArray[np.float64] | NDArray[np.uint32]) -> tuple[int, int]:
    """Return where the first row lies, and how far apart rows are. Raises LayoutError where that varies."""
    found = [_place(raw, row.tobytes()) for row in rows]
    strides = set(np.diff(found).tolist())
    if len(strides) > 1:
        raise LayoutError(f"the points of a message lie {sorted(strides)} bytes apart")
    return found[0], strides.pop() if strides else rows.strides[0]


def _view(
    made: bytearray, place: tuple[int, int], shape: tuple[int, ...], kind: type[np.generic]
) -> NDArray[np.generic]:
    """Return the numbers at a place as an array that writes into the message."""
    return np.ndarray(shape, kind, made, place[0], (place[1], np.dtype(kind).itemsize))
