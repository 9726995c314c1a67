# SPDX-License-Identifier: Apache-2.0
"""The loaded policy's fields in the header of a trace."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from reflex_core.policy.base import Policy
from reflex_core.records.trace.schema import Session
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.limits.limits import Limits


def session_of(
    policy: Policy,
    embodiment: Embodiment | None,
    robot_id: str = "",
    *,
    hardware: Mapping[str, str] | None = None,
    policies: tuple[Mapping[str, Any], ...] = (),
    settings: Mapping[str, Any] | None = None,
    notes: str = "",
) -> Session:
    """Return the session of one policy; `policies` describes the slots where there are two."""
    export = policy.export
    return Session(
        model_hash=export.model_hash,
        config_hash=export.config_hash,
        export_dir=export.address or str(export.path.absolute()),
        model_type=str(export.config.get("model_type", "smolvla")),
        export_kind=str(export.config.get("export_kind", "decomposed")),
        embodiment=embodiment.name if embodiment else None,
        hardware={"ort": onnxruntime.__version__} | dict(hardware or {}),
        providers=tuple(policy.providers),
        notes=notes,
        policies=policies,
        vlm_conditioning="real" if policy.contract.images or policy.contract.language else "none",
        robot_id=robot_id,
        versions={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
            "platform": platform.platform(),
        },
        noise={
            "generator": "numpy.Philox",
            "distribution": "standard_normal",
            "dtype": "float32",
            "shape": list(policy.noise_shape),
        },
        action_names=tuple(policy.binding.action_names),
        state_names=tuple(policy.binding.state_names),
        observation_steps=policy.contract.observation_steps,
        settings=settings or {},
    )


def limits_document(limits: Limits | None) -> dict[str, Any]:
    """Return the limits in force by joint, None where a joint has none; empty without a guard's limits."""
    if limits is None:
        return {}
    arrays = {
        "position_min": limits.position_min,
        "position_max": limits.position_max,
        "velocity_max": limits.velocity_max,
        "acceleration_max": limits.acceleration_max,
    }
    found: dict[str, Any] = {"names": limits.names}
    for name, values in arrays.items():
        found[name] = [float(value) if np.isfinite(value) else None for value in values]
    return found
