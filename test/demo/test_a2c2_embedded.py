# SPDX-License-Identifier: Apache-2.0
"""The head that is shipped with the embedded policy, on the simulated arm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from reflex_core.chunks.a2c2.correction import Correction, load_correction
from reflex_core.chunks.a2c2.features import Moment
from reflex_core.files.share import embedded_policy
from reflex_core.values import Floats, Observation
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.observations import look
from reflex_ros.demo.scene import make_scene
from training.a2c2_data import open_policy

DELAY, SCENES = 8, range(10_500, 10_508)
LATE_MS = DELAY * 50.0


@dataclass(frozen=True)
class Late:
    """A chunk from `seen` that arrives DELAY control steps later, and what one from `now` says."""

    seen: Observation
    now: Observation
    old: Floats
    fresh: Floats
    command: Floats

    def error(self, actions: Floats) -> float:
        """RMS in rad of the rows that would be executed."""
        return float(np.sqrt(np.mean((actions[DELAY : DELAY + 25] - self.fresh[:25]) ** 2)))


@pytest.fixture(scope="module")
def correction() -> Correction:
    folder = embedded_policy()
    return load_correction(folder / "a2c2.npz", open_policy(folder).binding)


@pytest.fixture(scope="module")
def moved() -> list[Late]:
    """The named block is put 8 cm aside while the chunk is under way and the arm follows it."""
    policy, arm = open_policy(embedded_policy()), Arm()
    found = []
    for seed in SCENES:
        scene = make_scene(seed)
        arm.reset(scene)
        seen = look(arm, scene, "camera")
        old = policy.predict(seen, seed).actions
        block = scene.blocks[scene.target_index]
        aside = replace(block, y_m=block.y_m - np.sign(block.y_m) * 0.08)
        blocks = list(scene.blocks)
        blocks[scene.target_index] = aside
        arm.reset(replace(scene, blocks=tuple(blocks), start_joints_rad=tuple(map(float, old[DELAY - 1]))))
        now = look(arm, scene, "camera")
        found.append(Late(seen, now, old, policy.predict(now, seed + 1).actions, old[DELAY - 1]))
    arm.close()
    return found


def test_it_brings_late_chunks_nearer_to_what_a_fresh_one_says(
    correction: Correction, moved: list[Late]
) -> None:
    plain, corrected = [], []
    for late in moved:
        vector = correction.features_of(Moment(late.now, late.seen, late.command))
        plain.append(late.error(late.old))
        corrected.append(late.error(correction.chunk(late.old, vector, LATE_MS, DELAY).actions))
    assert np.mean(corrected) < 0.5 * np.mean(plain)


def test_it_hardly_changes_a_chunk_when_nothing_newer_is_known(
    correction: Correction, moved: list[Late]
) -> None:
    changes = []
    for late in moved:
        vector = correction.features_of(Moment(late.seen, late.seen, late.command))
        changes.append(correction.chunk(late.old, vector, LATE_MS, DELAY).actions - late.old)
    assert np.sqrt(np.mean(np.square(changes))) < 0.01
