# SPDX-License-Identifier: Apache-2.0
"""What cameras and joints gave at the control rate: raw messages, decoded only when a policy looks back at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reflex_core.errors import ObservationError
from reflex_core.robot.recent import Recent
from reflex_core.values import Floats, Observation
from reflex_ros.messages.images import frame
from reflex_ros.messages.raw import Consumed, RawMessage


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """The newest message of every stream at one moment; stamp_ns: the oldest of their stamps, last_ns: the newest."""

    messages: Consumed
    state: Floats | None
    stamp_ns: int
    last_ns: int


class Past:
    """Moments a quarter of a control period apart, as many periods back as a policy looks. Not thread-safe.

    It is filled as messages come, not as inference runs: an inference looks back one control period, however long ago the
    one before it was.
    """

    def __init__(self, steps: int, period_s: float) -> None:
        """Keep nothing yet. steps: how many observations the policy sees; 1 keeps nothing ever."""
        self._steps = steps
        self._recent: Recent[Moment] = Recent(round(period_s * 1e9), steps)

    @property
    def looked_at(self) -> bool:
        """True where a policy looks back at all."""
        return self._steps > 1

    def wants(self, stamps: Sequence[int]) -> bool:
        """Return whether messages of these stamps are far enough from the last ones to be kept."""
        return self.looked_at and bool(stamps) and self._recent.wants(min(stamps))

    def keep(
        self, images: Mapping[str, RawMessage], state: Floats | None, states: Sequence[RawMessage]
    ) -> None:
        """Keep what every stream gives just now."""
        stamps = [message.stamp_ns for message in (*images.values(), *states)]
        moment = Moment(Consumed(dict(images), tuple(states)), state, min(stamps), max(stamps))
        self._recent.add(moment.stamp_ns, moment)

    def before(
        self, newest: Observation, now_ns: int, max_skew_ms: float, max_pixels: int
    ) -> tuple[tuple[Observation, ...], tuple[Consumed, ...]]:
        """Return the observations one control period apart before the newest one, and their messages, oldest first.

        They are fewer than the policy sees at an episode's start, after a gap, and where an earlier moment's streams are
        further apart than `max_skew_ms` or its image is damaged: nothing before that is used.
        """
        found: list[tuple[Observation, Consumed]] = []
        for kept in reversed(self._recent.before(newest.stamp_ns)):
            moment = kept.value
            if (moment.last_ns - moment.stamp_ns) * 1e-6 > max_skew_ms:
                break
            try:
                frames = {name: frame(one, max_pixels) for name, one in moment.messages.images.items()}
            except ObservationError:
                break
            age_ms = (now_ns - moment.stamp_ns) * 1e-6
            seen = Observation(frames, moment.state, newest.instruction, moment.stamp_ns, age_ms)
            found.append((seen, moment.messages))
        found.reverse()
        return tuple(seen for seen, _ in found), tuple(messages for _, messages in found)

    def clear(self) -> None:
        """Forget everything: an episode begins, or the clock jumped."""
        self._recent.clear()
