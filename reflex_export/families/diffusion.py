# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy: an encoder graph, one step of the U-Net, and the schedule as a table of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.base import Floats, Graph
from reflex_export.families.blocks import exact_slots, state_input
from reflex_export.families.names import DENOISE, NOISY, PREFIX, STATE, TIME, VELOCITY
from reflex_export.families.schedule import sampler
from reflex_export.options import ExportOptions

ENCODER_FILE, STEP_FILE = "encoder.onnx", "unet_step.onnx"
CONDITION = "cond"
OBSERVED_STATE = "observation.state"


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return Diffusion Policy's part of reflex_config.json, but for `sampler`, which its scheduler computes.

    Its chunk begins in the past, at the oldest observation: the row of the newest one is `first_row`.
    """
    return {
        "export_kind": "decomposed",
        "policy": "diffusion",
        "graphs": {PREFIX: ENCODER_FILE, DENOISE: STEP_FILE},
        "flow": {"x": NOISY, "time": TIME, "velocity": VELOCITY},
        "images": exact_slots(checkpoint, options),
        "first_row": checkpoint.observation_steps - 1,
        **state_input(checkpoint, checkpoint.state_dim),
    }


def describe_policy(policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:  # noqa: ARG001
    """Return the schedule, as the policy's own scheduler computes it."""
    steps = policy.diffusion.num_inference_steps
    return {"sampler": sampler(policy.diffusion.noise_scheduler, steps), "num_denoising_steps": steps}


def graphs(policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> Iterator[Graph]:  # noqa: ARG001
    """Yield the encoder of pictures and states, with resize and crop, and one step of the U-Net."""
    import torch

    model, past = policy.diffusion, checkpoint.observation_steps
    pictures = {
        camera.input: torch.zeros(1, past, 3, camera.height, camera.width) for camera in checkpoint.cameras
    }
    observed = pictures | {STATE: torch.zeros(1, past, checkpoint.state_dim)}
    encoder = _encoder(model, checkpoint)
    with torch.no_grad():
        condition = encoder(*observed.values())
    yield Graph(PREFIX, ENCODER_FILE, encoder, observed, (CONDITION,))
    noisy = {
        NOISY: torch.zeros(1, checkpoint.horizon, checkpoint.action_dim),
        TIME: torch.zeros(1, dtype=torch.int64),
        CONDITION: condition,
    }
    yield Graph(DENOISE, STEP_FILE, _step(model), noisy, (VELOCITY,))


def noise_shape(policy: Any, checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Return the shape of the start noise and, with DDPM, of that of every step but the last."""
    table = sampler(policy.diffusion.noise_scheduler, policy.diffusion.num_inference_steps)
    draws = sum(row[table["columns"].index("next_from_noise")] != 0 for row in table["rows"])
    return 1 + draws, checkpoint.horizon, checkpoint.action_dim


def chunk(policy: Any, batch: Mapping[str, Any], noise: Floats, options: ExportOptions) -> Floats:  # noqa: ARG001
    """Return all rows that LeRobot can be made to give: from the one of the newest observation to the end.

    batch: pictures (1, observations, 3, height, width) and states (1, observations, state_dim), oldest first, as LeRobot
    takes them where its own queues are empty. noise: (1 + k, horizon, action_dim), the start and that of the k steps that draw some.
    """
    import torch

    config = policy.config
    executed, rows = config.n_action_steps, config.horizon - config.n_obs_steps + 1
    policy.reset()
    config.n_action_steps = rows
    try:
        with _drawn(noise[1:]):
            made = policy.predict_action_chunk(dict(batch), noise=torch.from_numpy(noise[:1]))
    finally:
        config.n_action_steps = executed
    answer: Floats = made.numpy()
    return answer


def entrance(
    policy: Any,  # noqa: ARG001
    checkpoint: Checkpoint,
    batch: Mapping[str, Any],
    options: ExportOptions,  # noqa: ARG001
) -> Mapping[str, NDArray[Any]]:
    """Return the normalised pictures and states, which LeRobot's encoder takes before it resizes and crops."""
    taken = {camera.input: batch[camera.feature].numpy() for camera in checkpoint.cameras}
    return taken | {STATE: batch[OBSERVED_STATE].numpy()}


@contextmanager
def _drawn(noise: Floats) -> Iterator[None]:
    """Let diffusers draw this noise, (k, horizon, action_dim), one slice after the other."""
    import torch
    from diffusers.schedulers import scheduling_ddpm

    slices = iter(torch.from_numpy(noise))
    real = scheduling_ddpm.randn_tensor
    scheduling_ddpm.randn_tensor = lambda *_, **__: next(slices)[None]
    try:
        yield
    finally:
        scheduling_ddpm.randn_tensor = real


def _encoder(model: Any, checkpoint: Checkpoint) -> Any:
    """Return a module from (pictures, states) to the condition: of each step its state and pictures, oldest step first."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = not isinstance(model.rgb_encoder, torch.nn.ModuleList)
            cameras = len(checkpoint.cameras)
            self.eyes = torch.nn.ModuleList(
                [model.rgb_encoder] * cameras if shared else list(model.rgb_encoder)
            )

        def forward(self, *observed: Any) -> Any:
            *pictures, state = observed
            features = [state]
            for eye, picture in zip(self.eyes, pictures, strict=True):
                features.append(eye(picture.flatten(0, 1)).unflatten(0, picture.shape[:2]))
            return torch.cat(features, dim=-1).flatten(1)

    return Encoder().eval()


def _step(model: Any) -> Any:
    """Return a module from (x, time, condition) to what the U-Net predicts."""
    import torch

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = model.unet

        def forward(self, x: Any, time: Any, condition: Any) -> Any:
            return self.unet(x, time, global_cond=condition)

    return Step().eval()
