# SPDX-License-Identifier: Apache-2.0
"""Identify the caller of a request: counting, tripping and the command history belong to it.

A caller is one printable text. A robot that names itself has that name; any other caller is identified by what is known
of it, behind a prefix that no robot's name may have, so that no two callers are confused.
"""

from __future__ import annotations

import unicodedata

from reflex_core.errors import ObservationError
from reflex_core.metrics.episodes import ID_CHARACTERS, usable_id
from reflex_core.values import EPISODE, PEER, PREFIXES, ROS, SESSION, UNKNOWN, Request

PEER_CHARACTERS = 64
_BETWEEN = "\x1f"  # in no name and no id, as both are printable
CALLER_CHARACTERS = ID_CHARACTERS + max(map(len, PREFIXES))


def require_robot_id(name: str, reserved: str = "") -> None:
    """Raise ObservationError for a name that no robot outside this process may have.

    reserved: the id of this process's own robot, "" where there is none.
    """
    plain = unicodedata.normalize("NFKC", name).strip().casefold()
    if not usable_id(name) or not plain:
        raise ObservationError(
            f"'robot_id' must be a string of 1 to {ID_CHARACTERS} printable characters, not blanks alone, got {name!r:.80}",
            "bad-robot-id",
        )
    if plain == ROS or plain.startswith(PREFIXES) or (reserved and name == reserved):
        raise ObservationError(
            f"'robot_id' must be another name than that of the robot which this server drives itself ('{ROS}'"
            f"{f', {reserved!r}' if reserved else ''}), and must not begin with {', '.join(PREFIXES)}, got {name!r:.80}",
            "reserved-robot-id",
        )


def caller_from(robot_id: str | None, session: str | None, episode_id: str | None, peer: str | None) -> str:
    """Return the caller of a request from outside: the robot it names, else its session, episode, or address."""
    if robot_id:
        return robot_id
    if session:
        return SESSION + session
    if episode_id:
        return EPISODE + episode_id
    return PEER + _printable(peer) if peer else UNKNOWN


def _printable(peer: str) -> str:
    kept = peer[:PEER_CHARACTERS]
    return kept if kept.isprintable() else "?"


def caller_of(request: Request) -> str:
    """Return the caller: as the interface set it, else this process's robot where the observation is stamped, else the episode."""
    if request.caller:
        return request.caller
    if request.observation.stamp_ns:
        return ROS
    return EPISODE + request.episode_id if request.episode_id else UNKNOWN


def episode_key(request: Request) -> str | None:
    """Return what tells a request's episode from those of other robots, which may have the same id; None without an episode.

    The id itself for this process's own robot and for callers without a name.
    """
    robot = robot_of(request)
    return (
        f"{robot}{_BETWEEN}{request.episode_id}"
        if robot and request.episode_id is not None
        else request.episode_id
    )


def is_episode(key: str, episode_id: str | None, robot: str = "") -> bool:
    """Return whether a key is of an episode with this id: of this outside robot's, or, where none is named, of any."""
    if episode_id is None:
        return False
    if robot:
        return key == f"{robot}{_BETWEEN}{episode_id}"
    return key == episode_id or key.endswith(f"{_BETWEEN}{episode_id}")


def robot_of(request: Request) -> str:
    """Return the name of the outside robot of a request, "" where the request names none."""
    caller = request.caller
    named = caller and caller not in (ROS, UNKNOWN) and not caller.startswith(PREFIXES)
    return caller if named else ""
