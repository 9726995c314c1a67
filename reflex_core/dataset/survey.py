# SPDX-License-Identifier: Apache-2.0
"""The first reading of the traces: which episodes there are, how long they are, and that they fit into one dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from reflex_core.dataset.examples import (
    Example,
    executed_action,
    executed_instead,
    executed_row,
    frames,
    recorded_ns,
    size_of,
    why_unfit,
)
from reflex_core.files.regular_file import real_path
from reflex_core.records.trace.executed import EXECUTED, ExecutedRows, Timeline
from reflex_core.records.trace.fields import image_mode
from reflex_core.records.trace.notes import OUTCOME
from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_core.records.trace.schema import REQUEST
from reflex_core.replay.comparison import Source
from reflex_core.replay.recorded_images import ImageFiles
from reflex_core.values import POLICY, Frame

OUT_OF_ORDER, NO_STAMP, NO_PICTURE = "out of order", "no stamp", "no picture"
SUCCESS, FAILURE, UNKNOWN = "success", "failure", "unknown"  # how an episode ended
OTHER = {"cameras": "other cameras", "state_dim": "other state"}  # the server accepts these as they are

Open = Callable[[Path], Source]
Key = tuple[str, str]
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Layout:
    """What every frame of a dataset shares. cameras: name -> (height, width)."""

    cameras: Mapping[str, tuple[int, int]]
    state_dim: int
    horizon: int
    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    dt_s: float | None
    robot: str


@dataclass(slots=True)
class Episode:
    """One episode as it was found. first_index: of its first frame in the dataset. stamped: its clock is the sensors'.

    outcome: SUCCESS or FAILURE as it was reported last, else UNKNOWN.
    """

    index: int
    episode_id: str
    trace: str
    stamped: bool
    first_ns: int
    last_ns: int
    count: int = 0
    first_index: int = 0
    tasks: list[int] = field(default_factory=list)
    outcome: str = UNKNOWN


@dataclass(slots=True)
class Survey:
    """Everything that must be known before the first file is written; one small entry per episode and task.

    fps: at which the frames were made; None where each is a request.
    """

    layout: Layout
    episodes: dict[Key, Episode]
    tasks: dict[str, int]
    left_out: Counter[str]
    without_id: int
    warnings: list[str]
    damage: list[str]
    fps: float | None = None

    @property
    def count(self) -> int:
        """Frames of all episodes."""
        return sum(episode.count for episode in self.episodes.values())

    @property
    def rate_hz(self) -> float | None:
        """Frames per second, the mean over all episodes; None where no episode has two frames."""
        steps = sum(episode.count - 1 for episode in self.episodes.values())
        spent_ns = sum(episode.last_ns - episode.first_ns for episode in self.episodes.values())
        return steps / (spent_ns * 1e-9) if steps and spent_ns > 0 else None


def timeline_of(source: Source, before: ExecutedRows | None, outcomes: dict[Key, bool]) -> Timeline:
    """Return what the robot executed while a trace was recorded, instead of iterating. Raises TraceError.

    before: as it began. outcomes: is given whether each episode succeeded, by session and episode.
    """
    settings = source.header.get("settings")
    whole = isinstance(settings, dict) and bool(settings.get("takeover_release_s"))
    session = str(source.header.get("session_id") or "")

    def notes() -> Iterator[tuple[str, Mapping[str, Any]]]:
        for where, document in source.notes(EXECUTED, REQUEST, OUTCOME):
            if document.get("kind") == OUTCOME:
                outcomes[session, str(document.get("episode_id"))] = document.get("success") is True
            else:
                yield where, document

    return Timeline(notes(), before, whole=whole)


@dataclass(slots=True)
class _Reading:
    """One reading of all traces; both readings leave out the same requests."""

    open: Open
    files: ImageFiles | None
    layout: Layout | None = None
    episodes: dict[Key, Episode] = field(default_factory=dict)
    last_ns: dict[Key, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    last_commands: dict[str, ExecutedRows] = field(default_factory=dict)
    outcomes: dict[Key, bool] = field(default_factory=dict)
    seen: int = 0
    without_id: int = 0

    def examples(
        self, paths: Sequence[Path], progress: Callable[[float, int], None]
    ) -> Iterator[tuple[Key, Example]]:
        """Yield every request that can be learned from, in the order of the traces. Raises TraceError."""
        for number, path in enumerate(paths):
            timeline = self._timeline(path)
            with self.open(path) as source:
                for record in source:
                    self.seen += 1
                    progress((number + source.fraction) / len(paths), self.seen)
                    found = self._example(record, path, source, timeline)
                    if isinstance(found, str):
                        self.left_out[found] += 1
                    else:
                        yield found
                self.warnings += source.warnings
                self.damage += source.damage

    def _timeline(self, path: Path) -> Timeline:
        """Return what the robot executed while a trace was recorded."""
        with self.open(path) as source:
            session = str(source.header.get("session_id") or path)
            # a part of a session begins in the midst of a command
            found = timeline_of(source, self.last_commands.get(session), self.outcomes)
        if found.last is not None:
            self.last_commands[session] = found.last
        return found

    def _example(
        self, record: Recorded, path: Path, source: Source, timeline: Timeline
    ) -> tuple[Key, Example] | str:
        unfit = why_unfit(record)
        if not unfit:
            unfit, instead = executed_instead(record, timeline)
        if unfit:
            return unfit
        seen = frames(record, self.files, image_mode(source.header), str(path))
        if not seen:
            return NO_PICTURE
        other = self._other(record, seen, source.header, f"{path.name}, seq {record.seq}")
        if other:
            return other
        session = str(source.header.get("session_id") or path)
        # without an id nothing says where an episode ends, so that it must not reach beyond its file
        key = (str(path), "") if record.episode_id is None else (session, record.episode_id)
        episode = self.episodes.get(key)
        stamped = record.stamp_ns > 0 if episode is None else episode.stamped
        if stamped and record.stamp_ns <= 0:
            return NO_STAMP
        time_ns = record.stamp_ns if stamped else recorded_ns(record, str(path))
        if time_ns < self.last_ns.get(key, time_ns):
            return OUT_OF_ORDER
        self.last_ns[key] = time_ns
        self.without_id += record.episode_id is None
        if episode is None:
            episode = Episode(
                len(self.episodes), clean(record.episode_id or ""), path.name, stamped, time_ns, time_ns
            )
            self.episodes[key] = episode
        assert record.state is not None  # else it is unfit
        return key, Example(
            record.seq, time_ns, (time_ns - episode.first_ns) * 1e-9, clean(record.instruction), record.state, record.actions,
            record.raw_actions, executed_row(record), seen, None if instead is None else executed_action(record, instead),
            POLICY if instead is None else instead.control,
        )  # fmt: skip

    def _other(
        self, record: Recorded, seen: Mapping[str, Frame], header: Mapping[str, Any], where: str
    ) -> str:
        """Return how a request differs from the first; empty where it does not. Raises TraceError for another robot."""
        own = _layout(record, seen, header, where)
        if self.layout is None:
            self.layout = own
        for field_name, reason in OTHER.items():
            if getattr(self.layout, field_name) != getattr(own, field_name):
                return reason
        require_same(self.layout, own, where)
        return ""


def in_order(paths: Sequence[Path], open_one: Open) -> list[Path]:
    """Return the traces in the order in which they were begun, each once; parts of a session follow each other."""

    def begun(path: Path) -> tuple[str, int, str]:
        with open_one(path) as source:
            part = source.header.get("part")
            return str(source.header.get("started_at")), part if isinstance(part, int) else 0, path.name

    return sorted({real_path(path): path for path in paths}.values(), key=begun)


def survey(
    paths: Sequence[Path], open_one: Open, files: ImageFiles | None, progress: Callable[[float, int], None]
) -> Survey:
    """Read everything once. Raises TraceError for what does not fit together, or when there is nothing to write."""
    reading = _Reading(open_one, files)
    tasks: dict[str, int] = {}
    for key, example in reading.examples(paths, progress):
        episode = reading.episodes[key]
        episode.count += 1
        episode.last_ns = example.time_ns
        task = tasks.setdefault(example.instruction, len(tasks))
        if task not in episode.tasks:
            episode.tasks.append(task)
    if reading.layout is None or not reading.episodes:
        message = (
            ", ".join(f"{reason} {count}" for reason, count in sorted(reading.left_out.items())) or "none"
        )
        raise TraceError(f"no request can be exported: expected answers of a policy, got: {message}")
    first = 0
    for key, episode in reading.episodes.items():
        episode.first_index, first = first, first + episode.count
        if key in reading.outcomes:
            episode.outcome = SUCCESS if reading.outcomes[key] else FAILURE
    return Survey(
        reading.layout, reading.episodes, tasks, reading.left_out, reading.without_id, reading.warnings,
        reading.damage,
    )  # fmt: skip


def again(
    paths: Sequence[Path],
    open_one: Open,
    files: ImageFiles | None,
    found: Survey,
    progress: Callable[[float, int], None],
) -> Iterator[tuple[Episode, Example]]:
    """Read the traces once more and yield every frame with its episode as the survey found them; later additions are left out."""
    return as_surveyed(found, _Reading(open_one, files).examples(paths, progress), "requests")


def as_surveyed(
    found: Survey, frames: Iterator[tuple[Key, Made]], what: str
) -> Iterator[tuple[Episode, Made]]:
    """Yield the frames of a second reading with their episodes, as many as the first one found; later additions are left out.

    Raises TraceError where there are fewer. what: of which a recording has fewer then.
    """
    written: Counter[Key] = Counter()
    for key, frame in frames:
        episode = found.episodes.get(key)
        if episode is not None and written[key] < episode.count:
            written[key] += 1
            yield episode, frame
    short = [episode for key, episode in found.episodes.items() if written[key] < episode.count]
    if short:
        raise TraceError(
            f"{short[0].trace}: has fewer {what} than a moment ago; it must not change while it is read"
        )


def _layout(record: Recorded, seen: Mapping[str, Frame], header: Mapping[str, Any], where: str) -> Layout:
    horizon, dim = record.actions.shape
    state_dim = 0 if record.state is None else len(record.state)
    state_names = header.get("state_names")
    return Layout(
        {camera: size_of(frame, f"{where}, camera '{camera}'") for camera, frame in seen.items()},
        state_dim,
        horizon,
        _names(record.names, "action", dim),
        _names(state_names if isinstance(state_names, list) else (), "state", state_dim),
        record.dt_s,
        str(header.get("embodiment") or "unknown"),
    )


def _names(names: Sequence[object], kind: str, count: int) -> tuple[str, ...]:
    if len(names) == count:
        return tuple(clean(str(name)) for name in names)
    return tuple(f"{kind}_{number}" for number in range(count))


def require_same(layout: Layout, own: Layout, where: str) -> None:
    """Raise TraceError where two recordings do not fit into one dataset."""
    for what in ("horizon", "action_names", "state_names", "dt_s", "robot"):
        wanted, got = getattr(layout, what), getattr(own, what)
        if wanted != got:
            raise TraceError(
                f"{where}: a dataset has one {what} for all frames, expected {_shown(wanted)}, got {_shown(got)}: export"
                " such traces apart"
            )


def clean(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
