# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002, ARG005 - what stands for something takes what that takes
"""A robot on a clock that the program moves: the real guard, observation buffer, chunk loop and watchdog drive a simulated arm.

One thread. What takes time in the real node (an inference) moves the clock on, and everything else happens meanwhile.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.interpolation import Spline
from reflex_core.errors import ObservationError
from reflex_core.export.binding import UNMEASURED, Binding
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import BASE, VELOCITY, Group
from reflex_core.robot.joint_gate import joint_gate
from reflex_core.robot.limits.hold import Hold
from reflex_core.robot.path_tolerance import path_tolerance
from reflex_core.robot.presets import load_preset
from reflex_core.values import HOLD, POLICY, ActionChunk, Floats, Inference, Observation, Request, Served
from reflex_core.wedges.guard import Guard, guard_for
from reflex_ros.messages.chunks import trajectory_message
from reflex_ros.messages.raw import IMAGE, RawMessage
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.observation_buffer import Gates, ObservationBuffer
from reflex_ros.node.progress import Progress, Tuning
from reflex_ros.node.watchdog import Watchdog

Doubles = NDArray[np.float64]

TICK_S, TINY_S = 0.01, 1e-6
CAMERA_TICKS = 3
HORIZON, DT_S, EXECUTED = 50, 0.05, 25
MAX_AGE_MS, MARGIN_RAD, TOLERANCE_RAD, FADE_S = 300.0, 0.2, 0.4, 0.3
ARM: Embodiment = replace(load_preset("franka").without_gripper(), acceleration_max=None)
NAMES = ARM.joint_names
# the same arm on a base that is commanded by velocity
AXES = ("linear.x", "angular.z")
FASTEST: Doubles = np.array([0.5, 1.0])  # m/s, rad/s
HARDEST: Doubles = np.array([1.0, 2.0])  # of change per second
JOINTS, WHEELS = slice(0, 7), slice(7, 9)
HOME: Doubles = np.array([0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8])
assert ARM.velocity_max is not None
SPEED: Doubles = ARM.velocity_max
TUNING = Tuning(Gates(MAX_AGE_MS, 150.0), EXECUTED, 0.1, FADE_S)
EPOCH_NS = 1_700_000_000 * 10**9

ON_WHEELS: Embodiment = replace(
    ARM, joint_names=(*NAMES, *AXES), action_min=np.append(ARM.action_min, -FASTEST), action_max=np.append(ARM.action_max, FASTEST),
    velocity_max=np.append(SPEED, [np.inf, np.inf]), acceleration_max=np.append(np.full(7, np.inf), HARDEST),
    groups=(
        Group("arm", tuple(range(7)), NAMES),
        Group("base", (7, 8), AXES, BASE, VELOCITY),
    ),
)  # fmt: skip

Model = Callable[[Request], Floats]


@dataclass
class Clock:
    """The monotonic clock, and the wall clock that somebody may set beside it."""

    monotonic_ns: int = 10**12
    offset_ns: int = EPOCH_NS

    def wall_ns(self) -> int:
        return self.monotonic_ns + self.offset_ns

    @property
    def seconds(self) -> float:
        return self.monotonic_ns * 1e-9


@dataclass(frozen=True)
class Command:
    """One published trajectory. rows, speeds: (n, 7) float64; due_s: (n,) on the monotonic clock.

    driven: (m, 2) velocities of a base, empty without one; driven_s: (m,) when each is due. No rows: the base alone is commanded.
    """

    rows: Doubles
    due_s: Doubles
    is_hold: bool
    reason: str
    speeds: Doubles | None = None
    driven: Doubles = field(default_factory=lambda: np.zeros((0, 2)))
    driven_s: Doubles = field(default_factory=lambda: np.zeros(0))


class Arm:
    """Follows what is published, as a trajectory controller does, with no joint faster than its limit."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.position = HOME.copy()
        self.following = True
        self.blocked = np.zeros(len(HOME), np.bool_)  # something is in the way of these joints
        self._motion = _standstill(HOME, 0.0)

    def commanded(self) -> Doubles:
        """(7,) what the controller asks for now: cubic between points, constant after the last."""
        return self._motion.at(_ns(self._clock.seconds))[0]

    def speed(self) -> Doubles:
        """(7,) rad/s that the controller asks for now."""
        return self._motion.at(_ns(self._clock.seconds))[1]

    def take(self, command: Command) -> None:
        """Follow another trajectory instead: from what is commanded now to its first point that is still to come.

        A point at this very moment is where the command is then.
        """
        now = self._clock.seconds
        coming = command.due_s > now + TINY_S
        if not coming.any():
            return
        position, speed = self._motion.at(_ns(now))
        begun = np.flatnonzero(command.due_s <= now + TINY_S)
        if len(begun) and command.speeds is not None:  # in the midst of it already
            position, speed = _motion_of(command).at(_ns(now))
        rows, speeds = command.rows[coming], np.zeros_like(command.rows[coming])
        if command.speeds is not None:
            speeds = command.speeds[coming]
        self._motion = Spline(
            np.concatenate([[_ns(now)], (command.due_s[coming] * 1e9).round().astype(np.int64)]),
            np.concatenate([position[None], rows]), np.concatenate([speed[None], speeds]),
        )  # fmt: skip

    def rest(self) -> None:
        """Somebody else moved the arm: the controller holds where it is."""
        self._motion = _standstill(self.position, self._clock.seconds)

    def step(self) -> None:
        """Move on by one tick."""
        if self.following:
            most = SPEED * TICK_S
            way = np.clip(self.commanded() - self.position, -most, most)
            self.position = self.position + np.where(self.blocked, 0.0, way)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _standstill(position: Doubles, now_s: float) -> Spline:
    return Spline(np.array([_ns(now_s)]), position[None].copy(), np.zeros((1, len(position))))


def _motion_of(command: Command) -> Spline:
    assert command.speeds is not None
    return Spline((command.due_s * 1e9).round().astype(np.int64), command.rows, command.speeds)


class Base:
    """Drives as its topic says: linear between rows, and 0 a period after the last one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times_s, self._rows = np.zeros(1), np.zeros((1, 2))

    def commanded(self, in_s: float = 0.0) -> Doubles:
        """(2,) the velocity of this moment, or of one that comes."""
        at = self._clock.seconds + in_s
        if at > self._times_s[-1] + DT_S + TINY_S:
            return np.zeros(2)
        return np.array([np.interp(at, self._times_s, column) for column in self._rows.T])

    def take(self, driven: Doubles, driven_s: Doubles) -> None:
        """Go on with other rows, from the velocity of this moment."""
        coming = driven_s > self._clock.seconds + TINY_S
        coming[-1] = True
        start = self.commanded()
        self._times_s = np.concatenate([[self._clock.seconds], driven_s[coming]])
        self._rows = np.concatenate([start[None], driven[coming]])


class Outputs:
    """Stands for the ROS publishers: every trajectory goes to `heard`, and to the arm, as its message says it."""

    def __init__(self, clock: Clock, heard: Callable[[Command], None]) -> None:
        self.halts = 0
        self.control, self.blend = POLICY, 1.0
        self.labels: list[
            tuple[float, str, str]
        ] = []  # when, whose rows, and who commands as every record says
        self.overdue_reason = ""  # of a stream of setpoints
        self._clock, self._heard = clock, heard

    def overdue(self) -> str:
        return self.overdue_reason

    def halt(self) -> None:
        """What cannot be held stays with the controller, which finishes its trajectory."""
        self.halts += 1

    def chunk(
        self, served: Served, stamp_ns: int, age_ms: float, chunk_id: int, start: int, motion: Spline
    ) -> None:
        rows = np.arange(start + 1, len(served.chunk.actions) + 1)
        due_s = (stamp_ns - self._clock.offset_ns) * 1e-9 + rows * served.chunk.dt_s
        self.labels.append((self._clock.seconds, served.chunk.source, self.control))
        driven = served.chunk.actions[start:, WHEELS].astype(np.float64), due_s
        self._send(motion, int(motion.times_ns[0]), False, "", driven)

    def hold(
        self, held: Hold, like: Binding, now_ns: int, episode: str, chunk_id: int, reason: str, motion: Spline | None,
        served: Served | None = None, *, punctual: bool = False,
    ) -> None:  # fmt: skip
        due_s = self._clock.seconds + np.arange(1, len(held.rows) + 1) * held.dt_s
        self.labels.append((self._clock.seconds, HOLD, self.control))
        self._send(
            motion, now_ns if punctual else 0, True, reason, (held.rows[:, WHEELS].astype(np.float64), due_s)
        )

    def _send(
        self,
        motion: Spline | None,
        stamp_ns: int,
        is_hold: bool,
        reason: str,
        driven: tuple[Doubles, Doubles],
    ) -> None:
        if motion is None:  # the base alone
            none = np.zeros((0, 7))
            self._heard(Command(none, np.zeros(0), is_hold, reason, none, *driven))
            return
        message = trajectory_message(NAMES, motion.of(JOINTS), stamp_ns, anchor=True)
        begin_s = self._clock.seconds if stamp_ns == 0 else (stamp_ns - self._clock.offset_ns) * 1e-9
        since_s = [
            point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points
        ]
        rows, speeds = (
            [point.positions for point in message.points],
            [point.velocities for point in message.points],
        )
        self._heard(Command(
            np.array(rows), begin_s + np.array(since_s), is_hold, reason, np.array(speeds), *driven
        ))  # fmt: skip


class Engine:
    """Stands for the engine: the guard around a model that takes `latency_s`."""

    def __init__(self, clock: Clock, guard: Guard, passes: Callable[[float], None]) -> None:
        self.metrics = Metrics()
        self.guard, self.model, self.names = guard, _stay, NAMES
        self.latency_s = 0.05
        self._clock, self._passes = clock, passes
        self._count = 0

    def request(self, observation: Observation, **fields: Any) -> Request:
        self._count += 1
        return Request(observation=observation, request_id=str(self._count), **fields)

    def act(self, request: Request) -> Served:
        return self.guard(request, self._infer)

    def _infer(self, request: Request) -> Served:
        self._passes(self.latency_s)
        actions = self.model(request)
        return Served(
            chunk=ActionChunk(actions, self.names, DT_S), raw_actions=actions, request_id=request.request_id,
            episode_id=request.episode_id, seed=1, slot="prod", model_version="fuzz@0", inference=Inference("onnx_cpu", 10, 10),
        )  # fmt: skip


def _stay(request: Request) -> Floats:
    state = request.observation.state
    if state is None:
        raise ObservationError("no state")
    return np.tile(state, (HORIZON, 1)).astype(np.float32)


def _picture() -> bytes:
    """A 2 x 2 rgb8 sensor_msgs/Image as CDR."""
    return b"".join(
        [
            b"\x00\x01\x00\x00", struct.pack("<iII", 0, 0, 1), b"\x00\x00\x00\x00", struct.pack("<III", 2, 2, 5),
            b"rgb8\x00", b"\x00", b"\x00\x00", struct.pack("<II", 6, 12), bytes(12),
        ]
    )  # fmt: skip


PICTURE = _picture()
Lie = Callable[[Doubles, float], "Doubles | None"]


def truth(position: Doubles, _: float) -> Doubles:
    """What a sensor that is well reports."""
    return position


@dataclass
class World:
    """Everything of one robot. `lie` changes what the joints report: (7,) rad, or None for silence. wheels: it has a base.

    heard: called with every published trajectory, before the arm follows it. meanwhile: called once a tick.
    """

    heard: Callable[[Command], None] = lambda _: None
    meanwhile: Callable[[], None] = lambda: None
    clock: Clock = field(default_factory=Clock)
    lie: Lie = truth
    second_lie: Lie | None = None
    camera: bool = True
    sensor_offset_ns: int | None = None  # a sensor on a machine whose clock nobody sets
    wheels: bool = False
    tuning: Tuning = TUNING

    def __post_init__(self) -> None:
        clock = self.clock
        robot = ON_WHEELS if self.wheels else ARM
        names = robot.joint_names
        self.arm, self.base = Arm(clock), Base(clock)
        monotonic = lambda: clock.monotonic_ns  # noqa: E731
        measured_at = np.array([*range(7), *[UNMEASURED] * (len(names) - 7)])
        self.guard = guard_for(
            robot, measured_at, Metrics(), None, names, DT_S, margin_rad=MARGIN_RAD, state_names=NAMES,
            monotonic_ns=monotonic, path_tolerance_rad=TOLERANCE_RAD,
        )  # fmt: skip
        self.engine = Engine(clock, self.guard, self.pass_time)
        self.engine.names = names
        gate = joint_gate(robot, names, MARGIN_RAD)
        tolerance = path_tolerance(robot, names, TOLERANCE_RAD)
        self.buffer = ObservationBuffer(
            ("camera",), NAMES, True, gate=gate, monotonic_ns=monotonic, tolerance=tolerance
        )
        self.buffer.instruction = "reach the red block"
        binding = Binding(
            cameras={"camera": "camera"}, state_names=NAMES, state_dim=7, state_statistics=None, action_names=names,
            action_statistics=None, columns=np.arange(len(names)), hold_columns=measured_at, horizon=HORIZON, dt_s=DT_S,
            embodiment=robot, groups=robot.groups,
        )  # fmt: skip
        loaded: Any = SimpleNamespace(
            guard=self.guard, policy=SimpleNamespace(binding=binding), first_latency_s=0.05, needs_instruction=True,
            embodiment=robot, execution_horizon=HORIZON, executed=lambda episode, row: self.guard.commands.executed(),
            not_executed=lambda episode: self.guard.commands.forget(), begins=lambda episode: None,
        )  # fmt: skip
        engine: Any = self.engine
        self.outputs = Outputs(clock, self._sent)
        outputs: Any = self.outputs
        self.loop = ChunkLoop(
            engine, loaded, self.buffer, outputs, clock.wall_ns, lambda: self.tuning, Progress(), monotonic_ns=monotonic,
            wall_clock=True,
        )  # fmt: skip
        self.barks: list[str] = []
        watched: Any = SimpleNamespace(overdue=self.loop.late, rescue=self.loop.rescue)
        self.watchdog = Watchdog(watched, self.barks.append)
        self._ticks = 0
        self.reading: Doubles | None = None

    def _sent(self, command: Command) -> None:
        self.heard(command)
        if len(command.rows):
            self.arm.take(command)
        if command.driven.size:
            self.base.take(command.driven, command.driven_s)

    def run(self, seconds: float) -> None:
        """Let the loop look at the world once a tick."""
        end_ns = self.clock.monotonic_ns + int(seconds * 1e9)
        while self.clock.monotonic_ns < end_ns:
            self._tick()
            self.loop.cycle()

    def pass_time(self, seconds: float) -> None:
        """Everything but the chunk loop goes on."""
        for _ in range(round(seconds / TICK_S)):
            self._tick()

    def _tick(self) -> None:
        self.clock.monotonic_ns += int(TICK_S * 1e9)
        self._ticks += 1
        self.arm.step()
        stamp_ns = self.clock.monotonic_ns + (
            self.clock.offset_ns if self.sensor_offset_ns is None else self.sensor_offset_ns
        )
        arrived = (stamp_ns, self.clock.wall_ns())
        for lie in (self.lie, *([self.second_lie] if self.second_lie is not None else [])):
            reading = lie(self.arm.position, self.clock.seconds)
            if reading is not None:
                self.reading = reading
                self.buffer.put_joints(RawMessage("joint_states", "", b"", *arrived), NAMES, reading.tolist())
        if self.camera and self._ticks % CAMERA_TICKS == 0:
            self.buffer.put_image("camera", RawMessage("camera/image_raw", IMAGE, PICTURE, *arrived))
        self.meanwhile()
        self.watchdog.check()
