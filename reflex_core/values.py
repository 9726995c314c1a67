# SPDX-License-Identifier: Apache-2.0
"""The values of requests and answers: Observation, Request, ActionChunk, Served. All frozen.

Units are SI and angles radians. Times called `_ns` are integers: `stamp_ns` on the robot's clock (ROS time),
`received_ns` on this process's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.reports import (
    NO_CACHE,
    NO_FALLBACK,
    NOT_AVERAGED,
    NOT_CHECKED,
    NOT_CORRECTED,
    NOT_GUIDED,
    NOT_ROUTED,
    A2C2Report,
    CacheReport,
    Document,
    EnsembleReport,
    Fallback,
    GuardReport,
    RoutingReport,
    RtcReport,
)  # fmt: skip

T = TypeVar("T")

Floats = NDArray[np.float32]
Columns = NDArray[np.intp]  # where in a vector something stands
Pixels = NDArray[np.uint8]

POLICY = "policy"
LAST_KNOWN_GOOD = "last_known_good"
CLOUD = "cloud"
HOLD = "hold"
TELEOP = "teleop"
HAND_BACK = "hand-back"
# who commands the robot: the policy, a person, or none while it is held after a person, until the policy's first chunk
CONTROLS = (POLICY, TELEOP, HAND_BACK)

NOTHING: Mapping[str, Any] = MappingProxyType({})

# who a request is counted for: a robot by the name it gives, else by what is known of it, behind a prefix
ROS = "ros"  # the robot of the node in this process; no request from outside may be called so
SESSION, EPISODE, PEER = "session:", "episode:", "peer:"
PREFIXES = (SESSION, EPISODE, PEER)
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image as it arrived; pixels are made only when inference consumes it.

    data: the encoded file (`jpeg`, `png`) or the raw rows, `step` bytes apart.
    encoding: `jpeg`, `png`, or a ROS image encoding such as `rgb8`, `bgr8`, `mono8`, `bayer_rggb8`.
    decoder: makes HxWx3 uint8 RGB of this frame where the built-in decoding is not wanted (cv_bridge).
    """

    data: Any
    encoding: str
    height: int = 0
    width: int = 0
    step: int = 0
    decoder: Callable[[Frame], Pixels] | None = None

    @property
    def size_bytes(self) -> int:
        """Memory that its data hold on to."""
        data = self.data
        return (
            int(data.nbytes) if hasattr(data, "nbytes") else len(data)
        )  # array.array of bytes has no nbytes


@dataclass(frozen=True, slots=True)
class Observation:
    """Inputs of the policy: frames by camera name, the robot state, and the instruction.

    state: (state_dim,) float32 in the embodiment's order, or None when the caller has none.
    stamp_ns: the OLDEST sensor stamp, 0 when unknown. age_ms: its age when the observation was taken.
    history: the observations before it, oldest first and one control period apart, for a policy that sees several.
    """

    frames: Mapping[str, Frame]
    state: Floats | None
    instruction: str
    stamp_ns: int = 0
    age_ms: float = 0.0
    history: tuple[Observation, ...] = ()

    @property
    def image_bytes(self) -> int:
        """Memory of its frames and of those before them, each counted once."""
        frames = (frame for one in (self, *self.history) for frame in one.frames.values())
        return sum({id(frame): frame.size_bytes for frame in frames}.values())

    @property
    def size_bytes(self) -> int:
        """Memory of its frames and states."""
        states = (one.state for one in (self, *self.history) if one.state is not None)
        return self.image_bytes + sum(state.nbytes for state in states)

    def earlier(self, steps: int) -> tuple[Observation, ...]:
        """Return the `steps` - 1 observations before this one, oldest first.

        Where fewer are known the oldest stands for those before it, as LeRobot begins an episode.
        """
        known = self.history[max(0, len(self.history) - steps + 1) :]
        oldest = known[0] if known else self
        return (oldest,) * (steps - 1 - len(known)) + known


@dataclass(frozen=True, slots=True)
class HistoryReport:
    """The earlier observations of a policy that sees several, `steps` with the newest one; 0 where no policy does.

    given: so many came with the request; kept: so many of the episode's earlier requests were taken; filled: so many are
    copies of the oldest that is known. ages_ms: how much older than the newest each is, oldest first; None where unknown.
    """

    steps: int = 0
    given: int = 0
    kept: int = 0
    filled: int = 0
    ages_ms: tuple[float | None, ...] = ()

    @property
    def present(self) -> bool:
        """True where a policy sees several observations."""
        return self.steps > 0

    def document(self) -> Document:
        """Return the block of replies, records and spans."""
        return {
            "steps": self.steps,
            "given": self.given,
            "kept": self.kept,
            "filled": self.filled,
            "ages_ms": [None if age is None else round(age, 3) for age in self.ages_ms],
        }


NO_HISTORY = HistoryReport()


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the engine. `seed` None lets the engine choose one; it is always in the answer.

    deadline_ns: when the answer must be there (monotonic), None without a deadline. max_steps: denoise steps a degraded
    service allows. newest: the newest observation, None where only `observation` is known. forwarded: another
    server sent it, because its own policy failed; it is not sent back. traceparent, tracestate: the caller's span as W3C
    Trace Context writes it, checked by the interface; empty without one. caller: its id (robot/callers.py), bounded printable
    text; empty where the interface does not set it. history: where the earlier observations came from. wire: how the request
    came: `ros`, or the name of a wire. useful_until_ns: when an answer is of no more use to its caller, as it stated (monotonic);
    unlike `deadline_ns` nothing answers in its place then.
    """

    observation: Observation
    received_ns: int
    request_id: str
    episode_id: str | None = None
    seed: int | None = None
    deadline_ns: int | None = None
    cancellation: Cancellation | None = None
    max_steps: int | None = None
    forwarded: bool = False
    newest: Callable[[], Observation | None] | None = None
    elapsed_rows: float | None = None
    previous_request_id: str = ""
    traceparent: str = ""
    tracestate: str = ""
    caller: str = ""
    history: HistoryReport = NO_HISTORY
    wire: str = ROS
    useful_until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """`horizon` future actions. Row i is to be reached at the observation's stamp + (i + 1) * dt_s.

    actions: (horizon, action_dim) float32. start_index: the first row that has not elapsed yet.
    """

    actions: Floats
    names: tuple[str, ...]
    dt_s: float
    source: str = POLICY
    start_index: int = 0

    @property
    def of_person(self) -> bool:
        """True where no policy made it: a person commanded it."""
        return self.source == TELEOP


@dataclass(frozen=True, slots=True)
class Inference:
    """How the policy made the chunk; no steps and no stages where no inference ran.

    mode: onnx_cpu, onnx_gpu, onnx_trt_fp16, onnx_trt_fp32, remote, or cloud. adaptive_threshold: relative velocity change at which denoising
    stopped, 0.0 where it takes all steps. max_steps: denoise steps that a degraded service allowed. tokens_cut: how many
    tokens of the instruction did not fit the policy's window. masked_cameras: those that the policy reads and that gave
    no image. stages_ms: named parts of the latency. batch_size: requests that shared the run of the network.
    """

    mode: str
    denoise_steps_configured: int
    denoise_steps: int = 0
    adaptive_enabled: bool = False
    adaptive_threshold: float = 0.0
    max_steps: int | None = None
    tokens_cut: int = 0
    masked_cameras: tuple[str, ...] = ()
    stages_ms: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    batch_size: int = 1

    def document(self) -> Document:
        """Return the block of replies, records, spans and messages."""
        return {
            "inference_mode": self.mode,
            "denoise_steps": self.denoise_steps,
            "denoise_steps_configured": self.denoise_steps_configured,
            "adaptive_enabled": self.adaptive_enabled,
            "instruction_tokens_cut": self.tokens_cut,
        }

    def replay_document(self) -> Document:
        """Return what a trace adds, because a replay needs it; None: nothing to add."""
        threshold = self.adaptive_threshold if self.adaptive_enabled else None
        batch = self.batch_size if self.batch_size > 1 else None
        return {"adaptive_threshold": threshold, "max_steps": self.max_steps, "batch_size": batch}

    def not_run(self) -> Inference:
        """Return the same policy without an inference."""
        return replace(self, denoise_steps=0, tokens_cut=0, stages_ms=NOTHING, batch_size=1)


@dataclass(frozen=True, slots=True)
class Served:
    """The answer: the chunk that may be executed, and how it was made.

    raw_actions: (horizon, action_dim) float32 before the guard. hold_reason: why the chunk is a hold: non_finite,
    guard_tripped, deadline; empty otherwise. unreached: why the policy's poses cannot be reached; the guard makes a hold of
    the chunk. latency_ms: receipt of the request to the finished answer, injected_latency_ms
    of it on purpose. trace_seq: its record in the trace, -1.

    Each block has a `document()` with its public fields, and the writers of replies, records, spans and messages
    take those documents as they are: a field that is added to a block is in all of them.
    """

    chunk: ActionChunk
    raw_actions: Floats
    request_id: str
    episode_id: str | None
    seed: int
    slot: str
    model_version: str
    inference: Inference
    model_hash: str = ""
    config_hash: str = ""
    hold_reason: str = ""
    unreached: str = ""
    latency_ms: float = 0.0
    injected_latency_ms: float = 0.0
    trace_seq: int = -1
    guard: GuardReport = NOT_CHECKED
    fallback: Fallback = NO_FALLBACK
    cache: CacheReport = NO_CACHE
    rtc: RtcReport = NOT_GUIDED
    ensemble: EnsembleReport = NOT_AVERAGED
    a2c2: A2C2Report = NOT_CORRECTED
    routing: RoutingReport = NOT_ROUTED
    history: HistoryReport = NO_HISTORY

    def not_inferred(self) -> Served:
        """Return the same answer without the fields of an inference: for what no inference made."""
        return replace(
            self,
            inference=self.inference.not_run(),
            cache=NO_CACHE,
            rtc=NOT_GUIDED,
            ensemble=NOT_AVERAGED,
            a2c2=NOT_CORRECTED,
            unreached="",
        )


def changed(value: T, **values: Any) -> T:
    """Return a copy of a frozen dataclass with slots, these fields changed: dataclasses.replace in a third of the time.

    Its `__init__` and `__post_init__` do not run. Raises AttributeError for a field that it has not.
    """
    kind: Any = type(value)
    made: T = object.__new__(kind)
    for get, put in _slots(kind):
        put(made, get(value))
    for name, new in values.items():
        getattr(kind, name).__set__(made, new)
    return made


@cache
def _slots(kind: Any) -> tuple[tuple[Callable[[Any], Any], Callable[[Any, Any], None]], ...]:
    """Return what reads and what writes each field, past the check that the class is frozen."""
    slots = [getattr(kind, field.name) for field in fields(kind)]
    return tuple((slot.__get__, slot.__set__) for slot in slots)
