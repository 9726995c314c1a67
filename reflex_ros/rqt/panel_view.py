# SPDX-License-Identifier: Apache-2.0
"""Values that the panel draws: one immutable view of a moment. No Qt and no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reflex_core.values import Floats, Pixels

NO_ANSWER, NO_STATUS = "no answer", "no status"  # beside the states that a node reports
STALE_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Second:
    """The chunks received in one second; at_s: its begin, monotonic. odd: the newest source that is not the policy."""

    at_s: int
    count: int
    least_ms: float
    most_ms: float
    total_ms: float
    odd: str = ""

    @property
    def mean_ms(self) -> float:
        """Return the mean latency."""
        return self.total_ms / self.count


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """rows: (horizon, action_dim) float32, rad or m. start: the first row that had not elapsed at `at_s`.

    wanted: what the model wanted of a joint beyond its range, where the guard changed it.
    """

    names: tuple[str, ...]
    rows: Floats
    dt_s: float
    start: int
    source: str
    at_s: float
    wanted: Mapping[str, float] = field(default_factory=dict)

    def row_at(self, now_s: float) -> float:
        """Return the row that is due now, between 0 and the last."""
        elapsed = (now_s - self.at_s) / self.dt_s if self.dt_s > 0.0 else 0.0
        return float(min(max(self.start + elapsed, 0.0), max(len(self.rows) - 1, 0)))


@dataclass(frozen=True, slots=True)
class GuardEvent:
    """An action of the guard on chunks; `count` in a row were the same. text: in words; line: as the guard wrote it."""

    at_s: float
    line: str
    text: str
    advice: str
    chunk_id: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """One policy slot as this panel saw it."""

    name: str
    model_version: str
    chunks: int
    median_ms: float


@dataclass(frozen=True, slots=True)
class Concern:
    """One concern of /diagnostics. level: 0 fine, 1 warning, 2 error, 3 stale. values: its details."""

    name: str
    level: int
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The newest picture of a camera. pixels: (height, width, 3) uint8 RGB; None where it cannot be shown, with the problem."""

    camera: str
    pixels: Pixels | None
    at_s: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers and names of the newest status. share: percent of the policy's motion that is let through now."""

    embodiment: str = ""
    policy: str = ""
    mode: str = ""
    instruction: str = ""
    episode: str = ""
    stopped: bool = False
    hold_reason: str = ""
    problem: str = ""
    guard_tripped: bool = False
    failures: int = 0
    slo_violated: bool = False
    verdict: str = ""
    control: str = ""
    share: int = 100
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    chunks: int = 0
    clamped: int = 0
    fallbacks: int = 0
    holds: int = 0
    refused: int = 0
    errors: int = 0
    guided: int = 0
    cache_hits: int = 0
    cache_misses: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """All of one moment. `slo_ms` and `deadline_ms` None: none is set. heard: a message came within 3 s; ever: or before.

    split: percent of new episodes that slot a gets; None where there is one policy. blend: percent of the policy's motion that
    is to be let through, None where that is not known. topics: resolved names by stream, empty while the node subscribes to none.
    """

    node: str
    robot: str | None = None
    nodes: tuple[str, ...] = ()
    heard: bool = False
    ever: bool = False
    state: str = NO_ANSWER
    figures: Figures = Figures()
    deadline_ms: float | None = None
    slo_ms: float | None = None
    slo: str = ""
    seconds: tuple[Second, ...] = ()
    chunk: Chunk | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    events: tuple[GuardEvent, ...] = ()
    slots: tuple[SlotFigures, ...] = ()
    split: int | None = None
    blend: int | None = None
    concerns: tuple[Concern, ...] = ()
    notice: str = ""
    notice_ok: bool = True

    def concern(self, name: str) -> Concern | None:
        """Return one concern of /diagnostics; None before it was received."""
        return next((concern for concern in self.concerns if concern.name == name), None)

    @property
    def cameras(self) -> dict[str, str]:
        """Return the topic of each camera."""
        return {stream: topic for stream, topic in self.topics.items() if stream not in OTHER_STREAMS}


OTHER_STREAMS = (
    "state",
    "instruction",
    "episode",
)  # what `connections` of /diagnostics lists beside the cameras
