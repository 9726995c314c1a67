# SPDX-License-Identifier: Apache-2.0
"""The values that travel: Observation, Request, ActionChunk, Served. All frozen.

Units are SI and angles radians. Times called `_ns` are integers: `stamp_ns` on the robot's clock (ROS time),
`received_ns` on this process's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.concurrency.cancellation import Cancellation

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

POLICY = "policy"
LAST_KNOWN_GOOD = "last_known_good"
CLOUD = "cloud"
HOLD = "hold"

NOTHING: Mapping[str, Any] = MappingProxyType({})


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


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees: frames by camera name, the robot state, and what it is told to do.

    state: (state_dim,) float32 in the embodiment's order, or None when the caller has none.
    stamp_ns: the OLDEST sensor stamp, 0 when unknown. age_ms: its age when the observation was taken.
    """

    frames: Mapping[str, Frame]
    state: Floats | None
    instruction: str
    stamp_ns: int = 0
    age_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the engine. `seed` None lets the engine choose one; it is always in the answer.

    deadline_ns: when the answer must be there (monotonic), None without a deadline. max_steps: denoise steps a degraded
    service allows. newest: what the robot sees by now, None where only `observation` is known. forwarded: another
    server asks, because its own policy failed; it is not asked back. traceparent, tracestate: the caller's span as W3C
    Trace Context writes it, checked by the door; empty without one. caller: who asks (robot/callers.py), bounded printable
    text; empty where the door does not say.
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


@dataclass(frozen=True, slots=True)
class GuardReport:
    """What the guard changed: `violations` name the joint, the bound, the value and the limit."""

    clamped: bool = False
    clamp_count: int = 0
    violations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Served:
    """The answer: the chunk that may be executed, and everything worth knowing about how it came to be.

    raw_actions: (horizon, action_dim) float32 before the guard. stages_ms: named parts of latency_ms.
    tokens_cut: how many tokens of the instruction did not fit the policy's window.
    masked_cameras: cameras that the policy reads and that gave no picture.
    hold_reason: why the chunk is a hold: non_finite, guard_tripped, deadline; empty otherwise.
    fallback_age_ms: how old the chunk is that stands in, 0.0 for a fresh one; fallback_request_id: whose answer it was.
    trace_seq: its record in the trace, -1.
    adaptive_threshold: relative velocity change at which denoising stopped, 0.0 where it takes all steps. max_steps: denoise
    steps that a degraded service allowed.
    routing: how its slot was found: slot, routing_key, degraded, cached, bucket, split, crash_verdict; empty with one policy.
    a2c2: what the correction head did: applied, reason, correction_magnitude; empty without one.
    cache_status: hit, miss, or n/a where no prefix is kept; cache_age_ms: how much older than the observation it was.
    rtc_mode: how the previous chunk guided this one, empty when it did not; rtc_delay: rows taken over from it;
    rtc_previous: its request_id; rtc_elapsed_rows: how many of its rows were over at this observation.
    """

    chunk: ActionChunk
    raw_actions: Floats
    request_id: str
    episode_id: str | None
    seed: int
    slot: str
    model_version: str
    inference_mode: str
    denoise_steps: int
    denoise_steps_configured: int
    tokens_cut: int = 0
    masked_cameras: tuple[str, ...] = ()
    latency_ms: float = 0.0
    stages_ms: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    guard: GuardReport = GuardReport()
    adaptive_enabled: bool = False
    adaptive_threshold: float = 0.0
    max_steps: int | None = None
    deadline_exceeded: bool = False
    fallback_age_ms: float = 0.0
    fallback_request_id: str = ""
    hold_reason: str = ""
    injected_latency_ms: float = 0.0
    trace_seq: int = -1
    model_hash: str = ""
    config_hash: str = ""
    routing: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    a2c2: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    cache_status: str = "n/a"
    cache_age_ms: float = 0.0
    rtc_mode: str = ""
    rtc_delay: int = 0
    rtc_previous: str = ""
    rtc_elapsed_rows: float = 0.0


# what an answer says of its making when no inference made it: for `replace`
NOT_INFERRED: Mapping[str, Any] = MappingProxyType(
    {
        "denoise_steps": 0, "tokens_cut": 0, "stages_ms": NOTHING, "cache_status": "n/a", "cache_age_ms": 0.0,
        "rtc_mode": "", "rtc_delay": 0, "rtc_previous": "", "rtc_elapsed_rows": 0.0, "a2c2": NOTHING,
    }
)  # fmt: skip
