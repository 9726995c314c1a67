# SPDX-License-Identifier: Apache-2.0
"""How smoothly joint_trajectory_controller moves an arm that is given our trajectories: the simulated one, without a clock.

The path is 0.6 sin 1.6 t + 0.1 sin (4 t + 1): at most 1.34 rad/s and 2.8 rad/s^2. Rows of 20 Hz, chunks of 50, a new one
every 0.4 s from an observation that is 120 ms old; chunks differ by an offset; the arm lags 40 ms behind its command.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import FASTER, Bounds, Spline
from reflex_core.robot.limits.hold import Hold, Stream, hold
from reflex_core.robot.limits.limits import Limits
from reflex_core.values import ActionChunk
from reflex_ros.demo.controllers.from_message import trajectory_of
from reflex_ros.demo.controllers.options import ERAS, LEGACY, ControllerOptions
from reflex_ros.demo.controllers.trajectory_controller import JointTrajectoryController
from reflex_ros.demo.controllers.validate import check
from reflex_ros.messages.chunks import trajectory_message

Doubles = NDArray[np.float64]

DT_S, ROWS, REPLAN_S, AGE_S, LAG_S = 0.05, 50, 0.4, 0.12, 0.04
MOST_RAD_S, PATH_RAD_S2 = 2.175, 2.8
EPOCH_NS = 1_700_000_000 * 10**9
NAMES = ("a",)
STATES = [pytest.param(False, id="measured"), pytest.param(True, id="desired")]


def path(seconds: Doubles | float) -> Doubles:
    return np.asarray(0.6 * np.sin(1.6 * np.asarray(seconds)) + 0.1 * np.sin(4.0 * np.asarray(seconds) + 1.0))


@dataclass
class Followed:
    """One run. apart_rad: how far chunks differ; late_s: how much later than it was made a message may arrive at most."""

    era: str = LEGACY
    desired: bool = False
    hz: int = 1000
    apart_rad: float = 0.0
    late_s: float = 0.0
    skew_s: float = 0.0
    seed: int = 1
    seconds: float = 3.0
    stop_at_s: float = 9.0
    acceleration_max: float = np.inf
    commanded: Doubles = field(init=False)
    sent: list[Spline] = field(default_factory=list)

    def run(self) -> Followed:
        chance, period_s = np.random.default_rng(self.seed), 1.0 / self.hz
        measured = np.array([float(path(0.0))])
        options = ControllerOptions(
            self.era, interpolate_from_desired_state=self.desired, velocity_state=False
        )
        controller = JointTrajectoryController(NAMES, measured, round(period_s * 1e9), options)
        bounds = Bounds(
            np.array([-2.0]), np.array([2.0]), np.array([MOST_RAD_S]), np.array([True]), np.array([np.nan])
        )
        handover = Handover(bounds, lambda _: measured.astype(np.float32), lambda: 0.3)
        found, due_s, under_way, stopped = [], AGE_S + 0.02, [], False
        for tick in range(int(self.seconds * self.hz)):
            now_s = tick / self.hz
            now_ns = EPOCH_NS + int(now_s * 1e9)
            message = None
            if now_s >= self.stop_at_s and not stopped:
                stopped, due_s = True, 1e9
                motion = handover.hold(self.braked(self.sent[-1], now_ns), now_ns)
                message = trajectory_message(NAMES, motion, 0, anchor=self.era == LEGACY)
            elif now_s >= due_s:
                due_s += REPLAN_S
                motion = self.next_motion(handover, now_s, now_ns, float(chance.normal(0.0, self.apart_rad)))
                stamp_ns = int(motion.times_ns[0]) + int(self.skew_s * 1e9)
                message = trajectory_message(NAMES, motion, stamp_ns, anchor=self.era == LEGACY)
            if message is not None:
                self.sent.append(motion)
                late_s = 0.0 if self.late_s == 0.0 else chance.uniform(0.001, self.late_s)
                under_way.append((now_s + late_s, trajectory_of(message)))
            while under_way and under_way[0][0] <= now_s:
                controller.set(now_ns, under_way.pop(0)[1])
            command, _ = controller.sample(now_ns, measured)
            found.append(float(command[0]))
            measured = measured + (command - measured) * min(period_s / LAG_S, 1.0)
        self.commanded = np.array(found)
        return self

    def next_motion(self, handover: Handover, now_s: float, now_ns: int, offset_rad: float) -> Spline:
        observed_ns = now_ns - int(AGE_S * 1e9)
        rows = path(now_s - AGE_S + DT_S * np.arange(1, ROWS + 1)) + offset_rad
        chunk = ActionChunk(rows[:, None].astype(np.float32), NAMES, DT_S)
        start = int(AGE_S / DT_S)
        chunk = handover.led(chunk, observed_ns, start, now_ns)
        return handover.take_over(chunk, observed_ns, start, now_ns)

    def braked(self, motion: Spline, now_ns: int) -> Hold:
        """What the guard makes of a stop."""
        at, speed = motion.at(now_ns)
        free = np.array([np.inf])
        limits = Limits(
            NAMES, -free, free, np.array([MOST_RAD_S]), np.array([self.acceleration_max]), np.array([False]), np.array([False])
        )  # fmt: skip
        index = int(np.searchsorted(motion.times_ns, now_ns, side="right"))
        stream = Stream(at, motion.positions[index], speed * DT_S, np.array([True]), continuous=True)
        held = hold(limits, DT_S, stream, None)
        assert held is not None
        return held

    def settled(self) -> Doubles:
        """From when on it is measured: the first motion from rest is over."""
        return self.commanded[int(0.8 * self.hz) :]

    def peak_rad_s2(self) -> float:
        return float(np.abs(np.diff(self.settled(), n=2)).max()) * self.hz**2

    def peak_rad_s(self) -> float:
        return float(np.abs(np.diff(self.settled())).max()) * self.hz

    def error_rad(self) -> float:
        ticks = np.arange(int(0.8 * self.hz), len(self.commanded))
        return float(np.abs(self.settled() - path((ticks + 1) / self.hz)).max())


def worst(seeds: int = 5, **options: object) -> tuple[float, float]:
    """Peak acceleration and speed of several runs."""
    runs = [Followed(seed=seed, **options).run() for seed in range(seeds)]  # type: ignore[arg-type]
    return max(run.peak_rad_s2() for run in runs), max(run.peak_rad_s() for run in runs)


@pytest.mark.parametrize("desired", STATES)
def test_a_controller_moves_no_joint_faster_than_its_limit_where_rows_at_the_limit_become_slower(
    desired: bool,
) -> None:
    """Half the limit, the limit for some rows, then a quarter of it to the end; the controller of 1 kHz, its commands."""
    speeds = MOST_RAD_S * np.repeat([0.5, 1.0, 0.25], [8, 6, 20])
    rows = (speeds * DT_S).cumsum()[:, None].astype(np.float32)
    bounds = Bounds(
        np.array([-3.0]), np.array([3.0]), np.array([MOST_RAD_S]), np.array([True]), np.array([np.nan])
    )
    handover = Handover(bounds, lambda _: np.zeros(1, np.float32), lambda: 0.3)
    chunk = handover.led(ActionChunk(rows, NAMES, DT_S), EPOCH_NS, 0, EPOCH_NS)
    message = trajectory_message(
        NAMES, handover.take_over(chunk, EPOCH_NS, 0, EPOCH_NS), EPOCH_NS, anchor=True
    )
    options = ControllerOptions(LEGACY, interpolate_from_desired_state=desired, velocity_state=False)
    controller = JointTrajectoryController(NAMES, np.zeros(1), 1_000_000, options)
    controller.set(EPOCH_NS, trajectory_of(message))
    commands, measured = [], np.zeros(1)
    for tick in range(2000):
        measured, _ = controller.sample(EPOCH_NS + tick * 1_000_000, measured)
        commands.append(float(measured[0]))
    assert commands[-1] == pytest.approx(float(rows[-1, 0]), abs=1e-6)
    assert np.abs(np.diff(commands)).max() * 1e3 <= FASTER * MOST_RAD_S + 1e-6


@pytest.mark.parametrize("desired", STATES)
@pytest.mark.parametrize(
    ("apart_rad", "most_rad_s2"), [(0.0, 3.0 * PATH_RAD_S2), (0.004, 20.0), (0.02, 80.0)]
)
def test_chunks_follow_each_other_without_a_jerk(apart_rad: float, most_rad_s2: float, desired: bool) -> None:
    peak_rad_s2, peak_rad_s = worst(apart_rad=apart_rad, desired=desired)
    assert peak_rad_s2 <= most_rad_s2
    assert peak_rad_s <= 1.1 * MOST_RAD_S


@pytest.mark.parametrize("desired", STATES)
@pytest.mark.parametrize(("hz", "most_rad_s2"), [(1000, 40.0), (100, 8.0)])
def test_a_late_delivery_makes_no_jerk(hz: int, most_rad_s2: float, desired: bool) -> None:
    peak_rad_s2, peak_rad_s = worst(apart_rad=0.004, late_s=0.009, hz=hz, desired=desired)
    assert peak_rad_s2 <= most_rad_s2
    assert peak_rad_s <= 1.1 * MOST_RAD_S


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("apart_rad", [0.0, 0.004])
def test_the_arm_is_where_the_policy_wants_it_when_it_does(era: str, apart_rad: float) -> None:
    for seed in range(3):
        run = Followed(era, apart_rad=apart_rad, seed=seed).run()
        assert run.error_rad() <= 0.02


@pytest.mark.parametrize("era", ERAS)
def test_only_the_era_that_replaces_gets_an_anchor_and_every_motion_ends_at_rest(era: str) -> None:
    sent = Followed(era, seconds=1.5).run().sent
    assert [motion.anchored for motion in sent] == [False, *[True] * (len(sent) - 1)]
    for motion in sent:
        message = trajectory_message(NAMES, motion, 0, anchor=era == LEGACY)
        first = message.points[0].time_from_start
        assert (first.sec == 0 and first.nanosec == 0) is (era == LEGACY and motion.anchored)
        assert list(message.points[-1].velocities) == [0.0]


@pytest.mark.parametrize("late_s", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("skew_s", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("era", ERAS)
def test_no_delay_and_no_clock_makes_a_controller_refuse_a_hold(
    era: str, skew_s: float, late_s: float
) -> None:
    motion = Followed(era, seconds=1.2, stop_at_s=1.0).run().sent[-1]
    message = trajectory_message(NAMES, motion, 0, anchor=era == LEGACY)
    received_ns = EPOCH_NS + int((1.0 + late_s + skew_s) * 1e9)
    check(trajectory_of(message), NAMES, received_ns, ControllerOptions(era))


@pytest.mark.parametrize("desired", STATES)
@pytest.mark.parametrize("acceleration_max", [5.0, 20.0])
def test_a_hold_brakes_with_the_acceleration_that_is_allowed(desired: bool, acceleration_max: float) -> None:
    stop_s = 1.95  # at 1.2 rad/s
    run = Followed(seconds=3.5, stop_at_s=stop_s, desired=desired, acceleration_max=acceleration_max).run()
    tick = int(stop_s * run.hz)
    speed = (run.commanded[tick - 1] - run.commanded[tick - 2]) * run.hz
    distance = abs(run.commanded[-1] - run.commanded[tick - 1])
    assert abs(speed) > 0.9
    assert distance <= speed**2 / (2.0 * acceleration_max) + abs(speed) / run.hz + 1e-4
    after = run.commanded[tick - 1 :]
    assert np.abs(np.diff(after)).max() <= 1.1 * abs(speed) / run.hz, "no step"
    assert (
        np.abs(np.diff(after, n=2)).max() * run.hz**2 <= 1.3 * acceleration_max + abs(speed) * run.hz * 0.01
    )
    assert after[-1] == pytest.approx(after[-200], abs=1e-9), "at rest"
