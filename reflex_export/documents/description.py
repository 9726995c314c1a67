# SPDX-License-Identifier: Apache-2.0
"""The description of an export, reflex_config.json: complete, so that nothing is left to defaults (docs/reference/exports.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reflex_export.checkpoint import Checkpoint, RobotFacts
from reflex_export.families.table import family
from reflex_export.options import ExportOptions
from reflex_export.result import Verification


def describe(
    checkpoint: Checkpoint, options: ExportOptions, model_id: str, of_policy: Mapping[str, Any]
) -> dict[str, Any]:
    """Return reflex_config.json before the comparison with LeRobot. of_policy: what only the loaded policy knows."""
    own = {**family(checkpoint.family).describe(checkpoint, options), **of_policy}
    robot = checkpoint.robot
    return {
        "model_id": model_id,
        "model_type": checkpoint.family,
        **own,
        "chunk_size": checkpoint.horizon,
        "action_dim": checkpoint.action_dim,
        "n_action_steps": checkpoint.n_action_steps,
        **({"observation_steps": checkpoint.observation_steps} if checkpoint.observation_steps > 1 else {}),
        **({"frequency_hz": robot.frequency_hz} if robot.frequency_hz is not None else {}),
        **({"action_names": list(robot.action_names)} if robot.action_names else {}),
        **_state(own, robot),
        **_units(robot),
        **_relative(checkpoint),
    }


def verified(
    description: Mapping[str, Any], checkpoint: Checkpoint, weights_sha256: str, found: Verification
) -> dict[str, Any]:
    """Return the description with where it comes from, and with the batches that were checked."""
    source = {
        "type": checkpoint.family,
        "weights_sha256": weights_sha256,
        **dict(found.versions or {}),
        "parity_max_abs": found.max_abs if math.isfinite(found.max_abs) else None,
        "verified": found.verified,
    }
    batch = {"batch": {"verified": list(found.batch_sizes)}} if found.batch_sizes != (1,) else {}
    return {**description, **batch, "source": source}


def _state(own: Mapping[str, Any], robot: RobotFacts) -> dict[str, Any]:
    if "state" not in own or not robot.state_names:
        return {}
    return {"state": {**own["state"], "names": list(robot.state_names)}}


def _units(robot: RobotFacts) -> dict[str, Any]:
    if not robot.units:
        return {}
    if len(robot.units) == 1:
        return {"units": robot.units[0]}
    names = robot.action_names
    return {"units": dict(zip(names, robot.units, strict=True)) if names else list(robot.units)}


def _relative(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return which actions are offsets from the state. The pipeline says it too; here it can be read."""
    steps = checkpoint.processors.relative
    return {} if steps is None else {"relative_actions": {"mask": steps.mask(checkpoint.action_dim).tolist()}}
