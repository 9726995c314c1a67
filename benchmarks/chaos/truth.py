# SPDX-License-Identifier: Apache-2.0
"""What robots see and send, and the chunk that the same export makes of it in this process, apart from every server."""

from __future__ import annotations

import base64
import random
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.chaos.policy_files import SIDE, SPREAD, Arm
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy, Prediction
from reflex_core.policy.load import load_policy
from reflex_core.policy.providers import PLAIN_LOAD
from reflex_core.policy.sampler import PLAIN
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats, Frame, Observation, Pixels

SEEDS = 8
WORDS = ["reach the red cube", "pick the blue ball", "push the green bowl", "place the red cube"]
KEPT = 4096  # predictions


@dataclass(frozen=True)
class Sight:
    """One observation of the catalogue. state: (joints,) in rad."""

    number: int
    pixels: Pixels
    jpeg: bytes
    state: tuple[float, ...]
    instruction: str

    @cached_property
    def jpeg_text(self) -> str:
        return base64.b64encode(self.jpeg).decode()

    @cached_property
    def raw_text(self) -> str:
        return base64.b64encode(self.pixels.tobytes()).decode()

    def at(self, first: float) -> Sight:
        """Return the same with the first joint there, in rad."""
        return Sight(
            self.number, self.pixels, self.jpeg, (float(np.float32(first)), *self.state[1:]), self.instruction
        )


def catalogue(arm: Arm, seed: int, count: int = 12) -> list[Sight]:
    """Return observations near the rest pose, the same for the same seed."""
    draw = random.Random(f"{arm.name} {seed}")
    found = []
    for number in range(count):
        pixels = np.full((SIDE, SIDE, 3), [draw.randrange(256) for _ in range(3)], np.uint8)
        state = tuple(float(np.float32(rest + SPREAD * draw.uniform(-1.5, 1.5))) for rest in arm.rest)
        found.append(
            Sight(number, pixels, simplejpeg.encode_jpeg(pixels, quality=95), state, draw.choice(WORDS))
        )
    return found


class Truth:
    """The policies of the run by model version; predictions without any wedge around them."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._kept: dict[tuple[str, tuple[float, ...], int, str, bool, int], Prediction] = {}
        self._lock = threading.Lock()

    def add(self, export: Path, embodiment: str) -> str:
        """Load an export; return its model version."""
        policy = load_policy(open_export(export), load_preset(embodiment), "cpu", 1, (), PLAIN_LOAD)
        version = policy.export.model_version
        self._policies[version] = policy
        return version

    def knows(self, version: str) -> bool:
        """Return whether a policy of that version was loaded."""
        return version in self._policies

    def predict(self, version: str, sight: Sight, raw: bool, seed: int) -> Prediction:
        """Return what the policy makes of an observation when nothing guides it."""
        key = (version, sight.state, sight.number, sight.instruction, raw, seed)
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            policy = self._policies[version]
            found = policy.predict(observed(policy, sight, raw), seed)
            with self._lock:
                if len(self._kept) >= KEPT:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[key] = found
        return found

    def guided(
        self, version: str, sight: Sight, raw: bool, seed: int, before: Floats, elapsed: float, delay: int
    ) -> Prediction:
        """Return the same where the chunk before it guides it. before: (1, horizon, width), as the network made it."""
        policy = self._policies[version]
        guidance = policy.rtc().again(before, elapsed, delay)
        return policy.predict(observed(policy, sight, raw), seed, replace(PLAIN, guidance=guidance))


def observed(policy: Policy, sight: Sight, raw: bool) -> Observation:
    """Return an observation as the server is given it."""
    [camera] = policy.binding.cameras.values()
    height, width = sight.pixels.shape[:2]
    frame = (
        Frame(sight.pixels.tobytes(), "rgb8", height, width, 3 * width) if raw else Frame(sight.jpeg, "jpeg")
    )
    return Observation({camera: frame}, np.array(sight.state, np.float32), sight.instruction)
