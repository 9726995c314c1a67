# SPDX-License-Identifier: Apache-2.0
"""joint_trajectory_controller with position interfaces, as ros2_controllers 4.42 (Jazzy) to 6.9 behave.

A reading of their rules, not their code: validate.py (what is refused), interpolate.py (segments), running.py (a
trajectory in time), and here one update after the other. Not simulated: tolerances, PID, effort, goals of actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from reflex_ros.demo.controllers.interpolate import upsampled
from reflex_ros.demo.controllers.options import BLEND, ControllerOptions
from reflex_ros.demo.controllers.points import Floats, Point, State, Trajectory
from reflex_ros.demo.controllers.running import RunningTrajectory
from reflex_ros.demo.controllers.validate import check

TURN_RAD = 2 * np.pi


class JointTrajectoryController:
    """Commands the joints of one robot, update after update. Times are nanoseconds of one clock that the caller has."""

    def __init__(
        self, joints: Sequence[str], start: ArrayLike, period_ns: int, options: ControllerOptions | None = None
    ) -> None:  # fmt: skip
        """Create it, holding `start` (one position per joint, in rad or m) until a trajectory comes.

        period_ns: the time from one update to the next, as far ahead as a command is for.
        """
        self.joints = tuple(joints)
        self.options = options or ControllerOptions()
        self.speed_scaling = 1.0
        positions = np.array(start, dtype=np.float64)
        if positions.shape != (len(self.joints),) or not np.isfinite(positions).all():
            raise ValueError(f"Expected {len(self.joints)} finite start positions, got {start!r}.")
        self._period_ns = period_ns
        self._pending: Trajectory | None = None
        self._holding = True
        self._hold_at: Floats | None = None
        self._last_measured = positions
        self._running = self._holding_at(positions)
        self._command = State(positions, np.zeros_like(positions) if self.options.velocity_state else None)
        self._updated_ns: int | None = None
        self._time_ns = 0

    def set(self, now_ns: int, trajectory: Trajectory) -> None:
        """Take a message; the next update follows it. Raises TrajectoryRefused, and what ran before goes on."""
        if self.options.upsampling:
            trajectory = upsampled(trajectory, self.options.policy_frequency_hz)
        check(trajectory, self.joints, now_ns, self.options)
        self._pending, self._holding, self._hold_at = trajectory, False, None

    def hold(self) -> None:
        """Stop at the position last measured with the next update, as when a goal is cancelled."""
        self._hold_at = self._last_measured

    def sample(
        self,
        now_ns: int,
        measured: ArrayLike,
        measured_velocities: ArrayLike | None = None,
        period_ns: int | None = None,
    ) -> tuple[Floats, Floats]:
        """Do one update. Return the positions and velocities commanded for the time of the next one.

        measured, measured_velocities: The joints now, in the controller's order; velocities matter where the hardware has
            them (`velocity_state`).
        period_ns: When this update and the next are not the usual period apart.
        """
        measured = np.array(measured, dtype=np.float64)
        if self._hold_at is not None:
            self._install_hold(self._hold_at)
        elif self._pending is not None:
            self._install(self._pending, now_ns)
        self._advance(now_ns, self._measured(measured, measured_velocities))
        reached = self._running.sample(self._time_ns + (self._period_ns if period_ns is None else period_ns))
        if reached is not None:
            self._command = reached.state
            if reached.segment[0] == len(self._running.states) - 1 and self._timed_out():
                self._hold_at = measured
        self._updated_ns, self._last_measured = now_ns, measured
        assert self._command.positions is not None
        velocities = self._command.velocities
        resting = np.zeros_like(self._command.positions)
        return self._command.positions.copy(), resting if velocities is None else velocities.copy()

    def _measured(self, positions: Floats, velocities: ArrayLike | None) -> State:
        if velocities is None or not self.options.velocity_state:
            return State(positions)
        return State(positions, np.array(velocities, dtype=np.float64))

    def _advance(self, now_ns: int, measured: State) -> None:
        """Move the trajectory's time on; the first time say from where it begins."""
        if self._running.begun and self._updated_ns is not None:
            self._time_ns += round((now_ns - self._updated_ns) * self.speed_scaling)
            return
        # The last command was meant for now and is taken as of the update before: the controller's one-tick glitch.
        desired_ns = now_ns if self._updated_ns is None else self._updated_ns
        before_ns, before = (
            (desired_ns, self._command) if self.options.interpolate_from_desired_state else (now_ns, measured)
        )
        self._time_ns = now_ns
        self._running.begin(now_ns, before_ns, self._unwound(before))

    def _unwound(self, before: State) -> State:
        """Return the state with each continuous joint within half a turn of the first point."""
        first = self._running.states[0].positions
        if first is None or before.positions is None or not self.options.continuous:
            return before
        turns = np.round((first - before.positions) / TURN_RAD)
        turns *= [name in self.options.continuous for name in self.joints]
        return replace(before, positions=before.positions + turns * TURN_RAD)

    def _timed_out(self) -> bool:
        over_ns = self._time_ns - self._running.ends_ns
        return not self._holding and 0.0 < self.options.cmd_timeout_s < over_ns * 1e-9

    def _install_hold(self, positions: Floats) -> None:
        self._pending, self._holding, self._hold_at = None, True, None
        self._running = self._holding_at(positions)

    def _holding_at(self, positions: Floats) -> RunningTrajectory:
        return RunningTrajectory(0, [0], [State(positions)])

    def _install(self, trajectory: Trajectory, now_ns: int) -> None:
        self._pending = None
        old = self._running
        if self.options.era == BLEND and old.begun and len(old.states) > 1:
            self._running = self._blended(old, trajectory, now_ns)
            return
        times_ns = [point.time_from_start_ns for point in trajectory.points]
        command = self._command.positions
        states = [self._in_order(trajectory.names, point, command) for point in trajectory.points]
        self._running = self._new(trajectory.stamp_ns, times_ns, states)

    def _blended(self, old: RunningTrajectory, trajectory: Trajectory, now_ns: int) -> RunningTrajectory:
        """Return the old trajectory until the new one starts, the bridge between them, and the new one.

        A stamp that is not in the future means now: the points' times count from now, whatever of them has elapsed.
        """
        cursor_ns = (
            self._time_ns
        )  # of the last update: the bridge is a tick old, so the command stands still for one
        start_ns = cursor_ns + max(0, trajectory.stamp_ns - now_ns)
        offset_ns = start_ns - cursor_ns
        times_ns = [old.start_ns + time_ns - cursor_ns for time_ns in old.times_ns]
        first_ns = trajectory.points[0].time_from_start_ns
        kept = [index for index, time_ns in enumerate(times_ns) if 0 < time_ns < offset_ns + min(0, first_ns)]
        times_ns = [times_ns[index] for index in kept]
        states = [old.states[index] for index in kept]
        bridge = old.sample(start_ns)
        if bridge is not None and first_ns > 0:
            times_ns.append(offset_ns)
            states.append(bridge.state)
        for point in trajectory.points:
            as_before = old.sample(start_ns + point.time_from_start_ns)
            missing = self._command.positions if as_before is None else as_before.state.positions
            times_ns.append(offset_ns + point.time_from_start_ns)
            states.append(self._in_order(trajectory.names, point, missing))
        return self._new(0, times_ns, states)

    def _new(self, stamp_ns: int, times_ns: Sequence[int], states: Sequence[State]) -> RunningTrajectory:
        return RunningTrajectory(stamp_ns, times_ns, states, splines=self.options.splines)

    def _in_order(self, names: Sequence[str], point: Point, missing: Floats | None) -> State:
        """Return a point in the controller's order; joints that the message lacks are at `missing`, at rest."""
        columns = [self.joints.index(name) for name in names]

        def full(field: Floats | None, rest: Floats | None) -> Floats | None:
            if field is None:
                return None
            row = np.zeros(len(self.joints)) if rest is None else rest.copy()
            row[columns] = field
            return row

        return State(
            full(point.positions, missing), full(point.velocities, None), full(point.accelerations, None)
        )
