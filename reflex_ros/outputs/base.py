# SPDX-License-Identifier: Apache-2.0
"""The protocol of robot interfaces: each takes checked rows for its columns and sends them its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from reflex_core.chunks.course import Row
from reflex_core.chunks.interpolation import Doubles, Spline
from reflex_core.chunks.setpoints import Adjust
from reflex_core.metrics.cadence import TickFigures
from reflex_core.robot.groups import Group

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

    from reflex_core.values import ActionChunk, Floats

# why the robot is held in the place of a thread that sends row by row
STREAM_LATE, STREAM_GONE = "stream_late", "stream_gone"

Publish = Callable[[Any, Any], None]  # a publisher and a message: sent, and handed to the bag recorder


@dataclass(frozen=True, slots=True)
class Command:
    """Rows that the guard has passed, and when each is due.

    Attributes:
        chunk: The group's columns of the rows, (n, width) in rad or m or per second, with their names and dt_s between rows.
        stamp_ns: Row i is due at stamp_ns + (i + 1) * dt_s, on the node's clock; 0: counted from arrival.
        start: The first row that has not elapsed; those before it are not sent.
        motion: The same as a motion in time, which begins at the moment of publishing: what a robot interface follows that
            knows more than rows. Its knots may be fewer than the rows.
        adjusted: Whether a robot interface that sends one row per tick may adjust them (`Adjusted`): the policy's own alone.
        punctual: Whether a hold begins when `motion` does, as chunks do, and not when it arrives: what is executed ends by itself
            should a clock make the robot refuse it.
        measured: (width,) where the columns are, rad or m; None where there is no fresh and plausible state.
    """

    chunk: ActionChunk
    stamp_ns: int
    start: int
    motion: Spline
    measured: Floats | None = None
    adjusted: bool = True
    punctual: bool = False


def topic_of(group: Group, name: str) -> str:
    """Return the topic of a group: that of its options, else `name` among the node's own topics."""
    return str(group.options.get("topic", f"~/{name}"))


class Output(Protocol):
    """One robot interface. Called from several threads; what it sends must leave in the order of the calls."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The command topics after remapping: no other node may command there."""

    def enable(self) -> None:
        """Let commands out: the node becomes active."""

    def disable(self) -> None:
        """Drop commands: the node is not active."""

    def send(self, command: Command) -> None:
        """Have the robot follow the rows from now on, instead of earlier ones."""

    def hold(self, command: Command) -> None:
        """Bring the robot to rest along the rows of a hold. No clock and no delay may make it refuse them, unless it is punctual."""

    def flush(self, timeout_s: float) -> None:
        """Wait until the last command has reached the robot, at most `timeout_s`."""

    def destroy(self) -> None:
        """Destroy what was created on the node."""


@runtime_checkable
class Acting(Protocol):
    """A robot interface that commands by actions."""

    @property
    def actions(self) -> tuple[str, ...]:
        """The full names of the actions: no other node may command there."""


@runtime_checkable
class Adapting(Protocol):
    """A robot interface that sends otherwise for controllers that replace trajectories than for those that join them."""

    def found_era(self, era: str) -> None:
        """Take note of what the controller has said it does: LEGACY or BLEND."""


@runtime_checkable
class Limited(Protocol):
    """A robot interface that paces the motion by itself."""

    def limit(self, velocity_max: Doubles) -> None:
        """Command no joint faster than velocity_max: (width,) rad or m per second; Inf where there is no limit."""


@runtime_checkable
class Adjusted(Protocol):
    """A robot interface that sends one row per tick, each of which may be adjusted to what is known by then."""

    def adjust(self, adjust: Adjust | None) -> None:
        """Pass every row of a chunk (not of a hold) through `adjust` from the next tick on; None: send them as they are.

        adjust(row, now_ns) is called by the output's own thread, before the limit of a tick's step. row: (width,) float64, the group's
        columns, rad or m or per second; it may be written to. now_ns: when it is due, on the clock of `Command.stamp_ns`, going on
        evenly from when the command was sent although a wall clock is set meanwhile. It returns the row to send. Where it raises, or
        returns no such row, the row is sent as it was. A hold waits for no call.
        """


@runtime_checkable
class Measuring(Protocol):
    """A robot interface that compares, while it sends, where the robot is with where it should be."""

    def measure(self, measured: Callable[[], Floats | None]) -> None:
        """Take what returns (width,) where the group's columns are now, rad or m; None while that is not known."""


@runtime_checkable
class Ticking(Protocol):
    """A robot interface that sends one row per tick, from a thread of its own."""

    def figures(self) -> TickFigures:
        """Return how punctual its ticks are."""

    def overdue(self) -> str:
        """Return STREAM_GONE, STREAM_LATE where the robot must be held because no ticks come, else ""; without waiting.

        A hold that comes then is sent by its caller: the robot stays where it was commanded last.
        """


@runtime_checkable
class Halting(Protocol):
    """A robot interface that goes on by itself after a command: row by row, or goal by goal."""

    def halt(self) -> None:
        """Send nothing more of the last command: the robot stays where it was commanded last."""


@runtime_checkable
class Reporting(Protocol):
    """A robot interface that has something to say for diagnostics."""

    def report(self) -> dict[str, object]:
        """Return values by name; `problem`, where there is one, is a sentence."""


class Along(Protocol):
    """What is known beside the row of a setpoint of positions; computed when it is wanted, on the thread of the ticks."""

    @property
    def fastest(self) -> Doubles:
        """(width,) per second: no column may move faster; a large number where there is no limit."""

    def velocity(self) -> Doubles:
        """Return (width,) how fast the setpoint moves, per second; 0 where it is to stay."""

    def where(self) -> Doubles | None:
        """Return (width,) where the columns are measured; None in a hold, at the end, and where that is not known."""


MessageOf = Callable[[Row, Along], Any]  # makes the message of one setpoint


class Receiver(Protocol):
    """What a robot interface of one row per tick has to agree on with who receives them, beside the rows."""

    def enable(self) -> None:
        """Begin to agree: the node becomes active. On the executor's thread."""

    def disable(self) -> None:
        """End it: the node is not active."""

    def awaited(self) -> bool:
        """Return whether no row may be sent yet. Never for long."""

    def report(self) -> dict[str, object]:
        """Return values by name for diagnostics; `problem`, where there is one, is a sentence."""

    def destroy(self) -> None:
        """Destroy what was created on the node."""


MakeOutput = Callable[["LifecycleNode", Publish, Group], Output]
