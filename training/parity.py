# SPDX-License-Identifier: Apache-2.0
"""Writes parity.npz: one simulated observation and the chunk that is made of it here, for `reflex doctor` elsewhere.

python -m training.parity models/reach_panda
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reflex_core.doctor.parity import FIXTURE, record
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.observations import look
from reflex_ros.demo.scene import make_scene
from training.a2c2_data import open_policy
from training.evaluate import FIRST_HELD_OUT_SEED

SEED = 0
LIMIT = 1e-4  # that of VERIFICATION.md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path)
    folder = parser.parse_args().export
    policy = open_policy(folder)
    arm, scene = Arm(), make_scene(FIRST_HELD_OUT_SEED)
    try:
        arm.reset(scene)
        seen = look(arm, scene, policy.contract.images[0].camera)
    finally:
        arm.close()
    record(folder / FIXTURE, policy, seen, SEED, LIMIT)
    print(f"{folder / FIXTURE}: seed {SEED}, {scene.instruction!r}")


if __name__ == "__main__":
    main()
