# SPDX-License-Identifier: Apache-2.0
"""What is served, in the words of the greetings of other servers' wires."""

from __future__ import annotations

from typing import Any

from reflex_core import __version__
from reflex_core.engine.engine import Engine
from reflex_core.export.binding import Binding
from reflex_core.robot.groups import velocity_columns
from reflex_ros.sidecar.act import cameras_of


def about(engine: Engine) -> dict[str, Any]:
    """Return names, sizes, units and rate of what is served; empty while nothing is loaded. Plain values only."""
    loaded = engine.loaded
    if loaded is None:
        return {}
    policy = loaded.policy
    binding = policy.binding
    return {
        "server": "reflex",
        "reflex_version": __version__,
        "robot_id": engine.settings.robot_id,
        "embodiment": loaded.embodiment.name if loaded.embodiment else "",
        "model_version": policy.export.model_version,
        "action_space": _action_space(binding),
        "action_names": list(binding.action_names),
        "action_dim": len(binding.action_names),
        "action_horizon": binding.horizon,
        "execution_horizon": engine.settings.execution_horizon or loaded.execution_horizon,
        "dt_s": binding.dt_s,
        "control_hz": round(1.0 / binding.dt_s, 6) if binding.dt_s > 0 else 0.0,
        "cameras": list(cameras_of(loaded)),
        "state_names": list(binding.state_names),
        "state_dim": binding.state_dim,
        "needs_state": loaded.needs_state,
        "needs_instruction": loaded.needs_instruction,
        "wire_keys": list(engine.settings.wire_keys),
    }


def _action_space(binding: Binding) -> str:
    """Return what a row commands: positions, unless all columns are of a base or another group that takes velocities."""
    rates = velocity_columns(binding.groups, len(binding.action_names))
    return "joint_velocity" if rates is not None and rates.all() else "joint_position"
