# SPDX-License-Identifier: Apache-2.0
"""The setting `wire_keys`: which key of a foreign observation is which camera, the state and the instruction."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from reflex_core.errors import SettingError

SETTING = "wire_keys"
STATE, INSTRUCTION = "state", "instruction"
BGR = ":bgr"
# of a key of the state that is a gripper: its numbers are the share of the way to this end, 0 to 1
SHARES = (":closed", ":open")


@dataclass(frozen=True, slots=True)
class KeyMap:
    """The setting `wire_keys`.

    cameras: their key by our camera; state: their keys, in our order; bgr: cameras sent as BGR. shares: keys of the state that are
    grippers in 0 to 1, with the end that is 1: "closed" or "open".
    """

    cameras: tuple[tuple[str, str], ...] = ()
    state: tuple[str, ...] = ()
    instruction: str = ""
    bgr: frozenset[str] = frozenset()
    shares: tuple[tuple[str, str], ...] = ()

    def without(self, cameras: Container[str]) -> KeyMap:
        """Return the same for a message in which these cameras have an image already."""
        rest = tuple(pair for pair in self.cameras if pair[0] not in cameras)
        return self if len(rest) == len(self.cameras) else replace(self, cameras=rest)


GUESSED = KeyMap()


@lru_cache(maxsize=8)
def key_map(entries: tuple[str, ...]) -> KeyMap:
    """Return the map of the setting's entries `ours=theirs`, `state=theirs+theirs:closed`, `camera=theirs:bgr`.

    Raises SettingError.
    """
    cameras: dict[str, str] = {}
    state: tuple[str, ...] = ()
    instruction, bgr = "", set()
    shares: tuple[tuple[str, str], ...] = ()
    for entry in entries:
        ours, equals, theirs = entry.partition("=")
        if not (ours and equals and theirs) or ours in cameras or (ours == STATE and state):
            raise SettingError(
                f"setting '{SETTING}' takes entries such as front=observation/image, state=joints+gripper or"
                f" {INSTRUCTION}=prompt, each name once, got {entry!r:.120}"
            )
        if ours == STATE:
            state, shares = _state(entry, theirs)
        elif ours == INSTRUCTION:
            instruction = theirs
        else:
            cameras[ours] = theirs.removesuffix(BGR)
            bgr |= {ours} if theirs.endswith(BGR) else set()
    return KeyMap(tuple(cameras.items()), state, instruction, frozenset(bgr), shares)


def marked(key: str, shares: Mapping[str, str]) -> str:
    """Return a key of the state as the setting has it: with `:closed` or `:open` where it is a share."""
    return f"{key}:{shares[key]}" if key in shares else key


def unmarked(part: str) -> str:
    """Return a key of the state without what `marked` adds."""
    return next((part.removesuffix(mark) for mark in SHARES if part.endswith(mark)), part)


def _state(entry: str, theirs: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the keys of the state, and which are shares. Raises SettingError for a share without a key, or a key that is named twice."""
    parts = theirs.split("+")
    keys = tuple(map(unmarked, parts))
    shares = tuple((key, part[len(key) + 1 :]) for key, part in zip(keys, parts, strict=True) if key != part)
    if any(not key or keys.count(key) > 1 for key, _ in shares):
        raise SettingError(
            f"setting '{SETTING}' takes each gripper once, with the end that is 1: state=joints+gripper:closed, or :open where 0"
            f" is closed, got {entry!r:.120}"
        )
    return keys, shares
