# SPDX-License-Identifier: Apache-2.0
"""The latest message of every stream, and the gates that an observation must pass before inference may use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kind import MAX_PIXELS
from reflex_core.robot.clocks import StampLags
from reflex_core.robot.intake import has_words
from reflex_core.robot.joint_gate import NOT_FINITE, Implausible, JointGate, Path, joint_gate
from reflex_core.robot.motion_check import MotionCheck
from reflex_core.robot.path_tolerance import PathTolerance
from reflex_core.robot.plausibility import ANYTHING, MARGIN_RAD
from reflex_core.text.untrusted import escaped
from reflex_core.values import Floats, Frame, Observation
from reflex_ros.messages.images import frame
from reflex_ros.messages.raw import Consumed, RawMessage
from reflex_ros.node.past import Past

NOTHING_CONSUMED = Consumed({}, ())
NAMES_KEPT, NAMES_SHOWN = 256, 32  # of joints that the policy does not know
FUTURE_NS = 1_000_000_000  # clocks of two machines differ by milliseconds; a second means another clock


class RefusedObservationError(ObservationError):
    """The observation must not be used: `slug` is the reason counted and shown, the message names what to check."""


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits in milliseconds: the oldest stamp, and the largest distance between stamps."""

    max_age_ms: float
    max_skew_ms: float


class ObservationBuffer:
    """Depth one per stream. Messages are kept as they came and decoded only when inference takes them.

    Joint states may come in parts (arm and gripper on one topic): they are merged by name. A reading that cannot be
    true (`gate`) is stored like any other and never used.
    """

    def __init__(
        self,
        cameras: tuple[str, ...],
        joint_names: tuple[str, ...],
        needs_state: bool,
        max_pixels: int = MAX_PIXELS,
        gate: JointGate | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        tolerance: PathTolerance | None = None,
        past: Past | None = None,
    ) -> None:
        """Store nothing yet. past: what is looked back at by policies that see several observations."""
        self._cameras = cameras
        self._joint_names = joint_names
        self._needs_state = needs_state
        self._max_pixels = max_pixels
        self._gate = joint_gate(None, joint_names, MARGIN_RAD) if gate is None else gate
        self._tolerance = PathTolerance((), 0.0) if tolerance is None else tolerance
        self._monotonic_ns = monotonic_ns
        self._past = Past(1, 0.0) if past is None else past
        self._lock = threading.Lock()
        self._images: dict[str, RawMessage] = {}
        self._joints: dict[str, tuple[RawMessage, float]] = {}
        # when it came, on the monotonic clock: of every joint, every camera, and the state that is not joints
        self._arrived_ns: dict[str, int] = {}
        self._seen_ns: dict[str, int] = {}
        self._not_before_ns = self._vector_ns = 0
        self._vector: tuple[RawMessage, Floats] | None = None
        self._doubted, self.doubts = False, 0  # how often the joints' readings ceased to be believed
        self.lags = StampLags()
        self.motion = MotionCheck()  # of joints that a person moves in a dry run
        self.instruction = ""
        self.topics: dict[
            str, str
        ] = {}  # real names, remappings done: by camera, and of state, instruction, episode
        self.consumed = NOTHING_CONSUMED

    def put_image(self, camera: str, arrival: RawMessage) -> None:
        """Store the newest image of a camera; cheap, for the executor thread."""
        now_ns = self._monotonic_ns()
        self.lags.note(f"camera {camera}", arrival.received_ns - arrival.stamp_ns, now_ns)
        with self._lock:
            self._images[camera], self._seen_ns[camera] = arrival, now_ns
            self._remember()

    def put_joints(self, arrival: RawMessage, names: Sequence[str], positions: Sequence[float]) -> None:
        """Store the newest position of every named joint (rad or m)."""
        if len(names) != len(positions):
            return  # a message without positions (effort only) says nothing about where the joints are
        now_ns = self._monotonic_ns()
        self.lags.note("state", arrival.received_ns - arrival.stamp_ns, now_ns)
        with self._lock:
            for name, position in zip(names, positions, strict=True):
                if name in self._joint_names or name in self._joints or len(self._joints) < NAMES_KEPT:
                    self._joints[name] = (arrival, position)
                    self._arrived_ns[name] = now_ns
            self.motion.put(names, positions)
            self._gate.put(names, positions, arrival.stamp_ns, now_ns)
            if self._gate.fault(names) is None:
                self._tolerance.put(names, positions, arrival.stamp_ns if self._gate.stamps_rule else now_ns)
            before, self._doubted = self._doubted, self._fault() is not None
            self.doubts += self._doubted and not before
            self._remember()

    def put_vector(self, arrival: RawMessage, vector: Floats) -> None:
        """Store the newest state other than joints (Imu, Odometry)."""
        now_ns = self._monotonic_ns()
        self.lags.note("state", arrival.received_ns - arrival.stamp_ns, now_ns)
        with self._lock:
            self._vector, self._vector_ns = (arrival, vector), now_ns
            self._remember()

    def _remember(self) -> None:
        """Keep what every stream gives just now, where it is believed and the policy will look back at it. Needs the lock."""
        if not self._past.looked_at or any(camera not in self._images for camera in self._cameras):
            return
        images = {camera: self._images[camera] for camera in self._cameras}
        stamps = [image.stamp_ns for image in images.values()]
        if stamps and not self._past.wants(stamps):  # as nearly always
            return
        try:
            state, messages = self._state()
        except RefusedObservationError:
            return
        if self._past.wants([*stamps, *(message.stamp_ns for message in messages)]):
            self._past.keep(images, state, messages)

    def new_episode(self) -> None:
        """Forget what was measured before: a policy looks back at nothing of another episode."""
        with self._lock:
            self._past.clear()

    def clear(self, *, moved: bool = True) -> None:
        """Forget every sensor message: the clock jumped. moved: the robot may be anywhere now, as in a simulator."""
        self.lags.clear()
        with self._lock:
            self._images.clear()
            self._joints.clear()
            self._vector = None
            self._past.clear()
            if moved:
                self._gate.reset()
                self._tolerance.reset()

    def fault(self) -> Implausible | None:
        """Return why the joints' present readings are not believed; None when they are, or where there are none."""
        with self._lock:
            return self._fault()

    def _fault(self) -> Implausible | None:
        return self._gate.fault(self._joint_names) or self._tolerance.fault()

    def moved(self) -> dict[str, str]:
        """Return what the readings of each joint have shown, in a few words; of those that `motion` checks."""
        with self._lock:
            return dict(self.motion.verdicts())

    def motion_left(self) -> tuple[str, ...]:
        """Return the joints that `motion` still has to see moved."""
        with self._lock:
            return self.motion.unmoved

    def tracking_error(self) -> str:
        """Return which joint is far from its command, "" while all are near it."""
        with self._lock:
            return self._tolerance.warning()

    def commanded(
        self, names: Sequence[str], rows: Floats, first_in_ns: int, now_ns: int, dt_s: float
    ) -> None:
        """Take note of the commanded rows. rows: (n, len(names)) rad or m, `dt_s` apart.

        first_in_ns: how long from `now_ns` (the robot's clock) until the first row is due.
        """
        with self._lock:
            clock_ns = now_ns if self._gate.stamps_rule else self._monotonic_ns()
            first_ns = clock_ns + first_in_ns
            columns = rows.T.tolist()
            paths = {name: Path(column, first_ns, dt_s) for name, column in zip(names, columns, strict=True)}
            self._gate.commanded(paths)
            self._tolerance.commanded(paths, clock_ns)

    def released(self, rest_ns: int) -> None:
        """Take note that nothing is commanded any more. rest_ns: when the robot has come to rest (monotonic).

        Joint states from before say nothing of where it is by then, however fresh they are otherwise.
        """
        with self._lock:
            self._gate.released()
            self._tolerance.released()
            self._not_before_ns = rest_ns

    def anchor(self) -> str:
        """Trust the present readings, because an operator confirms them; return why one cannot be, else ""."""
        with self._lock:
            problem = self._gate.anchor(self._joint_names)
            if not problem:
                self._tolerance.anchor()
            return problem

    def measured(self, names: Sequence[str], now_ns: int, max_age_ms: float) -> Floats | None:
        """Return joint positions (len(names),) in rad or m that are plausible and at most `max_age_ms` old, else None."""
        with self._lock:
            found = [self._joints.get(name) for name in names]
            entries = [entry for entry in found if entry is not None]
            fault = self._gate.fault(names) or self._tolerance.fault()
            if not entries or len(entries) < len(found) or fault is not None:
                return None
            arrived_ns = min(self._arrived_ns[name] for name in names)
            if arrived_ns < self._not_before_ns or self._silent_ms(arrived_ns) > max_age_ms:
                return None
        ages_ms = [(now_ns - arrival.stamp_ns) * 1e-6 for arrival, _ in entries]
        if max(ages_ms) > max_age_ms or min(ages_ms) < -FUTURE_NS * 1e-6:
            return None
        positions = np.array([position for _, position in entries], dtype=np.float32)
        return positions if np.isfinite(positions).all() else None

    def believed(self, names: Sequence[str]) -> tuple[list[float], int] | None:
        """Return the last plausible positions, however old, and since when (monotonic ns).

        None before there were any, and while a joint does not follow: its reading is no evidence against its command.
        """
        with self._lock:
            return self._gate.believed(names) if self._tolerance.fault() is None else None

    def needed(self) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
        """Return the cameras that an observation needs, whether it needs a state, and the joints that were never seen."""
        with self._lock:
            seen = self._joint_names if self._vector is not None else tuple(self._joints)
        return self._cameras, self._needs_state, tuple(name for name in self._joint_names if name not in seen)

    def ages_ms(self, now_ns: int) -> dict[str, float]:
        """Return the age in ms of each stream's newest message; a stream that was never seen is absent."""
        with self._lock:
            ages = {f"camera {name}": (now_ns - a.stamp_ns) * 1e-6 for name, a in self._images.items()}
            stamps = [entry[0].stamp_ns for name, entry in self._joints.items() if name in self._joint_names]
            if self._vector is not None:
                stamps.append(self._vector[0].stamp_ns)
        if stamps:
            ages["state"] = (now_ns - min(stamps)) * 1e-6
        return ages

    def take(self, now_ns: int, gates: Gates, *, needs_words: bool = False) -> Observation:
        """Return the newest message of every stream as one observation.

        `consumed` is then what it was made of, until the next call. needs_words: the policy reads the instruction.
        Raises RefusedObservationError when the observation must not be acted on.
        """
        observation, self.consumed = self._looked_back(now_ns, gates)
        if needs_words and not has_words(observation.instruction):
            topic = self.topics.get("instruction", "/instruction")
            raise RefusedObservationError(
                f"no instruction yet: publish one on the topic {topic}", "no_instruction"
            )
        return observation

    def newest(self, now_ns: int, gates: Gates) -> Observation:
        """Return what `take` would, without counting as consumed. Raises RefusedObservationError where it would refuse."""
        return self._looked_back(now_ns, gates)[0]

    def _looked_back(self, now_ns: int, gates: Gates) -> tuple[Observation, Consumed]:
        """Return the newest observation with those before it that the policy sees, and what they are made of."""
        observation, consumed = self._newest(now_ns, gates)
        with self._lock:
            history, messages = self._past.before(observation, now_ns, gates.max_skew_ms, self._max_pixels)
        return replace(observation, history=history), replace(consumed, history=messages)

    def newest_state(self, now_ns: int, gates: Gates) -> Observation:
        """Return an observation of the robot's state alone, stamped now. Raises RefusedObservationError where it may not be used."""
        with self._lock:
            state, messages = self._state()
            seen_ns = self._state_seen_ns() if messages else 0
        if messages:
            check_stamps({"the robot state": min(message.stamp_ns for message in messages)}, now_ns, gates)
            self._check_arrivals({"the robot state": seen_ns}, gates)
        return Observation({}, state, self.instruction, now_ns)

    def peek(self, now_ns: int, gates: Gates) -> Observation | None:
        """Return what `take` would, without counting as consumed; None where it would refuse."""
        try:
            return self._newest(now_ns, gates)[0]
        except ObservationError:
            return None

    def _newest(self, now_ns: int, gates: Gates) -> tuple[Observation, Consumed]:
        with self._lock:
            images = dict(self._images)
            seen_ns = {f"camera '{camera}'": self._seen_ns[camera] for camera in images}
            state, messages = self._state()
            if messages:
                seen_ns["the robot state"] = self._state_seen_ns()
        for camera in self._cameras:
            if camera not in images:
                raise RefusedObservationError(
                    f"no image from camera '{camera}' yet{self._on(camera)}", "camera_missing"
                )
        stamps = {f"camera '{camera}'": images[camera].stamp_ns for camera in self._cameras}
        if messages:
            stamps["the robot state"] = min(message.stamp_ns for message in messages)
        oldest = check_stamps(stamps, now_ns, gates)
        self._check_arrivals({stream: seen_ns[stream] for stream in stamps}, gates)
        frames: Mapping[str, Frame] = {
            camera: frame(images[camera], self._max_pixels) for camera in self._cameras
        }
        consumed = Consumed({camera: images[camera] for camera in self._cameras}, messages)
        return Observation(frames, state, self.instruction, oldest, (now_ns - oldest) * 1e-6), consumed

    def _silent_ms(self, arrived_ns: int) -> float:
        """Return how long ago a message came, in ms; 0 in simulated time, where only stamps measure time."""
        return 0.0 if self._gate.stamps_rule else (self._monotonic_ns() - arrived_ns) * 1e-6

    def _check_arrivals(self, seen_ns: Mapping[str, int], gates: Gates) -> None:
        """Raise RefusedObservationError for a stream that is silent while stamps from the future keep it young."""
        for stream, arrived_ns in seen_ns.items():
            silent_ms = self._silent_ms(arrived_ns)
            if silent_ms > gates.max_age_ms:
                raise RefusedObservationError(
                    f"{stream} came {silent_ms:.0f} ms ago, the limit is {gates.max_age_ms:g} ms (max_age_ms), and its"
                    " stamp is from the future: check the clocks",
                    "stale",
                )

    def _state_seen_ns(self) -> int:
        if self._vector is not None:
            return self._vector_ns
        return min(self._arrived_ns[name] for name in self._joint_names)

    def _on(self, stream: str) -> str:
        return f" on {self.topics[stream]}" if stream in self.topics else ""

    def _state(self) -> tuple[Floats | None, tuple[RawMessage, ...]]:
        """Return the state, and the messages it is made of."""
        if self._vector is not None:
            arrival, vector = self._vector
            problem = ANYTHING.problem(vector)
            if problem:
                raise RefusedObservationError(f"{arrival.topic}: {problem}", NOT_FINITE)
            return vector, (arrival,)
        if not self._needs_state:
            return None, ()
        missing = [name for name in self._joint_names if name not in self._joints]
        if missing or not self._joint_names:
            seen = ", ".join(escaped(name, 40) for name in sorted(self._joints)[:NAMES_SHOWN]) or "none"
            reason = "state_missing" if not self._joints else "joint_names"
            raise RefusedObservationError(
                f"joint states{self._on('state')} lack {', '.join(missing)}; joints seen: {seen}", reason
            )
        fault = self._fault()
        if fault is not None:
            raise RefusedObservationError(fault.text, fault.reason)
        if self._state_seen_ns() < self._not_before_ns:
            raise RefusedObservationError("no robot state since the robot came to rest", "stale")
        entries = [self._joints[name] for name in self._joint_names]
        positions = np.array([position for _, position in entries], dtype=np.float32)
        return positions, tuple({id(arrival): arrival for arrival, _ in entries}.values())


def check_stamps(stamps: Mapping[str, int], now_ns: int, gates: Gates) -> int:
    """Return the oldest stamp (ns), now at the latest. Raises RefusedObservationError: too old, in the future, or far from the others.

    What a clock that is a little ahead stamps was not seen later than now: a chunk would else begin only then.
    """
    if not stamps:
        return now_ns
    for stream, stamp in stamps.items():
        age_ms = (now_ns - stamp) * 1e-6
        if age_ms > gates.max_age_ms:
            raise RefusedObservationError(
                f"{stream} is {age_ms:.0f} ms old, the limit is {gates.max_age_ms:g} ms (max_age_ms)", "stale"
            )
        if stamp - now_ns > FUTURE_NS:
            raise RefusedObservationError(
                f"{stream} is stamped {-age_ms:.0f} ms in the future: check the clocks and use_sim_time",
                "future_stamp",
            )
    first, last = min(stamps, key=lambda name: stamps[name]), max(stamps, key=lambda name: stamps[name])
    skew_ms = (stamps[last] - stamps[first]) * 1e-6
    if skew_ms > gates.max_skew_ms:
        raise RefusedObservationError(
            f"{first} lags {last} by {skew_ms:.0f} ms, the limit is {gates.max_skew_ms:g} ms (max_skew_ms)",
            "skewed",
        )
    return min(now_ns, *stamps.values())
