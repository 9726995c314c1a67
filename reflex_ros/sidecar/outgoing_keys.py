# SPDX-License-Identifier: Apache-2.0
"""The setting `remote_keys`: under which keys an observation is sent to an openpi server, and in which form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError, SettingError
from reflex_core.settings.wire_keys import BGR, INSTRUCTION, STATE
from reflex_core.values import Floats, Pixels
from reflex_ros.sidecar.wires.key_map import on_the_hand

SETTING = "remote_keys"
CHW = ":chw"
PROMPT, LIBERO_STATE, LIBERO_IMAGE, LIBERO_HAND = (
    "prompt", "observation/state", "observation/image", "observation/wrist_image",
)  # fmt: skip
INSIDE = "."  # images.cam_high: a map in the message


@dataclass(frozen=True, slots=True)
class PictureKey:
    """Where a camera's picture is put. bgr: blue first; chw: channels first."""

    key: str
    bgr: bool = False
    chw: bool = False


@dataclass(frozen=True, slots=True)
class OutgoingKeys:
    """The keys of a message. cameras: by our name. state: each key after the first takes one number."""

    cameras: tuple[tuple[str, PictureKey], ...] = ()
    state: tuple[str, ...] = ()
    instruction: str = ""

    def for_cameras(self, names: Iterable[str], *, own: bool = False) -> OutgoingKeys:
        """Return the same with every key: what is not set is as LIBERO has it, or, `own`, as a server of this kind reads it."""
        cameras = self.cameras or tuple(_guessed(tuple(names), own=own))
        state = self.state or (STATE if own else LIBERO_STATE,)
        return OutgoingKeys(cameras, state, self.instruction or PROMPT)

    def message(
        self, pictures: Mapping[str, Pixels], state: Floats | None, instruction: str
    ) -> dict[str, Any]:
        """Return the observation; cameras that have no key are not sent. Raises ObservationError for a state that is too short."""
        made: dict[str, Any] = {}
        for name, where in self.cameras:
            if name in pictures:
                _put(made, where.key, _formed(pictures[name], where))
        if state is not None:
            for key, numbers in zip(self.state, _split(state, len(self.state)), strict=True):
                _put(made, key, numbers)
        _put(made, self.instruction, instruction)
        return made

    def __str__(self) -> str:
        cameras = (f"{name}={where.key}" for name, where in self.cameras)
        return " ".join((*cameras, f"{STATE}={'+'.join(self.state)}", f"{INSTRUCTION}={self.instruction}"))


@lru_cache(maxsize=8)
def outgoing_keys(entries: tuple[str, ...]) -> OutgoingKeys:
    """Return the keys of the setting's entries. Raises SettingError."""
    cameras: dict[str, PictureKey] = {}
    others: dict[str, str] = {}
    for entry in entries:
        ours, equals, theirs = entry.partition("=")
        if not (ours and equals and theirs) or ours in cameras or ours in others:
            raise SettingError(
                f"setting '{SETTING}' takes entries such as front=observation/image, state=joints+gripper or"
                f" {INSTRUCTION}=prompt, each name once, got {entry!r:.120}"
            )
        if ours in (STATE, INSTRUCTION):
            others[ours] = theirs
            continue
        key, chw, bgr = theirs, CHW in theirs, BGR in theirs
        cameras[ours] = PictureKey(key.replace(CHW, "").replace(BGR, ""), bgr, chw)
    state = tuple(others[STATE].split("+")) if STATE in others else ()
    used = [where.key for where in cameras.values()] + list(state) + [others.get(INSTRUCTION, PROMPT)]
    if not all(used) or len(set(used)) != len(used):
        raise SettingError(f"setting '{SETTING}' must name each key once, got {', '.join(entries)!r:.300}")
    return OutgoingKeys(tuple(cameras.items()), state, others.get(INSTRUCTION, ""))


def _guessed(names: tuple[str, ...], *, own: bool) -> Iterable[tuple[str, PictureKey]]:
    free = [] if own else [LIBERO_IMAGE]
    hand = [] if own else [LIBERO_HAND]
    for name in names:
        places = hand if on_the_hand(name) else free
        key = places.pop() if places else name if own else f"observation/{name}"
        yield name, PictureKey(key)


def _formed(pixels: Pixels, where: PictureKey) -> Pixels:
    found = pixels[..., ::-1] if where.bgr else pixels
    return np.ascontiguousarray(found.transpose(2, 0, 1) if where.chw else found)


def _split(state: Floats, parts: int) -> list[Floats]:
    """Return the state in so many parts: one number for each but the first."""
    if len(state) < parts:
        raise ObservationError(
            f"the state has {len(state)} numbers, and '{SETTING}' divides it among {parts} keys",
            "state-length",
        )
    first = len(state) - parts + 1
    return [state[:first], *(state[at : at + 1] for at in range(first, len(state)))]


def _put(made: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(INSIDE)
    for name in outer:
        made = made.setdefault(name, {})
    made[last] = value
