# SPDX-License-Identifier: Apache-2.0
"""ACT: one deterministic graph from pictures and state to a chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.base import Floats, Graph
from reflex_export.families.blocks import exact_slots, state_input
from reflex_export.families.names import ACTIONS, MONOLITHIC, STATE
from reflex_export.options import ExportOptions

FILE = "policy.onnx"
OBSERVED_STATE = "observation.state"


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return ACT's part of reflex_config.json: no noise, no loop, pictures as large as in training."""
    coefficient = checkpoint.config.get("temporal_ensemble_coeff")
    return {
        "export_kind": "monolithic",
        "policy": "deterministic",
        "graphs": {MONOLITHIC: FILE},
        "actions_output": ACTIONS,
        "images": exact_slots(checkpoint, options),
        **({} if coefficient is None else {"temporal_ensemble_coeff": coefficient}),
        **state_input(checkpoint, checkpoint.state_dim),
    }


def describe_policy(policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:  # noqa: ARG001
    """Return nothing: config.json says it all."""
    return {}


def graphs(policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> Iterator[Graph]:  # noqa: ARG001
    """Yield the network, without the encoder of the latent variable: at inference that is zero."""
    import torch

    inputs = {camera.input: torch.zeros(1, 3, camera.height, camera.width) for camera in checkpoint.cameras}
    if checkpoint.state_dim:
        inputs[STATE] = torch.zeros(1, checkpoint.state_dim)
    network = _network(policy.model, list(inputs.values()), len(checkpoint.cameras))
    yield Graph(MONOLITHIC, FILE, network, inputs, (ACTIONS,))


def noise_shape(policy: Any, checkpoint: Checkpoint) -> tuple[int, int, int]:  # noqa: ARG001
    """Return the shape of no noise."""
    return 0, checkpoint.horizon, checkpoint.action_dim


def chunk(policy: Any, batch: Mapping[str, Any], noise: Floats, options: ExportOptions) -> Floats:  # noqa: ARG001
    """Return LeRobot's chunk; there is no noise."""
    import torch

    # LeRobot asks for the device of the state even where the policy reads none
    seen = {OBSERVED_STATE: torch.zeros(1, 1)} | dict(batch)
    answer: Floats = policy.predict_action_chunk(seen).numpy()
    return answer


def entrance(
    policy: Any,  # noqa: ARG001
    checkpoint: Checkpoint,
    batch: Mapping[str, Any],
    options: ExportOptions,  # noqa: ARG001
) -> Mapping[str, NDArray[Any]]:
    """Return the normalised pictures and state, which LeRobot's network takes as they are."""
    taken = {camera.input: batch[camera.feature].numpy() for camera in checkpoint.cameras}
    if checkpoint.state_dim:
        taken[STATE] = batch[OBSERVED_STATE].numpy()
    return taken


def _network(model: Any, examples: list[Any], pictures: int) -> Any:
    """Return a module from (pictures, state if there is one) to the chunk (batch, chunk_size, action_dim).

    LeRobot makes a list item of every pixel of a feature map, and so a graph of ten thousand nodes: here they stay in one
    tensor, in the same order. The embeddings of positions depend on nothing that is observed.

    examples: inputs with a batch of 1. pictures: how many of them are pictures.
    """
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder, self.head = model.encoder, model.decoder, model.action_head
            self.latent = model.encoder_latent_input_proj
            if pictures:
                self.backbone, self.project = model.backbone, model.encoder_img_feat_input_proj
            if len(examples) > pictures:
                self.state = model.encoder_robot_state_input_proj
            where = [model.encoder_1d_feature_pos_embed.weight.unsqueeze(1)]
            for picture in examples[:pictures]:
                embedded = model.encoder_cam_feat_pos_embed(self.backbone(picture)["feature_map"])
                where.append(embedded.flatten(2).permute(2, 0, 1))
            self.register_buffer("where", torch.cat(where))
            self.register_buffer("row", model.decoder_pos_embed.weight.unsqueeze(1))

        def forward(self, *observed: Any) -> Any:
            batch = observed[0].shape[0]
            latent = observed[0].new_zeros(batch, self.latent.in_features)
            tokens = [self.latent(latent)[None]]
            tokens += [self.state(state)[None] for state in observed[pictures:]]
            for picture in observed[:pictures]:
                features = self.project(self.backbone(picture)["feature_map"])
                tokens.append(features.flatten(2).permute(2, 0, 1))
            seen = self.encoder(torch.cat(tokens), pos_embed=self.where)
            rows = seen.new_zeros(self.row.shape[0], batch, self.row.shape[2])
            decoded = self.decoder(rows, seen, encoder_pos_embed=self.where, decoder_pos_embed=self.row)
            return self.head(decoded.transpose(0, 1))

    with torch.no_grad():
        return Network().eval()
