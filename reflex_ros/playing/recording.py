# SPDX-License-Identifier: Apache-2.0
"""The protocol of a recording to play: topics, moments, and the instruction and episode of each observation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from std_msgs.msg import String

from reflex_core.records.trace.parse import Recorded

# The first words come before the first picture. Later ones come right after the picture that was taken under them:
# a node that receives them infers at once from the newest, and that one is it.
WORDS_LEAD_NS, WORDS_LAG_NS = 100_000_000, 10_000_000
INSTRUCTION, EPISODE = "instruction", "episode"


@dataclass(frozen=True, slots=True)
class Offer:
    """A topic that is played. words: latched text, not a sensor. stream: topics of one stream are alternatives."""

    topic: str
    kind: type
    stream: str
    words: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message. make: builds it, with its recorded stamp; or gives its CDR bytes."""

    offer: Offer
    make: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """What is published together, at `time_ns` on the recorded robot's clock."""

    time_ns: int
    messages: tuple[Outgoing, ...] = ()
    observations: int = 0


class Recording(Protocol):
    """A trace or a bag to play once. Raises TraceError where it cannot be read on.

    offers: the topics. first: its first request. fraction: how much has been read, 0 to 1. left_out: a sentence
    for each request that cannot be played.
    """

    @property
    def offers(self) -> Sequence[Offer]: ...

    @property
    def first(self) -> Recorded: ...

    @property
    def fraction(self) -> float: ...

    @property
    def left_out(self) -> Sequence[str]: ...

    def moments(self) -> Iterator[Moment]: ...


class PublishedWords:
    """The current instruction and episode, so that only changes are published."""

    def __init__(self, topics: Iterable[str] = ()) -> None:
        """Create it. topics: the recording's own instruction and episode topics; others go to the usual ones."""
        self._topics = {name: name for name in (EPISODE, INSTRUCTION)}
        self._topics |= {last_part(topic): topic for topic in topics if last_part(topic) in self._topics}
        self._texts: dict[str, str] = {}

    @property
    def offers(self) -> list[Offer]:
        """Return the topics of instruction and episode."""
        return [words_offer(topic) for topic in self._topics.values()]

    def published(self, topic: str, text: str) -> None:
        """Take note of a message that the recording itself has on a topic."""
        self._texts[last_part(topic)] = text

    def missing(self, record: Recorded) -> tuple[Outgoing, ...]:
        """Return the messages that the observation of a record needs and that were not published yet."""
        wanted = {EPISODE: record.episode_id, INSTRUCTION: record.instruction}
        changed = {name: text for name, text in wanted.items() if text and text != self._texts.get(name)}
        self._texts |= changed
        return tuple(_words(self._topics[name], text) for name, text in changed.items())


def words_offer(topic: str) -> Offer:
    """Return the offer of a topic of latched texts."""
    return Offer(topic, String, topic, words=True)


def last_part(topic: str) -> str:
    """Return the last part of a topic: `instruction` of `/arm/instruction`."""
    return topic.rpartition("/")[2]


def _words(topic: str, text: str) -> Outgoing:
    return Outgoing(words_offer(topic), lambda: String(data=text))
