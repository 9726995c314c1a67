# SPDX-License-Identifier: Apache-2.0
"""Notify the parts that carry state from one chunk of an episode to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from reflex_core.chunks.rtc import Rtc
from reflex_core.chunks.temporal_ensemble import TemporalEnsemble
from reflex_core.policy.prefix_cache import PrefixCache
from reflex_core.values import Floats
from reflex_core.wedges.deadline import Deadline
from reflex_core.wedges.guard import Guard
from reflex_core.wedges.observation_history import ObservationHistory


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class EpisodeListener:
    """One part's interest in episodes; what it does not care about is ignored.

    Attributes:
        begins: An episode begins, perhaps under the name of an earlier one: nothing of that is carried over. With the outside
            robot whose episode it is; without one, the episodes of that name are meant whosever they are.
        executed: The newest chunk was handed to the robot, which goes on at that row.
        corrected: The chunk of that request is executed otherwise than it was answered: by these rows, (horizon, action_dim).
        not_executed: The robot does not follow the newest chunk: it was stopped, or the chunk came too late.
    """

    begins: Callable[[str | None, str], None] = _ignore
    executed: Callable[[str | None, int], None] = _ignore
    not_executed: Callable[[str | None], None] = _ignore
    corrected: Callable[[str | None, str, Floats], None] = _ignore


def of_guard(guard: Guard) -> EpisodeListener:
    """Notify the guard of what the robot of this process really follows."""
    commands = guard.commands
    return EpisodeListener(
        executed=lambda _, __: commands.executed(), not_executed=lambda _: commands.forget()
    )


def of_deadline(deadline: Deadline) -> EpisodeListener:
    """Notify the deadline which last good chunk is void."""
    return EpisodeListener(begins=deadline.begins, not_executed=deadline.forget)


def of_slot(
    rtc: Rtc | None, cache: PrefixCache | None, ensemble: TemporalEnsemble | None
) -> Iterator[EpisodeListener]:
    """Notify one policy slot's state: the chunk that guides the next one, the cached prefix, the running mean of chunks."""
    if rtc is not None:
        yield EpisodeListener(
            begins=rtc.forget,
            executed=lambda episode_id, first_row: rtc.consumed(episode_id, first_row + 1),
            not_executed=rtc.forget,
            corrected=rtc.corrected,
        )
    if cache is not None:
        yield EpisodeListener(begins=cache.forget)
    if ensemble is not None:
        yield EpisodeListener(begins=ensemble.forget, not_executed=ensemble.forget)


def episode_listeners(
    guard: Guard,
    deadline: Deadline,
    slots: Iterable[tuple[Rtc | None, PrefixCache | None, TemporalEnsemble | None]],
    history: ObservationHistory | None,
) -> tuple[EpisodeListener, ...]:
    """Return all listeners, in the order in which they are notified."""
    listeners = [listener for carried in slots for listener in of_slot(*carried)]
    if history is not None:
        listeners.append(EpisodeListener(begins=history.forget))
    return (of_guard(guard), of_deadline(deadline), *listeners)
