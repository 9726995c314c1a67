# SPDX-License-Identifier: Apache-2.0
"""Recordings of whole streams as a survey and its frames: one episode for each uninterrupted stretch, at one fixed rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from reflex_core.dataset.examples import size_of
from reflex_core.dataset.streams import Ended, Event, Moment, Reading, Sampler, Split
from reflex_core.dataset.survey import (
    FAILURE,
    SUCCESS,
    Episode,
    Key,
    Layout,
    Survey,
    as_surveyed,
    clean,
    require_same,
)
from reflex_core.records.trace.parse import TraceError

OTHER_SIZE = "image of another size"
SLOWEST_HZ, FASTEST_HZ = 1.0, 1000.0
SPLITS_NAMED = 20
SHORTEST = 2  # frames of an episode: nothing is learned from one


class Streams(Protocol):
    """A recording of whole streams. Iterate once. Raises TraceError when it cannot be read.

    cameras: their names. state_names, action_names: of the columns. rate_hz: of the policy's actions; 0 where that is not known.
    max_age_ms: how old the policy's observations may have been. fraction: how much has been read, 0 to 1.
    """

    cameras: Sequence[str]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    rate_hz: float
    max_age_ms: float
    robot: str
    session: str

    @property
    def fraction(self) -> float: ...

    @property
    def damage(self) -> Sequence[str]: ...

    def events(self) -> Iterator[Event]: ...

    def __enter__(self) -> Streams: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


OpenStreams = Callable[[Path], Streams]
Progress = Callable[[float, int], None]


@dataclass
class _Sizes:
    """Lets through the images that have their camera's first size. sizes: camera -> (height, width)."""

    where: str
    sizes: dict[str, tuple[int, int]]
    left_out: Counter[str]

    def fits(self, event: Event) -> bool:
        """Return False for an image of another size, which is counted. Raises TraceError for a damaged one."""
        if not isinstance(event, Reading) or event.camera is None:
            return True
        size = size_of(event.value, f"{self.where}, camera '{event.camera}'")
        if self.sizes.setdefault(event.camera, size) == size:
            return True
        self.left_out[OTHER_SIZE] += 1
        return False


@dataclass
class _Reading:
    """One reading of all recordings; both readings yield the same frames."""

    open: OpenStreams
    fps: float | None
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    layout: Layout | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    outcomes: dict[Key, bool] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    seen: int = 0

    def moments(self, paths: Sequence[Path], progress: Progress) -> Iterator[tuple[Key, str, Moment]]:
        """Yield (key, name of the recording, frame). Raises TraceError."""
        for number, path in enumerate(paths):
            with self.open(path) as streams:
                self._require_same(streams, str(path))
                assert self.fps is not None
                sampler = Sampler(
                    streams.cameras, streams.action_names, self.fps, round(streams.max_age_ms * 1e6), self.left_out
                )  # fmt: skip
                fit = _Sizes(str(path), self.sizes, self.left_out)
                for event in streams.events():
                    progress((number + streams.fraction) / len(paths), self.seen)
                    if isinstance(event, Ended):
                        self.outcomes[streams.session, event.episode_id] = event.success
                    elif fit.fits(event):
                        yield from self._keyed(sampler.put(event), streams.session, path)
                yield from self._keyed(sampler.finish(), streams.session, path)
                self.damage += streams.damage
                self.splits += [_sentence(split, path.name, streams.max_age_ms) for split in sampler.splits]

    def _keyed(
        self, moments: Iterator[Moment], session: str, path: Path
    ) -> Iterator[tuple[Key, str, Moment]]:
        for moment in moments:
            self.seen += 1
            # a session has a bag for each activation, and one more after a full disk
            yield (f"{session} {path.name} {moment.part}", moment.episode_id), path.name, moment

    def _require_same(self, streams: Streams, where: str) -> None:
        """Take over the first recording's layout, and raise TraceError for one of another robot."""
        if self.fps is None:
            if not SLOWEST_HZ <= streams.rate_hz <= FASTEST_HZ:
                raise TraceError(
                    f"{where}: the rate of the policy must be {SLOWEST_HZ:g} to {FASTEST_HZ:g} Hz, got {streams.rate_hz:g}:"
                    " name one with --fps"
                )
            self.fps = float(round(streams.rate_hz))
        own = Layout(
            dict.fromkeys(streams.cameras, (0, 0)), len(streams.state_names), 0, streams.action_names, streams.state_names,
            1.0 / streams.rate_hz if streams.rate_hz > 0.0 else None, streams.robot,
        )  # fmt: skip
        if self.layout is None:
            self.layout = own
        if list(own.cameras) != list(self.layout.cameras):
            raise TraceError(
                f"{where}: a dataset has the same cameras in all frames, expected {', '.join(self.layout.cameras) or 'none'},"
                f" got {', '.join(own.cameras) or 'none'}: export such bags apart"
            )
        require_same(self.layout, own, where)


def survey_streams(
    paths: Sequence[Path], open_one: OpenStreams, fps: float | None, progress: Progress
) -> Survey:
    """Read everything once. fps: None for the policy's rate. Raises TraceError, also when there is nothing to write."""
    reading = _Reading(open_one, fps)
    episodes: dict[Key, Episode] = {}
    counts: Counter[Key] = Counter()
    instructions: dict[Key, dict[str, int]] = {}  # with the frame at which each was first given
    for key, trace, moment in reading.moments(paths, progress):
        episode = episodes.get(key)
        if episode is None:
            episode = episodes[key] = Episode(
                0, clean(moment.episode_id), trace, True, moment.time_ns, moment.time_ns
            )
        counts[key] += 1
        instructions.setdefault(key, {}).setdefault(clean(moment.instruction), counts[key])
        if not moment.held:  # a hold at the end is left out
            episode.count, episode.last_ns = counts[key], moment.time_ns
    kept = {key: episode for key, episode in episodes.items() if episode.count >= SHORTEST}
    short = sum(episode.count for key, episode in episodes.items() if key not in kept)
    if short:
        reading.left_out["alone"] += short
    if held := sum(counts[key] - episode.count for key, episode in episodes.items()):
        reading.left_out["hold at the end"] += held
    if reading.layout is None or not kept:
        message = ", ".join(f"{why} {count}" for why, count in sorted(reading.left_out.items())) or "none"
        raise TraceError(
            f"no frame can be exported: expected commands of a policy or person, left out: {message}"
        )
    tasks = _number(kept, instructions)
    _conclude(kept, reading.outcomes)
    layout = _with_sizes(reading.layout, reading.sizes)
    found = Survey(layout, kept, tasks, reading.left_out, 0, _first(reading.splits), reading.damage)
    found.fps = reading.fps
    return found


def _sentence(split: Split, recording: str, max_age_ms: float) -> str:
    """Return why an episode became two."""
    return (
        f"{recording}: episode '{clean(split.episode_id)}' is split {split.into_s:.1f} s after its first frame (stamp"
        f" {split.since_ns * 1e-9:.3f} s): no {split.what} for {split.gap_ns * 1e-6:.0f} ms, at most {max_age_ms:g} ms are bridged"
    )


def _first(sentences: Sequence[str]) -> list[str]:
    """Return the first sentences, and how many more there are: a flickering camera splits thousands of times."""
    more = len(sentences) - SPLITS_NAMED
    return [*sentences[:SPLITS_NAMED], *([f"{more} more splits of episodes"] if more > 0 else [])]


def _number(episodes: Mapping[Key, Episode], instructions: Mapping[Key, Mapping[str, int]]) -> dict[str, int]:
    """Give numbers to episodes, frames and instructions, of those alone that are exported; return the instructions."""
    tasks: dict[str, int] = {}
    first = 0
    for index, (key, episode) in enumerate(episodes.items()):
        episode.index, episode.first_index, first = index, first, first + episode.count
        given = [text for text, frame in instructions[key].items() if frame <= episode.count]
        episode.tasks = [tasks.setdefault(text, len(tasks)) for text in given]
    return tasks


def _conclude(episodes: Mapping[Key, Episode], outcomes: Mapping[Key, bool]) -> None:
    """Note how each episode ended; every stretch of an episode has its outcome."""
    for (session, episode_id), episode in episodes.items():
        success = outcomes.get((session.split(" ", 1)[0], episode_id))
        if success is not None:
            episode.outcome = SUCCESS if success else FAILURE


def _with_sizes(layout: Layout, sizes: Mapping[str, tuple[int, int]]) -> Layout:
    return Layout(
        {camera: sizes[camera] for camera in layout.cameras}, layout.state_dim, layout.horizon, layout.action_names,
        layout.state_names, layout.dt_s, layout.robot,
    )  # fmt: skip


def moments_again(
    paths: Sequence[Path], open_one: OpenStreams, found: Survey, progress: Progress
) -> Iterator[tuple[Episode, Moment]]:
    """Read the recordings once more and yield every frame with its episode as the survey found them."""
    read = _Reading(open_one, found.fps).moments(paths, progress)
    return as_surveyed(found, ((key, moment) for key, _, moment in read), "messages")
