# SPDX-License-Identifier: Apache-2.0
"""The setting `wire_keys`: which key of a foreign observation is which camera, the state and the instruction."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import lru_cache

from reflex_core.errors import SettingError

SETTING = "wire_keys"
STATE, INSTRUCTION = "state", "instruction"
BGR = ":bgr"


@dataclass(frozen=True, slots=True)
class KeyMap:
    """The setting `wire_keys`. cameras: their key by our camera; state: their keys, in our order; bgr: cameras sent as BGR."""

    cameras: tuple[tuple[str, str], ...] = ()
    state: tuple[str, ...] = ()
    instruction: str = ""
    bgr: frozenset[str] = frozenset()

    def without(self, cameras: Container[str]) -> KeyMap:
        """Return the same for a message in which these cameras have an image already."""
        rest = tuple(pair for pair in self.cameras if pair[0] not in cameras)
        return self if len(rest) == len(self.cameras) else replace(self, cameras=rest)


GUESSED = KeyMap()


@lru_cache(maxsize=8)
def key_map(entries: tuple[str, ...]) -> KeyMap:
    """Return the map of the setting's entries `ours=theirs`, `state=theirs+theirs`, `camera=theirs:bgr`.

    Raises SettingError.
    """
    cameras: dict[str, str] = {}
    state: tuple[str, ...] = ()
    instruction, bgr = "", set()
    for entry in entries:
        ours, equals, theirs = entry.partition("=")
        if not (ours and equals and theirs) or ours in cameras or (ours == STATE and state):
            raise SettingError(
                f"setting '{SETTING}' takes entries such as front=observation/image, state=joints+gripper or"
                f" {INSTRUCTION}=prompt, each name once, got {entry!r:.120}"
            )
        if ours == STATE:
            state = tuple(theirs.split("+"))
        elif ours == INSTRUCTION:
            instruction = theirs
        else:
            cameras[ours] = theirs.removesuffix(BGR)
            bgr |= {ours} if theirs.endswith(BGR) else set()
    return KeyMap(tuple(cameras.items()), state, instruction, frozenset(bgr))
