# SPDX-License-Identifier: Apache-2.0
"""The description of the Panda's arm as a URDF file."""

from __future__ import annotations

from pathlib import Path

from reflex_core.robot.presets import load_preset

ARM = load_preset("franka").without_gripper()


def urdf(tmp_path: Path, *extra: str, joints: int = 7) -> Path:
    lines = [
        f'<joint name="panda_joint{number}" type="revolute">'
        f'<limit lower="{low}" upper="{high}" velocity="2" effort="87"/></joint>'
        for number, low, high in zip(range(1, joints + 1), ARM.action_min, ARM.action_max, strict=False)
    ]
    path = tmp_path / "arm.urdf"
    path.write_text(f"<robot name='panda'>{''.join([*lines, *extra])}</robot>")
    return path
