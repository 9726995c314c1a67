# SPDX-License-Identifier: Apache-2.0
"""Recorded streams become frames at a fixed rate: at each moment the newest of every sensor, and the command that was followed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reflex_core.records.trace.executed import ExecutedRows
from reflex_core.values import CONTROLS, HAND_BACK, HOLD, Floats, Frame

SETTLE_NS = 500_000_000  # what arrives so much later than its stamp is missed
BACK_NS = 1_000_000_000  # a recorder's clock that goes back further was set, or a simulation began again
COMMANDS = "/commands"  # no camera is called so
NO_WORDS, NO_STATE, NO_IMAGE = "no instruction", "no fresh state", "no fresh image"
NOT_EXECUTED, OTHER_JOINTS = "command not executed", "command of other joints"


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One message of a sensor. heard_ns: when it was received, on the robot's clock; stamp_ns: its own.

    camera: None for the state. value: its Frame, or the state, (state_dim,) float32. oldest_ns: the stamp of the oldest message that a
    state is made of, where it comes in parts.
    """

    heard_ns: int
    stamp_ns: int
    camera: str | None
    value: Any
    oldest_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Commanded:
    """One command as it was sent. held: the robot was held by it."""

    heard_ns: int
    rows: ExecutedRows
    held: bool


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """One inference: the instruction that the policy had from its observation's stamp on. heard_ns: when it was recorded."""

    heard_ns: int
    stamp_ns: int
    instruction: str


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """The outcome of an episode, as it was reported."""

    heard_ns: int
    episode_id: str
    success: bool


Event = Reading | Commanded | Inferred | Ended


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One frame. part: counts the uninterrupted stretches, each of one episode. time_s: since the first frame of the part.

    state: (state_dim,). action: (action_dim,), where the command led to one period later, float32. held: by that command the
    robot was held. control: who commanded it, HOLD where the node held it.
    """

    part: int
    episode_id: str
    time_ns: int
    time_s: float
    instruction: str
    state: Floats
    action: Floats
    control: str
    held: bool
    frames: Mapping[str, Frame]

    @property
    def place(self) -> str:
        """Where it is in its recording."""
        return f"at {self.time_ns}"


@dataclass(frozen=True, slots=True)
class Split:
    """An episode that goes on as another part. what: the stream that gave nothing; since_ns: from when on; gap_ns: for how long.

    into_s: since_ns after the first frame of the episode.
    """

    episode_id: str
    what: str
    since_ns: int
    gap_ns: int
    into_s: float


@dataclass
class Sampler:
    """Frames of one recording, at `fps` from the first command of each episode on.

    `put` takes the events as they were received. Memory: what was received in the last half second, and the newest of every stream.
    A moment at which a stream is older than `max_age_ns`, or nothing was commanded, has no frame; what follows is another part, and
    `splits` has why where it is of the same episode.
    names: of the action's columns, in their order.
    """

    cameras: Sequence[str]
    names: tuple[str, ...]
    fps: float
    max_age_ns: int
    left_out: Counter[str] = field(default_factory=Counter)
    splits: list[Split] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self._readings: dict[str | None, deque[Reading]] = {
            stream: deque() for stream in (None, *self.cameras)
        }
        self._commands: deque[Commanded] = deque()
        self._inferred: deque[Inferred] = deque()
        self._newest_ns = 0
        self._part, self._episode_id = -1, ""
        self._episode_ns = 0  # its first frame
        self._gap: tuple[str | None, str, int] | None = (
            None  # stream, its name, and from when on it gave nothing
        )
        self._first_ns: int | None = None  # of the part that is being made
        self._tick = 0
        self._next_ns: int | None = None
        self._action: Floats | None = None

    def put(self, event: Event) -> Iterator[Moment]:
        """Take one event and yield the frames that nothing later can change."""
        if event.heard_ns < self._newest_ns - BACK_NS:
            yield from self.finish()
            self._clear()
        self._newest_ns = max(self._newest_ns, event.heard_ns)
        if isinstance(event, Reading):
            if event.camera in self._readings:
                self._readings[event.camera].append(event)
        elif isinstance(event, Inferred):
            self._inferred.append(event)
        elif isinstance(event, Commanded):
            self._take(event)
        yield from self._until(self._newest_ns - SETTLE_NS)
        # an episode that began between two frames begins with one of the past
        self._forget(self._newest_ns - SETTLE_NS - round(1e9 / self.fps))

    def _take(self, command: Commanded) -> None:
        if command.rows.control not in CONTROLS:  # a dry run
            self.left_out[NOT_EXECUTED] += 1
        elif not set(command.rows.names) <= set(self.names) or not len(command.rows.rows):
            self.left_out[OTHER_JOINTS] += 1
        else:
            self._commands.append(command)

    def _forget(self, before_ns: int) -> None:
        """Forget what no moment after `before_ns` needs: of each stream all but the newest of then and what came later."""
        for readings in self._readings.values():
            while len(readings) > 1 and readings[1].stamp_ns <= before_ns:
                readings.popleft()
        while len(self._inferred) > 1 and self._inferred[1].stamp_ns <= before_ns:
            self._inferred.popleft()

    def finish(self) -> Iterator[Moment]:
        """Yield what is left when the recording ends."""
        yield from self._until(self._newest_ns)
        self._first_ns = None

    def _clear(self) -> None:
        for readings in self._readings.values():
            readings.clear()
        self._commands.clear()
        self._inferred.clear()
        self._newest_ns, self._next_ns, self._action, self._gap = 0, None, None, None

    def _until(self, end_ns: int) -> Iterator[Moment]:
        while (now_ns := self._due()) is not None and now_ns <= end_ns:
            command = self._command(now_ns)
            if command is None:
                if self._first_ns is not None:
                    self._gap = COMMANDS, "commands", now_ns
                self._first_ns = self._next_ns = None
            elif self._first_ns is not None and command.rows.episode_id != self._episode_id:
                # its first frame is when it began, but not before the last one of the episode before
                self._next_ns = max(command.rows.began_ns, self._at(self._tick - 1) + 1)
                self._first_ns = None
            elif self._first_ns is None and command.held:
                self._next_ns = self._after_hold(now_ns)
            else:
                found = self._moment(command, now_ns)
                if isinstance(found, str):
                    self.left_out[found] += 1
                    if self._first_ns is not None:
                        self._gap = self._missing(now_ns)
                    self._first_ns, self._next_ns = None, self._after_gap(now_ns)
                else:
                    yield found

    def _due(self) -> int | None:
        """Return when the next frame is due; None before there is a command."""
        if self._next_ns is None and self._commands:
            self._next_ns = self._commands[0].rows.began_ns
        return self._next_ns

    def _command(self, now_ns: int) -> Commanded | None:
        """Return the command that is followed at a moment, and forget those before it; None where there is none any more."""
        while len(self._commands) > 1 and self._commands[1].rows.began_ns <= now_ns:
            self._commands.popleft()
        command = self._commands[0]
        rows = command.rows
        end_ns = rows.stamp_ns + (len(rows.rows) + 1) * round(rows.dt_s * 1e9)
        if command.held or now_ns <= end_ns:
            return command
        self._commands.popleft()
        return None

    def _after_hold(self, now_ns: int) -> int:
        """Return when to look again where only a hold is there to begin with: at the next command."""
        following = self._commands[1].rows.began_ns if len(self._commands) > 1 else self._newest_ns
        return max(now_ns + 1, following)

    def _after_gap(self, now_ns: int) -> int:
        """Return when to look again after a moment without a frame: a clock that was set forward leaves years of them."""
        found = now_ns + round(1e9 / self.fps)
        for stream, readings in self._readings.items():
            if self._newest(stream, now_ns) is None:
                later = (each.stamp_ns for each in readings if each.stamp_ns > now_ns)
                found = max(found, next(later, self._newest_ns))
        return found

    def _at(self, tick: int) -> int:
        """Return when a frame of the present part is."""
        assert self._first_ns is not None
        return self._first_ns + round(tick * 1e9 / self.fps)

    def _moment(self, command: Commanded, now_ns: int) -> Moment | str:
        """Return the frame of a moment, or why there is none."""
        rows = command.rows
        state, instruction = self._newest(None, now_ns), self._instruction(now_ns)
        if state is None:
            return NO_STATE
        frames = dict[str, Frame]()
        for camera in self.cameras:
            picture = self._newest(camera, now_ns)
            if picture is None:
                return NO_IMAGE
            frames[camera] = picture.value
        if instruction is None:
            return NO_WORDS
        action = self._approached(rows, now_ns)
        if action is None:
            return OTHER_JOINTS
        if self._first_ns is None:
            self._begin(rows.episode_id, now_ns)
        assert self._first_ns is not None
        self._action = action
        self._tick += 1
        self._next_ns = self._at(self._tick)
        control = HOLD if command.held and rows.control != HAND_BACK else rows.control
        time_s = (now_ns - self._first_ns) * 1e-9
        return Moment(
            self._part, rows.episode_id, now_ns, time_s, instruction, state.value, action, control, command.held, frames
        )  # fmt: skip

    def _begin(self, episode_id: str, now_ns: int) -> None:
        """Begin a part, and note why where it is one more of the same episode."""
        if self._part < 0 or episode_id != self._episode_id:
            self._episode_ns = now_ns
        elif self._gap is not None:
            stream, what, since_ns = self._gap
            until_ns = now_ns if stream is COMMANDS else self._readings[stream][0].oldest_ns
            into_s = (since_ns - self._episode_ns) * 1e-9
            self.splits.append(Split(episode_id, what, since_ns, until_ns - since_ns, into_s))
        self._first_ns, self._tick, self._episode_id, self._gap = now_ns, 0, episode_id, None
        self._part += 1

    def _missing(self, now_ns: int) -> tuple[str | None, str, int] | None:
        """Return the stream that has nothing fresh, its name, and when its newest reading was; None where all have."""
        for stream, readings in self._readings.items():
            if readings and self._newest(stream, now_ns) is None:
                name = "joint states" if stream is None else f"camera '{stream}'"
                return stream, name, readings[0].oldest_ns
        return None

    def _newest(self, stream: str | None, now_ns: int) -> Reading | None:
        """Return the newest reading of a stream that was stamped by then and is not too old, and forget those before it."""
        readings = self._readings[stream]
        while len(readings) > 1 and readings[1].stamp_ns <= now_ns:
            readings.popleft()
        if not readings or not 0 <= now_ns - readings[0].stamp_ns <= self.max_age_ns:
            return None
        return readings[0] if now_ns - readings[0].oldest_ns <= self.max_age_ns else None

    def _instruction(self, now_ns: int) -> str | None:
        while len(self._inferred) > 1 and self._inferred[1].stamp_ns <= now_ns:
            self._inferred.popleft()
        return (
            self._inferred[0].instruction if self._inferred and self._inferred[0].stamp_ns <= now_ns else None
        )

    def _approached(self, rows: ExecutedRows, now_ns: int) -> Floats | None:
        """Return (action_dim,) where the robot is led to within a period; joints that a hold does not command keep theirs."""
        row = led_to(rows, now_ns + round(1e9 / self.fps))
        if rows.names == self.names:
            return row if np.isfinite(row).all() else None
        before = dict(zip(self.names, self._action, strict=True)) if self._action is not None else {}
        known = before | dict(zip(rows.names, row, strict=True))
        if set(known) != set(self.names):
            return None
        made = np.array([known[name] for name in self.names], np.float32)
        return made if np.isfinite(made).all() else None


def led_to(rows: ExecutedRows, at_ns: int) -> Floats:
    """Return (len(names),) float32 where a command leads at a moment: on the line between the two rows around it.

    The next row alone would be due up to a period later: commands that follow each other at any moment would seem to hurry and to
    linger in turns.
    """
    last = len(rows.rows) - 1
    place = (at_ns - rows.stamp_ns) * 1e-9 / rows.dt_s - 1.0 if rows.dt_s > 0.0 else float(last)
    place = min(max(place, float(rows.start)), float(last))
    low = int(place)
    share = np.float32(place - low)
    made = rows.rows[low] * (1 - share) + rows.rows[min(low + 1, last)] * share
    return np.asarray(made, np.float32)
