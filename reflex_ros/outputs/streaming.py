# SPDX-License-Identifier: Apache-2.0
"""One row per tick, from a thread of its own: for controllers that neither know times nor interpolate."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from rclpy.duration import Duration
from rclpy.qos_overriding_options import QoSOverridingOptions

from reflex_core.chunks.course import Row
from reflex_core.chunks.interpolation import Doubles
from reflex_core.chunks.setpoints import REPEATS, Adjust, SetpointStream
from reflex_core.concurrency.real_time import ORDINARY_HZ, PRIORITY, refusal
from reflex_core.concurrency.switch_interval import SWITCH_INTERVAL
from reflex_core.errors import ConfigurationError
from reflex_core.metrics.cadence import TickFigures
from reflex_core.robot.groups import JOINTS, POSITION, VELOCITY, Group
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import Floats
from reflex_ros.outputs.base import STREAM_GONE, STREAM_LATE, Command, MessageOf, Publish, Receiver
from reflex_ros.outputs.joint_trajectory import COMMANDS
from reflex_ros.outputs.ticks import LATE_S, Ticks

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

ACKNOWLEDGE_S = 0.5  # how long the last setpoints may take to be acknowledged
PROBLEMS = {
    STREAM_GONE: "the thread that sends its setpoints has ended unexpectedly: restart the node",
    STREAM_LATE: "its setpoints are late",
}

log = logging.getLogger(__name__)


class StreamOutput:
    """Follow the newest motion, one message per tick; silent once it is over, or the robot is held.

    Joints follow it as it is in time; grippers and velocities in straight lines between the rows.

    Positions end where they are, speeds in zeros, each sent several times. A late tick is left out, and the next one sends what
    is due then.
    """

    def __init__(
        self, node: LifecycleNode, publish: Publish, group: Group, kind: type, topic: str, rate_hz: float,
        message_of: MessageOf, *, rates: bool = False, receiver: Receiver | None = None,
    ) -> None:  # fmt: skip
        """Create the publisher of `kind` on `topic`.

        rates: the messages are velocities, also of a group that commands positions. receiver: who has to be agreed with beside the rows.
        Raises ConfigurationError for a rate that this system does not let a thread keep.
        """
        _require_rate(group, rate_hz)
        self._node, self._publish, self._group, self._message_of = node, publish, group, message_of
        self._publisher = node.create_lifecycle_publisher(
            kind, topic, COMMANDS, qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )
        self._stream = SetpointStream(
            len(group.columns), velocities=group.commands == VELOCITY, period_ns=round(1e9 / rate_hz)
        )
        self._smooth = (
            group.space == JOINTS and group.commands == POSITION
        )  # grippers go straight, speeds too
        self._changed = threading.Condition()
        self._enabled = False
        self._adjust: Adjust | None = None
        self._receiver, self._rates = receiver, rates or group.commands == VELOCITY
        self._measured: Callable[[], Floats | None] = lambda: None
        self._holding = self._staying = False
        self._clock = node.get_clock()
        self._simulated = (
            False  # whether the rows are on a simulator's clock; asked at each command, as that is slow
        )
        self._ahead_ns = 0  # of the clock of the commands' stamps before that of the rows
        self._unadjusted = self._unkept = 0
        self._limited_log = RateLimitedLog(log)
        self.ticks = Ticks(f"output {group.name}".strip(), rate_hz, self._tick)

    @property
    def topics(self) -> tuple[str, ...]:
        """The command topic, after remapping."""
        return (str(self._publisher.topic_name),)

    def figures(self) -> TickFigures:
        """Return how punctual the ticks are."""
        return self.ticks.cadence.figures(self._group.name, self._unadjusted)

    def overdue(self) -> str:
        """Return why the robot must be held in the place of this output's thread: STREAM_GONE, STREAM_LATE or ""; never waits."""
        if not self._enabled:
            return ""
        if self.ticks.gone:
            return STREAM_GONE
        return STREAM_LATE if self.ticks.late_s > LATE_S else ""

    def report(self) -> dict[str, object]:
        """Return for diagnostics how late ticks come, how many were left out, and how often the stream stood still or did not start."""
        found = self.figures()
        problem = PROBLEMS.get(self.overdue(), "")
        if not problem and not found.keeps:
            problem = _unkept(found)
        late_s = {"p50": found.late_p50_s, "p99": found.late_p99_s, "max": found.late_max_s}
        return {
            **{f"lateness {name} ms": f"{value * 1e3:.1f}" for name, value in late_s.items() if not math.isnan(value)},
            "late ticks": found.skipped, "rate not kept": found.unkept,
            "stalls": self._stream.stalls, "unmeasured starts": self._stream.unmeasured_starts,
            **({"unadjusted rows": found.unadjusted} if self._adjust is not None else {}),
            **(self._receiver.report() if self._receiver is not None else {}),
            **({"problem": problem} if problem else {}),
        }  # fmt: skip

    def limit(self, velocity_max: Doubles) -> None:
        """Move no setpoint of positions faster, whatever it has missed."""
        with self._changed:
            self._stream.limit(velocity_max)

    def adjust(self, adjust: Adjust | None) -> None:
        """Pass every row of a chunk through `adjust`, as `Adjusted` says."""
        with self._changed:
            self._adjust = adjust

    def measure(self, measured: Callable[[], Floats | None]) -> None:
        """As `Measuring` says."""
        self._measured = measured

    @property
    def fastest(self) -> Doubles:
        """As `Along` says."""
        return self._stream.velocity_max

    def velocity(self) -> Doubles:
        """As `Along` says."""
        return np.zeros(len(self._group.columns)) if self._staying else self._stream.velocity()

    def where(self) -> Doubles | None:
        """As `Along` says."""
        if self._holding or self._staying:
            return None
        measured = self._measured()
        return None if measured is None else measured.astype(np.float64)

    def enable(self) -> None:
        """Let setpoints out: the node becomes active. Nothing is sent before there are rows to follow."""
        with self._changed:
            self._stream.forget()
            self._publisher.on_activate(None)
            if not self._enabled:
                SWITCH_INTERVAL.shorten()
                self._hurry()
            self._enabled = True
        if self._receiver is not None:
            self._receiver.enable()

    def _hurry(self) -> None:
        """Give the thread that ticks real-time priority where its rate needs it."""
        if self.ticks.cadence.rate_hz <= ORDINARY_HZ:
            return
        try:
            self.ticks.hurry()
        except OSError as error:  # it was permitted when the node was configured
            log.error(
                "group '%s': its thread gets no real-time priority any more, and its setpoints may be late: %s",
                self._group.name,
                error,
            )

    def disable(self) -> None:
        """Leave the robot held, then send nothing: the node is not active. It waits for receivers; a second call does nothing."""
        with self._changed:
            if not self._enabled:
                return
            self._enabled = False  # nothing is overdue from now on
            last = self._stream.stop()
            for number, row in enumerate(last):
                if number:
                    time.sleep(self.ticks.period_ns * 1e-9)
                self._send(row, staying=True)
            if last:
                self._publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_S))
            self.ticks.relax()
            SWITCH_INTERVAL.restore()
            self._publisher.on_deactivate(None)
        if self._receiver is not None:
            self._receiver.disable()

    def send(self, command: Command) -> None:
        """Follow the rows from the next tick on, adjusted at each where they may be; nothing while the node is not active.

        Raises RuntimeError where no tick will come any more.
        """
        if self._enabled and self.ticks.gone:
            raise RuntimeError(f"group '{self._group.name}': {PROBLEMS[STREAM_GONE]}")
        self._command(command, adjusted=command.adjusted, holding=False)

    def hold(self, command: Command) -> None:
        """Follow the rows of a hold, as they are; where ticks do not come, stay at the last setpoint, which is sent from here."""
        if self.overdue():
            self.halt()
        else:
            self._command(command, adjusted=False, holding=True)

    def _command(self, command: Command, *, adjusted: bool, holding: bool) -> None:
        with self._changed:
            if not self._enabled:
                return
            self._simulated = self._clock.ros_time_is_active
            now_ns = self._now_ns()
            # a wall clock may be set while the rows are followed
            self._ahead_ns = int(self._clock.now().nanoseconds) - now_ns
            motion = command.motion.earlier(self._ahead_ns) if self._smooth else None
            self._holding = holding
            moved = self._rates and not self._stream.silent
            try:
                self._stream.follow(
                    command.chunk, command.stamp_ns - self._ahead_ns, command.start, now_ns, command.measured,
                    motion=motion, adjusted=adjusted,
                )  # fmt: skip
            except ValueError as error:
                where = f"group '{self._group.name}'"
                self._limited_log(
                    logging.ERROR, type(error).__name__, "%s: %s, and what is commanded stays", where, error
                )
                last = self._stream.last if moved else None
                for row in [] if last is None else [last] * REPEATS:  # as one message may be lost
                    self._send(row, staying=True)
            self.ticks.begin()

    def halt(self) -> None:
        """Follow nothing more: the robot stays at the last setpoint, which is sent again, as one message may be lost."""
        with self._changed:
            for row in self._stream.stop():
                self._send(row, staying=True)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Wait until the rows are over and acknowledged."""
        with self._changed:
            self._changed.wait_for(lambda: self._stream.silent, timeout_s)
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def destroy(self) -> None:
        """End the thread, and destroy the publisher."""
        self.ticks.close()
        if self._receiver is not None:
            self._receiver.destroy()
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _now_ns(self) -> int:
        """Return the time on the clock of the rows: the simulator's, else the monotonic one, which is never set."""
        if self._simulated:
            self._simulated = self._clock.ros_time_is_active
        return int(self._clock.now().nanoseconds) if self._simulated else time.monotonic_ns()

    def _tick(self) -> bool:
        """Send what is due now. Return False once there is nothing more to say. Never raises: the thread must go on."""
        try:
            self._send_due()
        except Exception as error:
            text = f"group '{self._group.name}': a setpoint was not sent"
            self._limited_log(logging.ERROR, "tick", text, error=error)
        if self.ticks.cadence.unkept != self._unkept:
            self._unkept = self.ticks.cadence.unkept
            found = self.figures()
            self._limited_log(logging.WARNING, "rate", "group '%s': %s", self._group.name, _unkept(found))
        with self._changed:
            goes_on = self._enabled and not self._stream.silent
            if not goes_on:
                self._changed.notify_all()
            return goes_on

    def _send_due(self) -> None:
        """Send what is due now, adjusted. A command that comes while it is adjusted waits for nothing, and is followed instead."""
        with self._changed:
            if not self._enabled or (self._receiver is not None and self._receiver.awaited()):
                return
            now_ns = self._now_ns()
            due = self._stream.due(now_ns)
            revision, ahead_ns = self._stream.revision, self._ahead_ns
            adjust = self._adjust if self._stream.adjusted else None
            if due is None:
                return
            if adjust is None:
                self._advance(due, now_ns)
                return
        row = self._adjusted(adjust, due, now_ns + ahead_ns)
        with self._changed:
            if self._enabled and self._stream.revision == revision:
                self._advance(row, now_ns)

    def _adjusted(self, adjust: Adjust, due: Row, stamp_ns: int) -> Row:
        """Return the row that `adjust` makes of what is due; the latter where it makes none, which is counted and logged."""
        try:
            row = np.asarray(adjust(np.array(due), stamp_ns), np.float64)
            if row.shape != (len(due),) or not np.isfinite(row).all():
                raise ValueError(f"expected {len(due)} finite numbers, got {row.shape}")
            adjusted: Row = row.tolist()
        except BaseException as error:  # extensions written in Rust panic with what is no Exception
            self._unadjusted += 1
            text = f"group '{self._group.name}': a row could not be adjusted and was sent as it was"
            self._limited_log(logging.ERROR, "adjust", text, error=error)
            return due
        return adjusted

    def _advance(self, row: Row, now_ns: int) -> None:
        setpoint = self._stream.advance(row, now_ns, paced=not self._simulated)
        if setpoint is not None:
            self._send(setpoint, staying=self._stream.resting)

    def _send(self, row: Row, *, staying: bool) -> None:
        """Publish a setpoint. staying: it is where the robot is to stay; of velocities, zeros."""
        self._staying = staying
        self._publish(self._publisher, self._message_of(row, self))


def _require_rate(group: Group, rate_hz: float) -> None:
    """Raise ConfigurationError where the rate needs what the system does not permit."""
    if rate_hz <= ORDINARY_HZ or not (why := refusal()):
        return
    raise ConfigurationError(
        f"group '{group.name}': {rate_hz:g} rows per second need real-time priority for the thread that sends them, which this system"
        f" does not permit ({why}): permit it (`ulimit -r {PRIORITY}` or `rtprio {PRIORITY}` in limits.conf, for a container"
        f" `--ulimit rtprio={PRIORITY}` or the capability SYS_NICE), or set control_rate_hz or the group's rate_hz to {ORDINARY_HZ:g}"
        " at most",
        "rate-refused",
    )


def _unkept(found: TickFigures) -> str:
    """Return what to do about a rate that is not kept."""
    return (
        f"{found.rate_hz:g} Hz is not kept on this machine, {found.skipped} ticks were left out: lower control_rate_hz or the"
        " group's rate_hz, or take joint_trajectory"
    )
