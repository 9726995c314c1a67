# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own answers: its preprocessor, its policy with its own sampler, its postprocessor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.concurrency.progress import report
from reflex_core.export.processors import STATE
from reflex_core.policy.sampler import start_noise
from reflex_export.checkpoint import Checkpoint
from reflex_export.comparison.samples import Floats, Pixels, Sample
from reflex_export.families.base import Family
from reflex_export.lerobot_policy import Loaded
from reflex_export.loading.quiet import quiet
from reflex_export.options import ExportOptions


@dataclass(frozen=True, slots=True)
class Answer:
    """What LeRobot makes of one sample.

    noise: (draws, horizon, width) float32, the start noise and that of the steps that draw some, in the order of use.
    entrance: graph input -> what LeRobot's network got there. normalised, physical: (rows, action_dim) float32 from the row
    of the newest observation on, before and after the postprocessor.
    """

    sample: Sample
    noise: Floats
    entrance: Mapping[str, NDArray[Any]]
    normalised: Floats
    physical: Floats


def answers(
    loaded: Loaded,
    of_family: Family,
    checkpoint: Checkpoint,
    options: ExportOptions,
    samples: Sequence[Sample],
) -> Iterator[Answer]:
    """Yield LeRobot's answer to each sample, one after the other: its pipelines remember the state of the last one."""
    import torch

    shape = of_family.noise_shape(loaded.policy, checkpoint)
    for number, sample in enumerate(samples):
        report(number / len(samples), f"observation {number + 1} of {len(samples)}")
        noise = start_noise(options.seed + number, shape)
        with quiet(), torch.no_grad():
            batch = _batch(loaded, checkpoint, sample)
            entrance = of_family.entrance(loaded.policy, checkpoint, batch, options)
            normalised = of_family.chunk(loaded.policy, batch, noise, options)
            physical = loaded.postprocess(torch.from_numpy(normalised.copy()))
        yield Answer(sample, noise, entrance, normalised[0], physical[0].float().numpy())


def _batch(loaded: Loaded, checkpoint: Checkpoint, sample: Sample) -> dict[str, Any]:
    """Return what the preprocessor makes of the newest observation, stacked with the earlier ones where there are some."""
    import torch

    moments = [
        loaded.preprocess(_raw(checkpoint, pictures, state, sample.instruction))
        for pictures, state in zip(sample.pictures, sample.states, strict=True)
    ]
    if checkpoint.observation_steps == 1:
        return dict(moments[0])
    seen = [camera.feature for camera in checkpoint.cameras] + ([STATE] if checkpoint.state_dim else [])
    stacked = {name: torch.stack([moment[name] for moment in moments], dim=1) for name in seen}
    return dict(moments[-1]) | stacked


def _raw(
    checkpoint: Checkpoint, pictures: Mapping[str, Pixels], state: Floats, instruction: str
) -> dict[str, Any]:
    """Return one observation as LeRobot's control loop gives it to the preprocessor."""
    import torch

    raw: dict[str, Any] = {
        camera.observation: torch.from_numpy(np.ascontiguousarray(pictures[camera.camera].transpose(2, 0, 1)))
        / 255
        for camera in checkpoint.cameras
        if not camera.empty
    }
    if checkpoint.state_dim:
        raw[STATE] = torch.from_numpy(state)
    return raw | {"task": instruction}
