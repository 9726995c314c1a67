# SPDX-License-Identifier: Apache-2.0
"""Which key of a foreign observation is which camera, the state and the instruction: as `wire_keys` says, else guessed.

Clients of other servers name images and states as their policy was trained. A guess goes by name, then by order; it is
logged when it is made, and replies hold it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from reflex_core.errors import ObservationError
from reflex_core.robot.gripper_shares import CLOSED, GripperJoint
from reflex_core.settings.wire_keys import BGR, GUESSED, INSTRUCTION, SETTING, STATE, KeyMap, marked
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.text.untrusted import escaped

MISSING, UNDECLARED = "missing-key", "gripper-undeclared"
MAPS_LOGGED = 64

STATES = ("state", "states", "proprio", "qpos", "robot_state")
JOINTS = ("joint_position", "joint_positions", "joint_pos", "joints")
GRIPPERS = ("gripper_position", "gripper_positions", "gripper_pos", "gripper")
INSTRUCTIONS = (
    "instruction", "prompt", "task", "task_description", "language", "language_instruction", "text", "command", "goal",
)  # fmt: skip
ON_THE_HAND = frozenset(("wrist", "hand", "eef", "gripper"))
SIDES = {"l": "left", "r": "right"}
LEFT_RIGHT = frozenset(SIDES.values())
# what says nothing about which camera it is
NOISE = frozenset(
    ("observation", "observations", "obs", "image", "images", "img", "rgb", "cam", "camera", "cameras", "video", "full", "color")
)  # fmt: skip

log = logging.getLogger(__name__)
_line = RateLimitedLog(log)
_logged: set[str] = set()


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one kind of message.

    cameras: their key by our camera. unused: keys of the message that nothing reads. shares: keys of `state` that are grippers in 0 to 1,
    with the end that is 1.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    instruction: str = ""
    bgr: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()
    shares: tuple[tuple[str, str], ...] = ()

    def document(self) -> dict[str, str]:
        """Return our names with their keys, as `wire_keys` takes them."""
        found = {camera: key + (BGR if camera in self.bgr else "") for camera, key in self.cameras.items()}
        if self.state:
            shares = dict(self.shares)
            found[STATE] = "+".join(marked(key, shares) for key in self.state)
        return found | ({INSTRUCTION: self.instruction} if self.instruction else {})


@dataclass(frozen=True, slots=True)
class Received:
    """Keys of a message by what their values are, in its own order. numbers: with how many each holds."""

    images: tuple[str, ...] = ()
    numbers: tuple[tuple[str, int], ...] = ()
    texts: tuple[str, ...] = ()

    def __str__(self) -> str:
        kinds = (
            ("images", self.images),
            ("numbers", [f"{key} ({size})" for key, size in self.numbers]),
            ("texts", self.texts),
        )
        return "; ".join(f"{kind}: {_listed(keys)}" for kind, keys in kinds)


@lru_cache(maxsize=64)
def keys_for(
    chosen: KeyMap,
    received: Received,
    cameras: tuple[str, ...],
    state_size: int | None,
    wire: str,
    given: frozenset[str] = frozenset(),
    grippers: tuple[GripperJoint, ...] = (),
    protocol: str = "",
) -> Keys:
    """Return which of the received keys are the robot's cameras, its state and the instruction; logged once for each kind.

    cameras: the robot's. state_size: how many numbers its state has, None where that is free. given: which of state and
    instruction the request has under our own names; a guess never goes before those, `wire_keys` does where its keys are there.
    grippers: the robot's. protocol: the end that the wire's own protocol calls 1 of a gripper, "" where it says nothing.
    Raises ObservationError where a guess would be of a gripper's numbers, or where `wire_keys` names a key that is not there, or a
    camera that the robot has not.
    """
    numbers = dict(received.numbers)
    state, shares = (
        ((), ())
        if STATE in given and not numbers.keys() & set(chosen.state)
        else _state(chosen, numbers, state_size, grippers, protocol)
    )
    found = Keys(
        _cameras(chosen, received.images, cameras),
        state,
        ""
        if INSTRUCTION in given and chosen.instruction not in received.texts
        else _instruction(chosen, received.texts),
        chosen.bgr,
        shares=shares,
    )
    used = {*found.cameras.values(), *found.state, found.instruction}
    every = (*received.images, *(key for key, _ in received.numbers), *received.texts)
    found = replace(found, unused=tuple(key for key in every if key not in used))
    how = "set" if chosen != GUESSED else "guessed"
    if shares and shares != chosen.shares:
        how += ", the gripper by the wire's protocol"
    text = "keys of wire %s, %s (setting %s): %s; not read: %s"
    ours = " ".join(f"{name}={escaped(key, 200)}" for name, key in found.document().items())
    line = text % (wire, how, SETTING, ours or "none", _listed(found.unused))
    if line not in _logged:  # whatever keys clients think of, the log stays short
        _line(logging.INFO, line if len(_logged) < MAPS_LOGGED else "more", "%s", line)
        if len(_logged) < MAPS_LOGGED:
            _logged.add(line)
    return found


def _cameras(chosen: KeyMap, images: Sequence[str], cameras: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for camera, key in chosen.cameras:
        if camera not in cameras:
            raise ObservationError(
                f"setting '{SETTING}' names camera {camera!r:.80}; the robot's cameras are {_listed(cameras)}",
                "unknown-camera",
            )
        found[camera] = _there(key, images, camera, "images")
    _by_name(found, images, cameras)
    _by_order(found, images, cameras)
    return {camera: found[camera] for camera in cameras if camera in found}


def _by_name(found: dict[str, str], images: Sequence[str], cameras: Sequence[str]) -> None:
    """Add pairs whose names have most words in common; a camera on the hand is never one elsewhere."""
    likeness = [
        (-_likeness(camera, key), ours, theirs, camera, key)
        for ours, camera in enumerate(cameras)
        for theirs, key in enumerate(images)
    ]
    for negative, _, _, camera, key in sorted(likeness):
        if negative < 0 and camera not in found and key not in found.values():
            found[camera] = key


def _likeness(camera: str, key: str) -> float:
    if camera == key or camera == last_part(key):
        return 3.0
    ours, theirs = _words(camera), _words(key)
    common = ours & theirs
    if not any(not word.isdigit() for word in common) or on_the_hand(camera) != on_the_hand(key):
        return 0.0
    return 0.0 if _opposite(ours, theirs) else len(common) / len(ours | theirs)


def _opposite(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    """Return whether one is the left one and the other the right one."""
    return bool(LEFT_RIGHT & (ours ^ theirs)) and ours | theirs >= LEFT_RIGHT


def _by_order(found: dict[str, str], images: Sequence[str], cameras: Sequence[str]) -> None:
    """Add the rest: those on the hand for each other, the others for each other, and in order where one side names no hand."""
    split = any(map(on_the_hand, cameras)) and any(map(on_the_hand, images))
    for hand in (False, True) if split else (None,):
        ours = [one for one in cameras if one not in found and hand in (None, on_the_hand(one))]
        theirs = [one for one in images if one not in found.values() and hand in (None, on_the_hand(one))]
        if hand is None:
            theirs.sort(key=on_the_hand)  # a robot's first camera is seldom that on its hand
        pairs = zip(ours, theirs, strict=False)
        found.update(pair for pair in pairs if not _opposite(*map(_words, pair)))


def _state(
    chosen: KeyMap,
    numbers: Mapping[str, int],
    size: int | None,
    grippers: Sequence[GripperJoint],
    protocol: str,
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the keys of the state, and those of them that are shares of a gripper's way."""
    if chosen.state:
        for key in chosen.state:
            _there(key, numbers, STATE, "numbers")
        return chosen.state, chosen.shares
    candidates = list(_state_candidates(list(numbers)))
    fitting = [keys for keys in candidates if size is None or sum(numbers[key] for key in keys) == size]
    if not fitting:
        return next(iter(candidates), ()), ()
    measured = fitting[0]
    apart = _grippers_in(measured) if len(measured) > 1 and (grippers or size is not None) else []
    keys = measured
    if not apart and any(joint.state is None for joint in grippers):
        # commanded and not measured by the policy's state: the client reads its column in the client's own numbers all the same
        apart = _grippers_in(key for key in numbers if key not in measured)
        keys = (*measured, *apart)
    if apart and not protocol:
        raise _undeclared(keys, measured, apart)
    return keys, tuple((gripper, protocol) for gripper in apart)


def _grippers_in(keys: Iterable[str]) -> list[str]:
    return [key for key in keys if last_part(key).lower() in GRIPPERS]


def _undeclared(keys: Sequence[str], measured: Sequence[str], apart: Sequence[str]) -> ObservationError:
    """Return the refusal of a guess with a gripper apart: DROID counts 0 (open) to 1 (closed), others the other way round.

    keys: with all that are shares; measured: those that are the policy's state; apart: the grippers.
    """
    plain = escaped("+".join(measured), 200)
    shared = escaped("+".join(marked(key, dict.fromkeys(apart, CLOSED)) for key in keys), 200)
    gripper = apart[0]
    return ObservationError(
        f"{escaped(gripper)!r} is the robot's gripper, and nothing says what it counts: declare the state with"
        f" --wire-keys state={shared} if 0 is open and 1 is closed (DROID), with :open if 0 is closed and 1 is open, or with"
        f" --wire-keys state={plain} if it is in rad or m, as the robot's",
        UNDECLARED,
    )


def _state_candidates(keys: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """Yield keys that together may be the state, best first."""
    whole, joints, grippers = (_named(keys, names) for names in (STATES, JOINTS, GRIPPERS))
    for first in (whole, joints):
        if first:
            both = (first, grippers) if grippers else (first,)
            yield from ((first,), both) if first is whole else (both, (first,))
    groups = tuple(key for key in keys if "state" in _parts(key)[:-1])
    if groups:
        yield groups
    yield from ((key,) for key in keys if len(keys) == 1)


def _instruction(chosen: KeyMap, texts: Sequence[str]) -> str:
    if chosen.instruction:
        return _there(chosen.instruction, texts, INSTRUCTION, "texts")
    return _named(texts, INSTRUCTIONS) or (texts[0] if len(texts) == 1 else "")


def _named(keys: Iterable[str], names: Sequence[str]) -> str:
    """Return the first key with the best of these names, "" where none has one."""
    parts = [(key, last_part(key).lower()) for key in keys]
    return next((key for name in names for key, last in parts if last == name), "")


def _there(key: str, keys: Iterable[str], ours: str, kind: str) -> str:
    if key in keys:
        return key
    raise ObservationError(
        f"setting '{SETTING}' takes {ours} from {escaped(key)!r}, which this request lacks; its {kind} are {_listed(keys)}",
        MISSING,
    )


def last_part(key: str) -> str:
    """Return the name at the end of a path: `state` of `observation/state` and of `observation.state`."""
    return _parts(key)[-1]


def _parts(key: str) -> list[str]:
    return re.split(r"[/.]", key)


def on_the_hand(name: str) -> bool:
    """Return whether a name is of a camera on the robot's hand."""
    return bool(_words(name) & ON_THE_HAND)


def _words(name: str) -> frozenset[str]:
    words = (SIDES.get(word, word) for word in re.split(r"[^a-z0-9]+", name.lower()) if word)
    return frozenset(words) - NOISE


def _listed(keys: Iterable[Any]) -> str:
    found = [escaped(str(key)) for key in keys]
    return (
        ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
        if found
        else "none"
    )
