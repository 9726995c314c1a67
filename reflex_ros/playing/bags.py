# SPDX-License-Identifier: Apache-2.0
"""Play the inputs in a bag: the same bytes on the same topics. What the node published is not played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState
from std_msgs.msg import String

from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_ros.bag.source import BagSource
from reflex_ros.messages.raw import kind_of, string_data
from reflex_ros.playing.recording import (
    WORDS_LAG_NS,
    WORDS_LEAD_NS,
    Moment,
    Offer,
    Outgoing,
    PublishedWords,
    words_offer,
)

INPUTS: dict[str, type[Any]] = {
    kind_of(each): each for each in (Image, CompressedImage, JointState, Imu, Odometry, String)
}


class BagRecording:
    """The messages of a bag that --record-bag wrote, each when it was received. Raises TraceError for any other.

    Only types that a node takes in are read at all, and nothing from the recorded node's own topics, so no command can
    come out.
    """

    def __init__(self, source: BagSource, limit: int = 0) -> None:
        self._source, self._limit = source, limit
        self.left_out: list[str] = []
        found = (source.request(*message) for message in source.messages(frozenset([kind_of(String)])))
        first = next((record for record in found if record is not None), None)
        if first is None:
            raise TraceError(f"{source.path}: holds no request, so there is nothing to publish")
        self.first: Recorded = first
        self._offers = {
            topic: words_offer(topic) if kind == kind_of(String) else Offer(topic, INPUTS[kind], topic)
            for topic, kind in source.topics.items()
            if kind in INPUTS and not source.is_own(topic)
        }
        self._published_words = PublishedWords(topic for topic, offer in self._offers.items() if offer.words)

    @property
    def fraction(self) -> float:
        """The fraction of the bag that has been read, 0 to 1."""
        return self._source.fraction

    @property
    def offers(self) -> Sequence[Offer]:
        """The topics of the bag, and those of words that reached its node without a message."""
        return list(dict.fromkeys([*self._offers.values(), *self._published_words.offers]))

    def moments(self) -> Iterator[Moment]:
        """Yield every message. An instruction or episode that reached the node by no topic is published with its images."""
        waiting, requests = list[Moment](), 0
        for topic, time_ns, raw in self._source.messages(frozenset(INPUTS)):
            offer = self._offers.get(topic)
            if offer is not None:
                if offer.words:
                    self._published_words.published(topic, _text(raw, topic))
                waiting.append(Moment(time_ns, (_bytes(offer, raw),)))
                continue
            record = self._source.request(topic, time_ns, raw)
            if record is None:
                continue
            words = self._published_words.missing(record)
            seen_ns = [moment.time_ns for moment in waiting] or [time_ns]
            if words and requests == 0:
                yield Moment(seen_ns[0] - WORDS_LEAD_NS, words)
            yield from waiting
            if words and requests:
                yield Moment(min(seen_ns[-1] + WORDS_LAG_NS, time_ns), words)
            yield Moment(time_ns, observations=1)
            requests += 1
            waiting.clear()
            if requests == self._limit:
                return
        yield from waiting


def _bytes(offer: Offer, raw: bytes) -> Outgoing:
    return Outgoing(offer, lambda: raw)


def _text(raw: bytes, topic: str) -> str:
    try:
        return string_data(raw)
    except ValueError as error:
        raise TraceError(f"{topic}: {error}") from error
