# SPDX-License-Identifier: Apache-2.0
"""The values of a replay: where records come from, what answers them, and how an answer differed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from reflex_core.records.trace.parse import Recorded
from reflex_core.reports import NOT_CACHED
from reflex_core.values import NOTHING, Floats

ACTIONS, LATENCY, CACHE, ALL = "actions", "latency", "cache", "all"
MODES = (ACTIONS, LATENCY, CACHE)


class Source(Protocol):
    """A trace or a bag. Iterate once, or read its notes of some kinds. Raises TraceError when it cannot be read.

    warnings: what was skipped; damage: those of them that mean that records are missing or incomplete. fraction: how
    much has been read, 0 to 1.
    """

    @property
    def header(self) -> Mapping[str, Any]: ...

    @property
    def warnings(self) -> Sequence[str]: ...

    @property
    def damage(self) -> Sequence[str]: ...

    @property
    def fraction(self) -> float: ...

    def __iter__(self) -> Iterator[Recorded]: ...

    def notes(self, *kinds: str) -> Iterator[tuple[str, Mapping[str, Any]]]: ...

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the target made of a recorded request.

    actions: (horizon, action_dim) float32, raw, in the recorded columns' order. names: one per column.
    """

    actions: Floats
    names: tuple[str, ...]
    denoise_steps: int
    total_ms: float
    stages_ms: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    cache_status: str = NOT_CACHED


class Target(Protocol):
    """What recorded requests are run against."""

    def replay(self, record: Recorded) -> Replayed:
        """Answer a record. Any exception is a failure of that record, not of the replay."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """When a replay counts as the same.

    max_abs: largest difference of any action, physical units. joint_share: largest difference of one joint as a share
    of its largest recorded value in the chunk, so that a wrong joint of small travel is seen; differences up to
    joint_floor are allowed whatever the share. latency_pct: of the recorded latency.
    """

    min_cosine: float = 0.999
    max_abs: float = 1e-3
    joint_share: float = 0.01
    joint_floor: float = 1e-6
    latency_pct: float = 5.0


@dataclass(frozen=True, slots=True)
class JointDiff:
    """One joint (column) of a chunk, physical units."""

    name: str
    max_abs: float
    allowed: float

    @property
    def passed(self) -> bool:
        """True when the joint is near enough; NaN is not."""
        return self.max_abs < self.allowed


@dataclass(frozen=True, slots=True)
class ActionsDiff:
    """Two chunks. cosine and max_abs are None where the shapes differ and nothing can be compared."""

    recorded_shape: tuple[int, ...]
    replayed_shape: tuple[int, ...]
    cosine: float | None
    max_abs: float | None
    joints: tuple[JointDiff, ...]
    passed: bool


@dataclass(frozen=True, slots=True)
class LatencyDiff:
    """recorded_ms: without the latency that was injected on purpose. pct: None where nothing was recorded."""

    recorded_ms: float
    replayed_ms: float
    pct: float | None
    passed: bool
    stages_ms: Mapping[str, tuple[float | None, float]] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class CacheDiff:
    """hit, miss or n/a, as recorded and as the replay had it."""

    recorded: str
    replayed: str

    @property
    def passed(self) -> bool:
        """True when they are the same."""
        return self.recorded == self.replayed


@dataclass(frozen=True, slots=True)
class RequestDiff:
    """One replayed request. error: why there is nothing to compare; then it has failed in every mode.

    A mode that was not requested is None. steps: denoise steps recorded and replayed. batch_size: requests that shared the
    recorded run of the network; the replayed one is always of one.
    """

    seq: int
    slot: str
    error: str = ""
    actions: ActionsDiff | None = None
    latency: LatencyDiff | None = None
    cache: CacheDiff | None = None
    steps: tuple[int, int] | None = None
    batch_size: int = 1

    def passed(self, mode: str) -> bool:
        """Return whether the diff of that mode was made and passed."""
        made = {ACTIONS: self.actions, LATENCY: self.latency, CACHE: self.cache}[mode]
        return made is not None and made.passed
