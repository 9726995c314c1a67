# SPDX-License-Identifier: Apache-2.0
"""Gate implausible joint states: a reading that outruns the joint is a broken sensor, not a motion.

One tracker per joint: its estimate follows the readings no faster than the joint can move, so that a ramp that is too
fast is caught as well as a jump. While a reading is implausible the estimate is frozen: a false reading that stays must
not become plausible because time passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import velocity_columns
from reflex_core.robot.plausibility import ANYTHING, MARGIN_RAD, StateRange, state_range

RECOVERY_S = (
    0.3  # so long every reading must be plausible again: publishers that alternate keep the robot holding
)
SETTLE_S = 0.5  # so long a reading must be steady to be believed where a command explains nothing
LEAST_READINGS = 3  # a slow publisher must not end a window with its first message
LEFT_S = 0.5  # so long after its last belief a joint under command has left where it was: arms trail by tenths of a second
GAP_S = 0.15  # a longer silence says nothing of how the joint moved, so that only its command can explain a long way
LED_AWAY = 3.0  # margins from its command: a ramp that is too fast takes the estimate along for less before it is seen
JITTER_S = (
    0.05  # by so much a message may be late, and the motion it reports longer than the time between arrivals
)

NOT_FINITE, IMPLAUSIBLE = "state_not_finite", "implausible_state"


@dataclass(frozen=True, slots=True)
class Joint:
    """What is possible for one joint: `ranges` holds its range and margin, velocity_max is infinite where unknown.

    rad and rad/s, or m and m/s; margin: how far a reading may be from the estimate, in the same unit.
    """

    name: str
    velocity_max: float = math.inf
    margin: float = MARGIN_RAD
    ranges: StateRange = ANYTHING
    unit: str = " rad"


@dataclass(frozen=True, slots=True)
class Implausible:
    """Why a joint's reading is rejected. reading: as reported; expected: the last plausible position, None if never.

    reason: `state_not_finite` or `implausible_state`. text: one sentence for people.
    """

    joint: str
    reading: float
    expected: float | None
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Path:
    """Commands of one joint: its rows (rad or m), `dt_s` apart, the first due at `first_ns` on the clock of the gate."""

    rows: Sequence[float]
    first_ns: int
    dt_s: float

    def span(self, now_ns: int) -> tuple[float, float]:
        """Return (least, most) of the row that is being approached at `now_ns` and of everything after it."""
        gone = (
            int((now_ns - self.first_ns) * 1e-9 / self.dt_s)
            if self.dt_s > 0.0 and now_ns > self.first_ns
            else 0
        )
        coming = self.rows[min(gone, len(self.rows) - 1) :]
        return min(coming), max(coming)


@dataclass(slots=True)
class _Tracker:
    """One joint's history. Times are monotonic nanoseconds, stamps those of the sensor."""

    joint: Joint
    estimate: float | None = None
    believed_ns: int = 0
    reading: float = math.nan
    last_ns: int = 0
    last_stamp_ns: int = 0
    fault: Implausible | None = None
    candidate: float | None = None
    since_ns: int = 0
    readings: int = 0
    commanded: Path | None = None
    frozen_ns: int = 0
    unseen_s: float = 0.0  # so long nothing was read while nothing was commanded: a person may have moved it
    released_at: float | None = None  # the estimate when its command ceased to be in force


@dataclass(slots=True)
class JointGate:
    """Trackers by joint name. Not thread-safe: its owner has the lock.

    on_implausible: called with the joint's name for every rejected reading.
    """

    joints: Iterable[Joint]
    stamps_rule: bool = False  # simulated time: only the stamps say how much time has passed for the robot
    on_implausible: Callable[[str], None] = lambda _: None
    _trackers: dict[str, _Tracker] = field(init=False)
    _commanded_ever: bool = field(init=False, default=False)
    _in_force: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._trackers = {joint.name: _Tracker(joint) for joint in self.joints}

    def put(self, names: Iterable[str], positions: Iterable[float], stamp_ns: int, now_ns: int) -> None:
        """Judge one message, as a whole: where one joint is wrong, none of the others can be trusted.

        Joints of other robots are ignored. stamp_ns: the sensor's; now_ns: monotonic.
        """
        at_ns = stamp_ns if self.stamps_rule else now_ns
        judged: list[tuple[_Tracker, float, float, Implausible | None]] = []
        for name, position in zip(names, positions, strict=False):
            tracker, reading = self._trackers.get(name), float(position)
            if tracker is None:
                continue
            since_s = self._since_s(tracker, stamp_ns, now_ns)
            if tracker.fault is None:
                tracker.unseen_s = since_s if since_s > GAP_S and not self._in_force else 0.0
            tracker.reading, tracker.last_ns, tracker.last_stamp_ns = reading, now_ns, stamp_ns
            problem = self._problem(tracker, reading, since_s, at_ns)
            judged.append((tracker, reading, since_s, problem))
        guilty = next((problem for *_, problem in judged if problem is not None), None)
        for tracker, reading, since_s, problem in judged:
            if guilty is not None:
                tracker.frozen_ns = at_ns if tracker.fault is None else tracker.frozen_ns
                self._doubt(tracker, reading, now_ns, problem, guilty)
            elif tracker.fault is not None:
                self._recover(
                    tracker, reading, since_s, now_ns, _spanned(tracker, reading, at_ns, self._in_force)
                )
            else:
                before = reading if tracker.estimate is None else tracker.estimate
                tracker.estimate, tracker.believed_ns = _towards(before, reading, tracker, since_s), now_ns
            if tracker.fault is None and not self._in_force and _led_away(tracker, at_ns):
                tracker.commanded = None  # it explains no reading any more

    def fault(self, names: Iterable[str]) -> Implausible | None:
        """Return why one of these joints is rejected, None when all of them are plausible (or were never seen)."""
        found = (self._trackers[name].fault for name in names if name in self._trackers)
        return next((fault for fault in found if fault is not None), None)

    def believed(self, names: Sequence[str]) -> tuple[list[float], int] | None:
        """Return the last plausible positions and when the oldest was measured (monotonic ns); None if one never was."""
        found = [self._trackers.get(name) for name in names]
        estimates = [each.estimate for each in found if each is not None and each.estimate is not None]
        if not found or len(estimates) < len(found):
            return None
        return estimates, min(each.believed_ns for each in found if each is not None)

    def commanded(self, paths: Mapping[str, Path]) -> None:
        """Set what each joint is commanded from now on."""
        self._commanded_ever = self._in_force = True
        for name, path in paths.items():
            if name in self._trackers:
                self._trackers[name].commanded = path

    def released(self) -> None:
        """Note that nothing is commanded any more: other programs may move the robot now."""
        for tracker in self._trackers.values() if self._in_force else ():
            tracker.released_at = tracker.estimate
        self._in_force = False

    def reset(self) -> None:
        """Forget everything: an activation, or a clock on which the robot may be anywhere."""
        self._trackers = {name: _Tracker(tracker.joint) for name, tracker in self._trackers.items()}
        self._commanded_ever = self._in_force = False

    def anchor(self, names: Iterable[str]) -> str:
        """Accept the present readings of these joints because an operator confirms them; return why one cannot be, else ""."""
        problems = []
        for name in names:
            tracker = self._trackers.get(name)
            if tracker is None or tracker.fault is None:
                continue
            problem = tracker.joint.ranges.problem([tracker.reading], [name])
            if problem:
                problems.append(problem)
            else:
                _believe(tracker, tracker.reading, tracker.last_ns)
        return "; ".join(problems)

    def _problem(self, tracker: _Tracker, reading: float, since_s: float, at_ns: int) -> Implausible | None:
        """Return why this reading is implausible by itself."""
        problem = _impossible(tracker, reading)
        if problem is not None or tracker.fault is None:
            return problem or self._outran(tracker, reading, since_s, at_ns)
        # a joint under no command may be led away by hand from where it was known to be
        led = tracker.candidate is not None and not self._in_force
        near = (
            led
            or self._anywhere(tracker, reading)
            or _known(tracker, _spanned(tracker, reading, at_ns, self._in_force))
        )
        if near and (tracker.candidate is None or _steady(tracker, reading, since_s)):
            return None
        return _still(tracker, reading)

    def _anywhere(self, tracker: _Tracker, reading: float) -> bool:
        """Return True where no command says where the joint is: a steady reading may become plausible.

        Before anything was commanded every one, and after a silence those that the joint can have reached in it.
        """
        if not self._commanded_ever:
            return True
        joint, estimate, unseen_s = tracker.joint, tracker.estimate, tracker.unseen_s
        if estimate is None or unseen_s == 0.0:
            return False
        return abs(reading - estimate) <= joint.velocity_max * unseen_s + joint.margin

    def _doubt(
        self, tracker: _Tracker, reading: float, now_ns: int, problem: Implausible | None, guilty: Implausible
    ) -> None:
        """Freeze a joint whose message is rejected. Where no command says where it is, its reading may become plausible."""
        tracker.fault = problem or guilty
        tracker.candidate = None
        if self._anywhere(tracker, reading) and _impossible(tracker, reading) is None:
            _restart(tracker, reading, now_ns)
        if problem is not None:
            self.on_implausible(tracker.joint.name)

    def _since_s(self, tracker: _Tracker, stamp_ns: int, now_ns: int) -> float:
        """Return how long the joint may have moved since the reading before, in seconds.

        Stamps count where a message was late, as far as messages are; a clock that stepped moves no joint.
        """
        stamps_s = (stamp_ns - tracker.last_stamp_ns) * 1e-9
        arrivals_s = (now_ns - tracker.last_ns) * 1e-9
        if self.stamps_rule:
            return max(stamps_s, 0.0)
        return max(arrivals_s, min(stamps_s, arrivals_s + JITTER_S), 0.0)

    def _outran(self, tracker: _Tracker, reading: float, since_s: float, at_ns: int) -> Implausible | None:
        estimate, joint = tracker.estimate, tracker.joint
        if estimate is None or math.isinf(joint.velocity_max):
            return None
        possible = joint.velocity_max * since_s + joint.margin
        moved = abs(reading - estimate)
        if moved <= possible and (since_s <= GAP_S or _spanned(tracker, reading, at_ns, self._in_force)):
            return None
        where = f"joint '{joint.name}' reads {reading:.6g}{joint.unit}"
        was = f"{estimate:.6g}{joint.unit} {since_s * 1e3:.0f} ms before"
        most = f"{joint.velocity_max:.4g}{joint.unit}/s and a margin of {joint.margin:g}{joint.unit}"
        if moved > possible:
            text = f"{where}, it was at {was}: no joint that moves at most {most} gets there (plausibility_margin_rad)"
        elif self._in_force:
            text = f"{where}, it was at {was}, and no command moved it there"
        else:
            text = f"{where}, it was at {was}: it may have been moved meanwhile, and must be steady for {SETTLE_S:g} s"
        text += "; if it really is there, call ~/reset_guard"
        return Implausible(joint.name, reading, estimate, IMPLAUSIBLE, text)

    @staticmethod
    def _recover(tracker: _Tracker, reading: float, since_s: float, now_ns: int, spanned: bool) -> None:
        """Accept the joint again once its readings have been plausible for long enough, without an implausible one."""
        if tracker.candidate is None:
            _restart(tracker, reading, now_ns)
            return
        tracker.candidate = _towards(tracker.candidate, reading, tracker, since_s)
        tracker.readings += 1
        window_s = RECOVERY_S if _known(tracker, spanned) else SETTLE_S
        if tracker.readings >= LEAST_READINGS and (now_ns - tracker.since_ns) * 1e-9 >= window_s:
            _believe(tracker, reading, now_ns)


def _still(tracker: _Tracker, reading: float) -> Implausible:
    """Return the fault of a joint that is not back yet, with its newest reading; the expected position stays."""
    fault, joint = tracker.fault, tracker.joint
    assert fault is not None
    if fault.joint == joint.name and fault.reading == reading:
        return fault
    expected = "its position is unknown"
    if tracker.estimate is not None:
        expected = f"it is expected near {tracker.estimate:.6g}{joint.unit}"
    text = (
        f"joint '{joint.name}' reads {reading:.6g}{joint.unit}, and after a reading that cannot be true {expected};"
        " if it really is there, call ~/reset_guard"
    )
    return Implausible(joint.name, reading, tracker.estimate, IMPLAUSIBLE, text)


def _known(tracker: _Tracker, spanned: bool) -> bool:
    """Return True where the joint can be: on its way to the command, or anywhere for one without a speed limit."""
    return spanned or math.isinf(tracker.joint.velocity_max)


def _impossible(tracker: _Tracker, reading: float) -> Implausible | None:
    joint = tracker.joint
    problem = joint.ranges.problem([reading], [joint.name])
    if not problem:
        return None
    if not math.isfinite(reading):
        text = f"joint '{joint.name}' reports a position that is not finite ({reading})"
        return Implausible(joint.name, reading, tracker.estimate, NOT_FINITE, text)
    return Implausible(joint.name, reading, tracker.estimate, IMPLAUSIBLE, problem)


def _led_away(tracker: _Tracker, at_ns: int) -> bool:
    """Return True where a released joint was moved by other means, far from where its last command leads.

    One whose sensor froze or drifted under command has not moved since, and may be where it was commanded to be.
    """
    path, estimate, away = tracker.commanded, tracker.estimate, LED_AWAY * tracker.joint.margin
    if path is None or estimate is None or tracker.released_at is None:
        return False
    ends = (*path.span(at_ns), tracker.released_at)
    return not min(ends) - away <= estimate <= max(ends) + away


def _spanned(tracker: _Tracker, reading: float, at_ns: int, in_force: bool) -> bool:
    """Return True within the margin of the way between the estimate and the command, where the real joint went.

    A joint that is under command has soon left its last plausible position.
    """
    path = tracker.commanded
    ends = list(path.span(at_ns)) if path is not None else []
    frozen_s = (at_ns - tracker.frozen_ns) * 1e-9 if tracker.fault is not None else 0.0
    if tracker.estimate is not None and (path is None or not in_force or frozen_s <= LEFT_S):
        ends.append(tracker.estimate)
    margin = tracker.joint.margin
    return bool(ends) and min(ends) - margin <= reading <= max(ends) + margin


def _steady(tracker: _Tracker, reading: float, since_s: float) -> bool:
    assert tracker.candidate is not None
    joint = tracker.joint
    if math.isinf(joint.velocity_max):
        return True
    return abs(reading - tracker.candidate) <= joint.velocity_max * since_s + joint.margin


def _towards(before: float, reading: float, tracker: _Tracker, since_s: float) -> float:
    """Return the tracker's next estimate: as near to the reading as the joint can have come."""
    most = tracker.joint.velocity_max
    if math.isinf(most):
        return reading
    step = most * since_s
    return before + min(max(reading - before, -step), step)


def _restart(tracker: _Tracker, reading: float, now_ns: int) -> None:
    tracker.candidate, tracker.since_ns, tracker.readings = reading, now_ns, 1


def _believe(tracker: _Tracker, reading: float, now_ns: int) -> None:
    tracker.estimate, tracker.believed_ns = reading, now_ns
    tracker.fault = tracker.candidate = None


def joint_gate(
    embodiment: Embodiment | None, names: Iterable[str], margin_rad: float, *, stamps_rule: bool = False,
    on_implausible: Callable[[str], None] = lambda _: None,
) -> JointGate:  # fmt: skip
    """Return the gate for the joints `names` (the robot's own names) of one robot.

    A joint the embodiment does not know has neither range nor speed: its reading must be finite and at most LARGEST.
    So is one that is commanded by velocity: its range is one of velocities.
    Grippers have no speed here: they are commanded an end and move there in their own way, and an object may slip.
    """
    known: Mapping[str, int] = {}
    if embodiment is not None:
        rates = velocity_columns(embodiment.groups, embodiment.action_dim)
        known = {
            name: index
            for index, name in enumerate(embodiment.joint_names)
            if rates is None or not rates[index]
        }
    free = set() if embodiment is None else {end.component_idx for end in embodiment.two_ended}
    joints = []
    for name in dict.fromkeys(names):
        index = known.get(name)
        if embodiment is None or index is None:
            joints.append(Joint(name, unit=""))
            continue
        ranges = state_range(embodiment, (name,), None, margin_rad)
        velocity = embodiment.velocity_max
        limited = velocity is not None and index not in free and math.isfinite(velocity[index])
        most = float(velocity[index]) if velocity is not None and limited else math.inf
        joints.append(Joint(name, most, margin_rad, ranges, "" if index in free else " rad"))
    return JointGate(joints, stamps_rule, on_implausible)
