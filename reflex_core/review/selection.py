# SPDX-License-Identifier: Apache-2.0
"""Which episodes of recordings are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any

from reflex_core.records.trace.parse import Recorded
from reflex_core.replay.comparison import Source
from reflex_core.review.episode_survey import WITHOUT_ID, Episode

CUT = "..."
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Selection:
    """What an episode must be; empty, False and None: anything. since_ns: since 1970; it began then or later."""

    episodes: tuple[str, ...] = ()
    outcome: str = ""
    clamped: bool = False
    held: bool = False
    instruction: str = ""
    since_ns: int | None = None

    @property
    def everything(self) -> bool:
        """True where nothing is left out."""
        return self == Selection()

    def takes(self, episode: Episode) -> bool:
        """Return whether the episode is wanted."""
        wanted = self.instruction.casefold()
        return (
            (not self.episodes or any(_is(episode.episode_id, name) for name in self.episodes))
            and self.outcome in ("", episode.outcome)
            and (not self.clamped or episode.clamped > 0)
            and (not self.held or episode.held > 0)
            and any(wanted in text.casefold() for text in episode.instructions or [""])
            and (self.since_ns is None or episode.began_ns >= self.since_ns)
        )

    def words(self) -> str:
        """Return the selection as its options, for sentences."""
        parts = [f"--episode {name}" for name in self.episodes]
        parts += [f"--outcome {self.outcome}"] if self.outcome else []
        parts += ["--clamped"] if self.clamped else []
        parts += ["--held"] if self.held else []
        parts += [f"--instruction '{self.instruction}'"] if self.instruction else []
        parts += ["--since"] if self.since_ns is not None else []
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class OnlyEpisodes:
    """A source that yields the records of some episodes alone."""

    source: Source
    wanted: frozenset[str]

    @property
    def header(self) -> Mapping[str, Any]:
        """The header of the source."""
        return self.source.header

    @property
    def warnings(self) -> Sequence[str]:
        """What was skipped."""
        return self.source.warnings

    @property
    def damage(self) -> Sequence[str]:
        """What is missing or incomplete."""
        return self.source.damage

    @property
    def fraction(self) -> float:
        """How much has been read, 0 to 1."""
        return self.source.fraction

    def __iter__(self) -> Iterator[Recorded]:
        return of_episodes(self.source, self.wanted)

    def notes(self, *kinds: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the notes of the source, those of other episodes too."""
        return self.source.notes(*kinds)

    def __enter__(self) -> OnlyEpisodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.__exit__(kind, error, trace)


def _is(episode_id: str, name: str) -> bool:
    """Return whether an id is that name, or begins with it where the name ends with `...`, as a table cuts it."""
    return episode_id == name or (name.endswith(CUT) and episode_id.startswith(name.removesuffix(CUT)))


def of_episodes(records: Iterable[Recorded], wanted: frozenset[str]) -> Iterator[Recorded]:
    """Yield the records of these episodes."""
    return (record for record in records if (record.episode_id or WITHOUT_ID) in wanted)


def since(text: str, now: datetime) -> int:
    """Return the moment in ns since 1970 of `90m`, `2h`, `3d`, or of a local date or time as ISO 8601. Raises ValueError.

    now: with a time zone; a date or time without one is in that zone.
    """
    number, unit = text[:-1], text[-1:]
    if unit in UNITS_S and number.isdecimal() and len(number) <= 9:
        moment = now - timedelta(seconds=int(number) * UNITS_S[unit])
    else:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)
    beginning = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (moment - beginning) // timedelta(microseconds=1) * 1000
