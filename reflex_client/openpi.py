# SPDX-License-Identifier: Apache-2.0
"""Observations and replies as programs for the openpi client write and read them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from reflex_client.errors import InvalidObservationError
from reflex_client.reply import Reply

STATES = ("observation/state", "state")
JOINTS, GRIPPER = "observation/joint_position", "observation/gripper_position"


def _fresh() -> str:
    return f"ep-{uuid.uuid4().hex[:12]}"


@dataclass
class Session:
    """The episode of `infer`, and the server's cameras once they are known."""

    cameras: tuple[str, ...] | None = None
    episode_id: str = field(default_factory=_fresh)

    def reset(self) -> None:
        """Begin another episode."""
        self.episode_id = _fresh()


def cameras_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the server's cameras in their order."""
    effective = config.get("effective")
    cameras = effective.get("cameras") if isinstance(effective, Mapping) else None
    return tuple(dict.fromkeys(map(str, cameras.values()))) if isinstance(cameras, Mapping) else ()


def arguments_of(observation: Mapping[str, Any], cameras: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `Policy.act`. Raises InvalidObservationError naming what came and what is needed.

    Each image goes to the camera of its name, else by order; one with "wrist" in its key to a camera with it.
    """
    images = list(_images(observation))
    prompt = observation.get("prompt", "")
    named = by_camera([name for name, _ in images], cameras)
    return {
        "images": {camera: hwc(images[index][1], images[index][0]) for camera, index in named.items()},
        "state": _state(observation),
        "instruction": prompt.decode() if isinstance(prompt, bytes) else str(prompt),
    }


def by_camera(names: Sequence[str], cameras: Sequence[str]) -> dict[str, int]:
    """Return the index of the image for each camera. Raises InvalidObservationError where a camera would go without."""
    left = list(range(len(names)))
    found: dict[str, int] = {}
    for matches in (_same_name, _both_wrist, _any):
        for camera in cameras:
            if camera in found:
                continue
            index = next((each for each in left if matches(names[each], camera)), None)
            if index is not None:
                found[camera] = index
                left.remove(index)
    missing = [camera for camera in cameras if camera not in found]
    if missing and len(found) < len(names):
        raise InvalidObservationError(
            f"the cameras {', '.join(missing)} have no image; images came as {', '.join(names)}", "bad-image"
        )
    return found


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower().replace("_image", "").replace("image_", "").replace("_rgb", "")


def _same_name(name: str, camera: str) -> bool:
    return _plain(name) == _plain(camera)


def _both_wrist(name: str, camera: str) -> bool:
    return "wrist" in name.lower() and "wrist" in camera.lower()


def _any(name: str, camera: str) -> bool:
    return ("wrist" in name.lower()) == ("wrist" in camera.lower())


def _images(observation: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in observation.items():
        if isinstance(value, Mapping) and name.rsplit("/", 1)[-1] in ("images", "image"):
            yield from ((str(inside), pixels) for inside, pixels in value.items() if np.ndim(pixels) == 3)
        elif np.ndim(value) == 3:
            yield str(name), value


def hwc(pixels: Any, name: str) -> Any:
    """Return uint8 (height, width, 3): also from (3, height, width), and from floats in 0 to 1. Raises InvalidObservationError."""
    found = np.asarray(pixels)
    if found.shape[0] == 3 and found.shape[-1] != 3:
        found = np.transpose(found, (1, 2, 0))
    if np.issubdtype(found.dtype, np.floating):
        if not np.isfinite(found).all() or found.min() < 0.0 or found.max() > 1.0:
            raise InvalidObservationError(f"'{name}': pixels as floats must be from 0 to 1", "bad-image")
        found = np.round(found * 255.0).astype(np.uint8)
    return found


def _state(observation: Mapping[str, Any]) -> Any:
    for name in STATES:
        if name in observation:
            return np.ravel(observation[name])
    if JOINTS in observation and GRIPPER in observation:
        raise InvalidObservationError(
            f"nothing says whether 0 of '{GRIPPER}' is open or closed: send the state in the robot's own numbers as '{STATES[0]}'",
            "gripper-undeclared",
        )
    return np.ravel(observation[JOINTS]) if JOINTS in observation else None


def reply_of(reply: Reply) -> dict[str, Any]:
    """Return the reply as the openpi client has it; beside `actions` there is no array, which its chunk broker would cut."""
    return {
        "actions": reply.actions,
        "server_timing": {"infer_ms": reply.latency_ms},
        "policy_timing": {"infer_ms": reply.latency_ms},
        "reflex": dict(reply.document.get("reflex") or {}),
    }
