# SPDX-License-Identifier: Apache-2.0
"""A person takes the commands: what they command goes the policy's way, through guard, hand-over and robot interfaces.

The policy goes on inferring, and nothing of that is executed. Whatever holds the robot ends the takeover.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Doubles
from reflex_core.chunks.takeover import AHEAD_S, LATE_S, PersonPath, why_not
from reflex_core.engine.engine import Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.errors import ConfigurationError, ReflexError
from reflex_core.text.untrusted import escaped
from reflex_core.values import HAND_BACK, HOLD, ROS, TELEOP, ActionChunk, Floats, Inference, Request, Served
from reflex_ros.node.execution import Execution
from reflex_ros.node.holds import HANDED_BACK, TRIPPED
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.progress import Progress, Tuning

PERIOD_S = 0.02  # how often the newest command is taken: what comes faster is skipped
NAMES_SHOWN = 5
PROBLEM_S = 5.0  # so long it is said why a person was not followed who does not command any more
CONTESTED = "contested"  # why a robot is held that two persons command

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TakeoverLoop:
    """The chunk loop as a takeover uses it. lock: orders what is published; the calls need it.

    hold: hold for a reason, False where that is not possible. settle: drop earlier commands once a hold has come to rest. restart:
    make a chunk from a fresh observation, and throw away what is under way. why_not: reason and sentence why no person may command
    now, two empty ones where one may; where the clock was set it has held the robot.
    """

    lock: threading.RLock
    hold: Callable[[str], bool]
    settle: Callable[..., None]
    restart: Callable[[], None]
    why_not: Callable[[], tuple[str, str]]


class Takeover:
    """One per activation; off where `takeover_release_s` is 0. `check` is what its thread does every PERIOD_S.

    active: a person's commands are executed. taken: a person has the robot, also where it holds because they cannot be followed: nothing
    of the policy is executed before they pause or hand back.
    """

    def __init__(
        self,
        engine: Engine,
        loaded: ServingState,
        buffer: ObservationBuffer,
        execution: Execution,
        handover: Handover,
        progress: Progress,
        tuning: Callable[[], Tuning],
        clock_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        loop: TakeoverLoop,
        *,
        dry_run: bool,
    ) -> None:
        """Begin with the policy in command. dry_run: nothing commands the robot."""
        self._engine, self._loaded, self._buffer = engine, loaded, buffer
        self._execution, self._handover, self._progress = execution, handover, progress
        self._tuning, self._clock_ns, self._monotonic_ns = tuning, clock_ns, monotonic_ns
        self._loop, self._dry_run = loop, dry_run
        settings = tuning()
        self._release_s, self._button = settings.takeover_release_s, settings.takeover_button
        self._path: PersonPath | None = None
        limits, binding = loaded.guard.limits, loaded.policy.binding
        if self.enabled and limits is not None:
            self._path = PersonPath(limits, binding.dt_s, self._release_s + AHEAD_S)
        self._columns = {name: column for column, name in enumerate(binding.action_names)}
        self._intake = threading.Lock()
        self._waiting: dict[str, float] = {}
        self._sources: dict[
            str, tuple[str, int]
        ] = {}  # on which topic each joint was commanded last, and when
        self._contested: tuple[int, str] | None = None  # when a joint was commanded on both, and which
        self._heard_ns: int | None = None  # the newest command that could be followed
        self._pressed_ns: int | None = None  # since the button is pressed, as the newest message says
        self._ignored = False  # until the person pauses, or lets the button go
        self._target = np.zeros(len(self._columns))
        self.active, self.taken = False, False
        self._problem_ns = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="takeover", daemon=True)

    @property
    def enabled(self) -> bool:
        """True where people may take the commands."""
        return self._release_s > 0.0

    def start(self) -> None:
        """Begin to follow what people command."""
        self._thread.start()

    def close(self) -> None:
        """Follow nothing more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, names: Sequence[str], positions: Sequence[float], topic: str = "") -> None:
        """Take the newest command of a person: where each named joint shall be, rad or m. Joints that are not named stay.

        A command that cannot be meant for this robot is not followed at all, and diagnostics say why. topic: on which it came; two
        that command the same joint at once are two persons, of whom none is followed.
        """
        if why := self._unfit(names, positions):
            self._problem(why)
            return
        with self._intake:
            now_ns = self._heard_ns = self._monotonic_ns()
            for name in names:
                other, at_ns = self._sources.get(name, (topic, 0))
                if other != topic and self._lasts(at_ns, now_ns):
                    self._contested = (now_ns, name)
                self._sources[name] = (topic, now_ns)
            self._waiting |= dict(zip(names, map(float, positions), strict=True))

    def put_button(self, buttons: Sequence[int]) -> None:
        """Take the newest state of a joystick's buttons: a person commands only while the chosen one is pressed."""
        if len(buttons) <= self._button:
            self._problem(f"takeover_button is {self._button}, and the joystick has {len(buttons)} buttons")
        pressed = self._button < len(buttons) and bool(buttons[self._button])
        with self._intake:
            self._pressed_ns = self._monotonic_ns() if pressed else None

    def hand_back(self) -> str:
        """Hand the robot back to the policy. What the person goes on to command is not followed before a pause in it."""
        with self._loop.lock:
            self._ignored = self._heard_ns is not None
            if not self.taken:
                return "no person has taken the commands"
            self._give_back("a person handed back")
            return "the policy goes on from where the robot is"

    def check(self) -> None:
        """Follow the newest command, or hand back where there is none any more. For its thread; never raises."""
        try:
            with self._loop.lock:
                self._step()
        except BaseException as error:  # whatever it was, the robot holds, and the thread goes on
            try:
                text = "a person's command was not followed; the robot holds"
                self._progress.limited_log(logging.ERROR, "takeover", text, error=error)
                self._stop("takeover_failed")
            except BaseException:
                log.exception("the robot could not be held after a person's command had failed")

    def end(self) -> None:
        """Note that the person commands no more: something holds the robot, or nothing is commanded now. Needs the lock."""
        if not self.active:
            return
        self.active = False
        self._execution.commanded_by(HAND_BACK)
        self._execution.blend.restart(self._monotonic_ns())
        self._loaded.guard.commands.take_for_person(taken=False)

    def _step(self) -> None:
        with self._intake:
            commands, self._waiting = self._waiting, {}
            wanted = self._wanted()
        if self._ignored and not wanted:
            self._ignored, self._progress.takeover_problem = False, ""
        if self.taken and not wanted:
            self._give_back("no command of a person came")
        if not wanted:
            self._forget_problem()
        if not wanted or not (commands or self.active):
            return
        if self._ignored:
            self._problem(f"the robot was handed back: pause for {self._release_s:g} s to take it again")
            return
        reason, why = self._refusal()
        if why:
            self._problem(why)
            self._stop(reason)
            return
        if not commands:
            return
        if self._handover.setting_out(self._clock_ns()):
            self._put_off(commands)
            return
        try:
            self._follow(commands)
        except ReflexError as error:
            self._problem(str(error))
            self._stop(error.slug)

    def _put_off(self, commands: dict[str, float]) -> None:
        """Follow them later, but for what the person commands until then."""
        with self._intake:
            self._waiting = commands | self._waiting

    def _wanted(self) -> bool:
        """Return whether a person commands just now: fresh commands, and the button pressed where there is one."""
        since = [self._heard_ns] if self._button < 0 else [self._heard_ns, self._pressed_ns]
        now_ns = self._monotonic_ns()
        return all(heard is not None and self._lasts(heard, now_ns) for heard in since)

    def _lasts(self, since_ns: int, now_ns: int) -> bool:
        """Return whether a command of `since_ns` counts still."""
        return now_ns - since_ns <= self._release_s * 1e9

    def _refusal(self) -> tuple[str, str]:
        """Return why the robot does not follow a person now, as reason of a hold and sentence; two empty ones where it does."""
        if self._dry_run:
            return "dry_run", "a dry run commands nothing"
        if reason := self._loaded.guard.trips.reason(ROS):
            return TRIPPED, f"the guard is tripped, and ~/reset_guard ends that: {reason}"
        with self._intake:
            contested = self._contested
        if contested is not None and self._lasts(contested[0], self._monotonic_ns()):
            return CONTESTED, f"{contested[1]} is commanded on two topics at once: let one of them pause"
        return self._loop.why_not()

    def _unfit(self, names: Sequence[str], positions: Sequence[float]) -> str:
        """Return why a message cannot be followed; empty where it can."""
        if not names or len(names) != len(positions):
            return f"a command needs a position for each name, got {len(names)} names and {len(positions)} positions"
        unknown = [escaped(name, 40) for name in names if name not in self._columns]
        if unknown or len(set(names)) < len(names):
            which = ", ".join(unknown[:NAMES_SHOWN]) or "one of them twice"
            return f"a command must name joints of this robot ({', '.join(self._columns)}), got {which}"
        if not all(map(math.isfinite, positions)):
            return "a command must be finite numbers"
        return ""

    def _follow(self, commands: dict[str, float]) -> None:
        """Send the way to where the person wants the robot, from what it is commanded at this moment. Raises ReflexError."""
        assert self._path is not None
        now_ns, tuning = self._clock_ns(), self._tuning()
        observation = self._buffer.newest_state(now_ns, tuning.gates)
        place, velocity = self._handover.at(now_ns)
        if place is None:
            raise ReflexError("where the robot is is not known")
        if self._path.knows_tool and self._handover.braking(now_ns):
            self._put_off(commands)  # what led on from the middle of a hold went beyond a limit of the tool
            return
        if not self.active:
            self._begin(place)
        for name, position in commands.items():
            self._target[self._columns[name]] = position
        request = self._engine.request(
            observation,
            received_ns=self._monotonic_ns(),
            episode_id=self._execution.episode_id or None,
            caller=ROS,
        )
        for rows, following in self._ways(self._path, place, velocity, now_ns):
            served = self._loaded.guard(request, partial(self._served, rows))
            if served.chunk.source == HOLD:
                raise ReflexError(f"the guard held the robot: {served.hold_reason}")
            if np.array_equal(served.chunk.actions[:following], rows[:following]):
                break
            self._loaded.guard.commands.forget()  # what goes on is not what was judged
        if not self._handover.keeps_tool(served.chunk, now_ns, 0, now_ns):
            raise ReflexError("no motion there keeps the limits of tool and bodies")
        if self._clock_ns() - now_ns > LATE_S * 1e9:  # the robot is not any more where the rows begin
            self._loaded.guard.commands.forget()
            self._put_off(commands)
            self._problem("the machine is too busy: a person's command was not made into a motion in time")
            return
        self._execution.send_of_person(served, self._release_s + AHEAD_S, now_ns, following)
        self._progress.takeover_problem = ""

    def _ways(
        self, path: PersonPath, place: Doubles, velocity: Doubles, now_ns: int
    ) -> Iterator[tuple[Floats, int]]:
        """Yield rows to the target, and how many of them are on the motion that goes on before; the last are on none. Raises ReflexError."""
        pace = self._progress.takeover_pace = path.pace(place, self._target)
        if self._handover.executing:
            following = path.following
            dues_ns = now_ns + np.arange(1, following + 1) * round(path.dt_s * 1e9)
            ahead, speed = zip(*(self._handover.at(int(due_ns)) for due_ns in dues_ns), strict=True)
            after = path.rows(ahead[-1], speed[-1], self._target, pace)
            if after is not None:
                rows = np.concatenate([np.array(ahead, np.float32), after])
                if path.fits(rows, place, velocity):
                    yield rows, following
        direct = path.rows(place, velocity, self._target, pace)
        if direct is None:
            raise ReflexError("the robot is outside its range: move it back by hand", "outside_range")
        yield direct, 0

    def _begin(self, place: Doubles) -> None:
        """Take the commands from the policy: nothing of what it answered before is executed from now on."""
        again, self.active, self.taken = self.taken, True, True
        self._target = place.copy()
        self._execution.held_at_ns = self._monotonic_ns()
        self._execution.commanded_by(TELEOP)
        self._loaded.guard.commands.take_for_person(taken=True)
        self._loaded.not_executed(self._execution.episode_id or None)
        if again:  # the robot held meanwhile, and nothing of the policy is executed
            return
        self._progress.takeovers += 1
        self._loaded.guard.trips.forgive(ROS)
        self._loop.restart()
        log.info("a person commands the robot")

    def _served(self, rows: Floats, request: Request) -> Served:
        """Return a person's rows as an answer."""
        assert self._path is not None
        chunk = ActionChunk(rows, tuple(self._columns), self._path.dt_s, source=TELEOP)
        return Served(
            chunk, rows, request.request_id, request.episode_id, seed=0, slot="", model_version="", inference=Inference("", 0)
        )  # fmt: skip

    def _give_back(self, why: str) -> None:
        """Hold the robot, and let the policy go on from where it is measured once it is at rest. Needs the lock."""
        log.info("the policy commands the robot again: %s", why)
        self.taken = False
        if self.active:
            self.end()
            self._loop.settle(held=self._loop.hold(HANDED_BACK))
        self._loop.restart()

    def _stop(self, reason: str) -> None:
        """Hold the robot where a person's command cannot be followed any more."""
        with self._loop.lock:
            if not self.active:
                return
            if self._progress.hold_reason and not self._progress.unheld_text:
                self.end()  # nothing was sent since it holds
            else:
                self._loop.hold(reason)

    def _forget_problem(self) -> None:
        """Report nothing any more of a person who does not command now; a while later, so that it can be read."""
        if self._monotonic_ns() - self._problem_ns > PROBLEM_S * 1e9:
            self._progress.takeover_problem = ""

    def _problem(self, text: str) -> None:
        self._progress.takeover_problem, self._problem_ns = text, self._monotonic_ns()
        self._progress.limited_log(
            logging.WARNING, "takeover refused", "a person's command is not followed: %s", text
        )

    def _run(self) -> None:
        while not self._closing.wait(PERIOD_S):
            self.check()


def require_takeover(loaded: ServingState, release_s: float) -> None:
    """Raise ConfigurationError where people shall take the commands, and the robot is none they could command."""
    binding = loaded.policy.binding
    if release_s > 0.0 and (why := why_not(binding.groups, loaded.guard.limits, binding.dt_s)):
        raise ConfigurationError(
            f"takeover_release_s: no person can take the commands of this robot: {why}", "takeover"
        )
