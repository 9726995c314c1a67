# SPDX-License-Identifier: Apache-2.0
"""Guards, requests and chunks for the tests of the guard."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.limits.check import inner_limits
from reflex_core.robot.presets import load_preset
from reflex_core.values import ActionChunk, Floats, Inference, Observation, Request, Served
from reflex_core.wedges.guard import Guard, guard_for
from reflex_core.wedges.wedge import Proceed

ARM = load_preset("franka").without_gripper()
FRANKA = dataclasses.replace(ARM, acceleration_max=None)
FREE = dataclasses.replace(ARM, acceleration_max=None, velocity_max=None)
MIDDLE: Floats = ((FRANKA.action_min + FRANKA.action_max) / 2).astype(np.float32)
MEASURED: Floats = (MIDDLE + 0.05).astype(np.float32)
LOW, HIGH = inner_limits(FRANKA.action_min, FRANKA.action_max)
COLUMNS = np.arange(7)
HORIZON = 10


def request(
    episode_id: str | None = "pick", state: Floats | None = MEASURED, received_ns: int | None = None
) -> Request:
    observation = Observation({}, state, "reach the red cube")
    now = time.monotonic_ns() if received_ns is None else received_ns
    return Request(observation, now, "request-1", episode_id)


def answering(actions: Floats, dt_s: float = 0.05) -> Proceed:
    """The rest of the chain, as far as the guard can see it: a model that gives these actions."""

    def proceed(request: Request) -> Served:
        return Served(
            chunk=ActionChunk(actions, FRANKA.joint_names, dt_s), raw_actions=actions, request_id=request.request_id,
            episode_id=request.episode_id, seed=1, slot="prod", model_version="test@0", inference=Inference("onnx_cpu", 10, 10),
        )  # fmt: skip

    return proceed


def rows(action: Floats, horizon: int = HORIZON) -> Floats:
    return np.tile(action, (horizon, 1))


def ramp() -> Floats:
    """Row i is the middle of the ranges plus i hundredths."""
    return (MIDDLE + np.arange(HORIZON, dtype=np.float32)[:, None] / 100).astype(np.float32)


def spoiled(value: float = np.nan) -> Floats:
    actions = rows(MIDDLE)
    actions[3, 2] = value
    return actions


def guard_of(robot: Embodiment | None, metrics: Metrics | None = None, dt_s: float = 0.05) -> Guard:
    return guard_for(robot, COLUMNS, metrics or Metrics(), None, FRANKA.joint_names, dt_s)


def count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0
