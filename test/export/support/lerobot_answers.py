# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own answers from a checkpoint's folder: its preprocessor, its policy, its postprocessor, from the raw picture on.

What tests hold an export against. It knows nothing of this repository; LeRobot's random numbers are the only thing replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import tiny_models
import torch
from checkpoints import Made
from diffusers.schedulers import scheduling_ddpm
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from numpy.typing import NDArray
from raw_observations import RawObservation

STATE = "observation.state"
Noise = NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """(rows, n) actions as the network gave them and in the robot's units; the first row is for now."""

    normalised: NDArray[np.float32]
    physical: NDArray[np.float32]


@dataclass(frozen=True)
class LeRobot:
    """A policy with its two pipelines, all loaded from one folder."""

    config: Any
    policy: Any
    preprocess: Any
    postprocess: Any

    @property
    def noise_shape(self) -> tuple[int, int, int] | None:
        """(draws, rows, columns) of one inference in the order of use; None for a policy that draws nothing."""
        config, columns = self.config, self.config.action_feature.shape[0]
        if config.type == "act":
            return None
        if config.type == "diffusion":
            steps = self.policy.diffusion.num_inference_steps
            return (steps if config.noise_scheduler_type == "DDPM" else 1, config.horizon, columns)
        columns = self.policy.model.dim_action if config.type == "xvla" else config.max_action_dim
        return (1, config.chunk_size, columns)

    def chunk(self, history: Sequence[RawObservation], noise: Noise | None = None) -> Chunk:
        """Answer one request, with all rows that the network makes from now on.

        history: the newest observations, oldest first; where the policy sees more, the oldest one stands for those before.
        noise: of `noise_shape`.
        """
        seen = getattr(self.config, "n_obs_steps", 1)
        history = ([history[0]] * seen + list(history))[-seen:]
        batches = [self.preprocess(self.batch(observation)) for observation in history]
        batch = batches[-1] if seen == 1 else self._stacked(batches)
        self.policy.reset()
        with given(self.policy, [] if noise is None else [noise]), self._whole_chunk(seen):
            normalised = self.policy.predict_action_chunk(dict(batch))
        physical = self.postprocess(normalised.clone())
        return Chunk(normalised[0].numpy(), physical[0].numpy())

    def episode(
        self, observations: Iterable[RawObservation], noises: Iterable[Noise] = ()
    ) -> NDArray[np.float32]:
        """Run LeRobot's own control loop: (periods, n) physical actions of `select_action`, one per observation.

        noises: one of `noise_shape` per inference. Relative actions are refused: LeRobot's loop adds the state of the
        moment in which a row is executed, not of the one from which its chunk was made.
        """
        if any(getattr(step, "enabled", False) for step in self.postprocess.steps):
            raise ValueError("an episode of a policy with relative actions has no answer of LeRobot's own")
        self.policy.reset()
        with given(self.policy, noises):
            actions = [
                self.postprocess(self.policy.select_action(self.preprocess(self.batch(observation))))[0]
                for observation in observations
            ]
        return torch.stack(actions).numpy()

    @staticmethod
    def batch(observation: RawObservation) -> dict[str, Any]:
        """What LeRobot's robot loop gives its preprocessor."""
        pictures = {
            f"observation.images.{camera}": torch.from_numpy(picture).permute(2, 0, 1).float() / 255
            for camera, picture in observation.pictures.items()
        }
        return pictures | {STATE: torch.from_numpy(observation.state), "task": observation.task}

    def _stacked(self, batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
        names = [STATE, *self.config.image_features]
        return batches[-1] | {name: torch.stack([batch[name] for batch in batches], dim=1) for name in names}

    @contextmanager
    def _whole_chunk(self, seen: int) -> Iterator[None]:
        """Diffusion cuts its chunk to what is executed; all that is not of the past is asked for."""
        config = self.config
        if config.type != "diffusion":
            yield
            return
        with patch.object(config, "n_action_steps", config.horizon - seen + 1):
            yield


def load(made: Made) -> LeRobot:
    """Load a checkpoint as it lies there, for the processor of this machine, with what the hub would have given beside it."""
    tiny_models.shrink_pi()
    config = PreTrainedConfig.from_pretrained(made.folder)
    config.device = "cpu"
    for name, value in (("pretrained_backbone_weights", None), ("vlm_model_name", str(made.vlm))):
        if hasattr(config, name):
            setattr(config, name, value)
    policy = get_policy_class(config.type).from_pretrained(made.folder, config=config).eval().float()
    policy.requires_grad_(False)
    here: dict[str, Any] = {"device_processor": {"device": "cpu"}}
    words = {} if made.tokenizer is None else {"tokenizer_processor": {"tokenizer_name": str(made.tokenizer)}}
    preprocess, postprocess = make_pre_post_processors(
        config,
        pretrained_path=str(made.folder),
        preprocessor_overrides=here | words,
        postprocessor_overrides=here,
    )
    return LeRobot(config, policy, preprocess, postprocess)


@contextmanager
def given(policy: Any, noises: Iterable[Noise]) -> Iterator[None]:
    """Replace LeRobot's random draws, in their order, by the rows of `noises`; one draw too many raises AssertionError."""
    draws = (draw for noise in noises for draw in noise)

    def drawn(*shape: Any, size: Any = None, **_: Any) -> torch.Tensor:
        wanted = tuple(size or (shape if isinstance(shape[0], int) else shape[0]))
        found = next(draws, None)
        assert found is not None, f"LeRobot draws once more than noise was given: {wanted}"
        assert wanted == (1, *found.shape), f"LeRobot draws {wanted}, given was {found.shape}"
        return torch.from_numpy(found)[None].clone()

    with ExitStack() as patches:
        patches.enter_context(patch.object(torch, "randn", drawn))
        patches.enter_context(patch.object(scheduling_ddpm, "randn_tensor", drawn))
        if hasattr(getattr(policy, "model", None), "sample_noise"):
            patches.enter_context(patch.object(policy.model, "sample_noise", drawn))
        yield
