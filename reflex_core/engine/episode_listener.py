# SPDX-License-Identifier: Apache-2.0
"""What the parts that carry something from one chunk of an episode to the next are told about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from reflex_core.chunks.rtc import Rtc
from reflex_core.policy.prefix_cache import PrefixCache
from reflex_core.wedges.deadline import Deadline
from reflex_core.wedges.guard import Guard


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class EpisodeListener:
    """One part's interest in episodes; what it does not care about is ignored.

    Attributes:
        begins: An episode begins, perhaps under the name of an earlier one: nothing of that is carried over.
        executed: The newest chunk was handed to the robot, which goes on at that row.
        not_executed: The robot does not follow the newest chunk: it was stopped, or the chunk came too late.
    """

    begins: Callable[[str | None], None] = _ignore
    executed: Callable[[str | None, int], None] = _ignore
    not_executed: Callable[[str | None], None] = _ignore


def of_guard(guard: Guard) -> EpisodeListener:
    """Tell the guard what the robot of this process really follows."""
    commands = guard.commands
    return EpisodeListener(
        executed=lambda _, __: commands.executed(), not_executed=lambda _: commands.forget()
    )


def of_deadline(deadline: Deadline) -> EpisodeListener:
    """Tell the deadline which last good chunk is none any more."""
    return EpisodeListener(begins=deadline.forget, not_executed=deadline.forget)


def of_slot(rtc: Rtc | None, cache: PrefixCache | None) -> Iterator[EpisodeListener]:
    """Tell what one policy slot carries: the chunk that guides the next one, and the prefix that is kept."""
    if rtc is not None:
        yield EpisodeListener(
            begins=rtc.forget,
            executed=lambda episode_id, first_row: rtc.consumed(episode_id, first_row + 1),
            not_executed=rtc.forget,
        )
    if cache is not None:
        yield EpisodeListener(begins=cache.forget)


def episode_listeners(
    guard: Guard, deadline: Deadline, slots: Iterable[tuple[Rtc | None, PrefixCache | None]]
) -> tuple[EpisodeListener, ...]:
    """Return all of them, in the order in which they are told."""
    carried = (listener for rtc, cache in slots for listener in of_slot(rtc, cache))
    return (of_guard(guard), of_deadline(deadline), *carried)
