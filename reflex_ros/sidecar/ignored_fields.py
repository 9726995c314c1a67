# SPDX-License-Identifier: Apache-2.0
"""Report fields of a request that are not read, to the client and the log: a misspelt camera makes a blind robot."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from reflex_core.text.rate_limit import RateLimit
from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.wires.request_fields import EARLIER, KNOWN, PICTURE

MOST_NAMED = 16
MOST_CHARACTERS = 64
NEAR = 0.75  # of difflib's ratio: one letter wrong in a short word
# what other servers call it
OTHER_NAMES = {
    **dict.fromkeys(("prompt", "task", "text", "language", "language_instruction", "goal", "command"), "instruction"),
    **dict.fromkeys(("qpos", "proprio", "joints", "joint_positions", "joint_position", "robot_state"), "state"),
    **dict.fromkeys(("session", "session_id", "episode"), "episode_id"),
    **dict.fromkeys(("rgb", "full_image", "base_image", "camera"), "image"),
}  # fmt: skip

_KNOWN = frozenset(KNOWN)

log = logging.getLogger(__name__)
_line = RateLimit()


@dataclass(frozen=True, slots=True)
class IgnoredFields:
    """Fields of a request that are not read. names: escaped, cut, limited in number. meant: by name, the similar known field."""

    names: tuple[str, ...] = ()
    meant: Mapping[str, str] = field(default_factory=dict)


NONE_IGNORED = IgnoredFields()


def find_ignored_fields(fields: Mapping[str, Any]) -> IgnoredFields:
    """Return the fields of a request, and of its images, that are not read; log a warning at a limited rate."""
    if _as_usual(fields):
        return NONE_IGNORED
    found = list(islice(_unread(fields), MOST_NAMED))
    if not found:
        return NONE_IGNORED
    meant = {escaped(name, MOST_CHARACTERS): other for name, other in found if other}
    names = tuple(dict.fromkeys(escaped(name, MOST_CHARACTERS) for name, _ in found))
    times = _line.times()
    if times:
        message = ", ".join(
            f"{name} (did you mean {meant[name]}?)" if name in meant else name for name in names[:4]
        )
        log.warning("%d requests had unknown fields, the last: %s", times, message)
    return IgnoredFields(names, meant)


def _as_usual(fields: Mapping[str, Any]) -> bool:
    """Return True only where every field is read and no image is an object. False decides nothing."""
    if not _KNOWN.issuperset(fields) or fields.get("history"):
        return False
    images = fields.get("images")
    pictures = (
        fields.get("image"),
        fields.get("image_wrist"),
        *(images.values() if isinstance(images, dict) else ()),
    )
    return dict not in map(type, pictures)


def _unread(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return (name, the field that it looks like or "")."""
    for key in fields:
        if key not in KNOWN:
            yield key, _near(key, KNOWN)
    yield from _unread_of_images(fields)
    history = fields.get("history")
    for number, entry in enumerate(history if isinstance(history, list) else ()):
        where = f"history[{number}]."
        for key in entry if isinstance(entry, dict) else ():
            if key not in EARLIER:
                near = _near(key, EARLIER)
                yield f"{where}{key}", near and f"{where}{near}"
        if isinstance(entry, dict):
            yield from _unread_of_images(entry, where)


def _unread_of_images(observation: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    images = observation.get("images")
    pictures = [(f"{before}{key}", observation.get(key)) for key in ("image", "image_wrist")]
    if isinstance(images, dict):
        pictures += [(f"{before}images.{camera}", picture) for camera, picture in images.items()]
    for where, picture in pictures:
        for key in picture if isinstance(picture, dict) else ():
            if key not in PICTURE:
                near = _near(key, PICTURE)
                yield f"{where}.{key}", near and f"{where}.{near}"


def _near(key: str, known: Iterable[str]) -> str:
    plain = key[:MOST_CHARACTERS].lower().replace("-", "_").replace(" ", "_")
    last = plain.replace("/", ".").rsplit(".", 1)[-1]  # observation.state
    for name in known:
        if sorted(last.split("_")) == sorted(name.split("_")):  # wrist_image
            return name
    if known is KNOWN and last in OTHER_NAMES:
        return OTHER_NAMES[last]
    return next(iter(difflib.get_close_matches(last, known, 1, NEAR)), "")
