# SPDX-License-Identifier: Apache-2.0
"""X-VLA: a prefix graph of Florence-2 and one step of the action head, mixed by a table of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from reflex_core.export.processed import DOMAIN
from reflex_core.export.read_normalization import IMAGENET
from reflex_export.checkpoint import Checkpoint
from reflex_export.families.base import Floats, Graph
from reflex_export.families.blocks import (
    DENOISE_FILE,
    PREFIX_FILE,
    euler,
    fed_cameras,
    language,
    masked_slots,
    state_input,
    token_length,
)
from reflex_export.families.entrance import handed_over, seen_by
from reflex_export.families.fused_loop import Row
from reflex_export.families.module import module_of, replaced
from reflex_export.families.names import (
    DENOISE,
    NOISY,
    PREFIX,
    STATE,
    TIME,
    TOKENS,
    VELOCITY,
)
from reflex_export.options import ExportOptions

FEATURES = ("vlm_features", "aux_visual_inputs")  # of the first view with the words, and of the other views
COLUMNS = (
    "time", "x0_from_x", "x0_from_network",
    "next_from_x0", "next_from_x", "next_from_network", "next_from_noise", "next_from_start",
)  # fmt: skip


def picture_size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return (height, width) in pixels of the graphs' pictures; its config.json has the height first."""
    target = checkpoint.config.get("resize_imgs_with_padding")
    if target is None:
        return checkpoint.cameras[0].height, checkpoint.cameras[0].width
    height, width = target
    return int(height), int(width)


def sampler(steps: int) -> dict[str, Any]:
    """Return the table of its sampler: the network answers with actions, and less of the start noise remains step by step."""
    rows = [[row.time, 0.0, 1.0, row.from_network, 0.0, 0.0, 0.0, row.from_start] for row in mixed(steps)]
    return {"columns": list(COLUMNS), "rows": rows, "clip": None}


def mixed(steps: int) -> tuple[Row, ...]:
    """Return the rows of its sampler: of the next time t, t times the start noise and 1 - t times the answer."""
    times = [1.0 - step / steps for step in range(steps + 1)]
    return tuple(Row(time, 0.0, 1.0 - after, after) for time, after in pairwise(times))


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """Return X-VLA's part of reflex_config.json. It normalises by ImageNet before it resizes, so its bars have the mean colour."""
    mean, std = IMAGENET.shift.tolist(), IMAGENET.scale.tolist()
    resized = checkpoint.config.get("resize_imgs_with_padding") is not None
    how: dict[str, Any] = {"mean": mean, "std": std, "fill": 0.0}
    how |= (
        {"resize": "letterbox_top_left", "filter": "bilinear", "bars": mean} if resized else {"size": "exact"}
    )
    steps = int(checkpoint.config.get("num_denoising_steps", 10))
    described = euler(checkpoint, options, steps) | {"rtc": {"mode": "off"}}
    proprio = checkpoint.config.get("use_proprio", True)
    return {
        **described,
        "constants": {DOMAIN: [checkpoint.processors.domain_id or 0]},
        **({} if options.fused else {"sampler": sampler(steps)}),
        "images": masked_slots(checkpoint, *picture_size(checkpoint), how),
        "language": language(checkpoint) | {"mask": None},  # it attends to the padding too
        **(state_input(checkpoint, int(checkpoint.config.get("max_state_dim", 32))) if proprio else {}),
    }


def describe_policy(policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:  # noqa: ARG001
    """Return nothing: config.json says it all."""
    return {}


def graphs(policy: Any, checkpoint: Checkpoint, _: ExportOptions) -> Iterator[Graph]:
    """Yield what Florence-2 makes of pictures and words, and one step of the action head."""
    import torch

    network, config, cameras = policy.model, policy.config, fed_cameras(checkpoint)
    height, width = picture_size(checkpoint)
    pictures = {camera.input: torch.randn(1, 3, height, width) for camera in cameras}
    masks = {camera.mask: torch.ones(1, dtype=torch.bool) for camera in cameras}
    tokens = {TOKENS: torch.ones(1, token_length(checkpoint), dtype=torch.int64)}
    seen = pictures | masks | tokens
    prefix = module_of(network, _prefix(network, len(cameras), config.num_image_views))
    yield Graph(PREFIX, PREFIX_FILE, prefix, seen, FEATURES)
    with torch.no_grad():
        made = dict(zip(FEATURES, prefix(*seen.values()), strict=True))
    given = {NOISY: torch.randn(1, checkpoint.horizon, network.dim_action), TIME: torch.ones(1)} | made
    given |= {DOMAIN: torch.zeros(1, dtype=torch.int64)}
    given |= {STATE: torch.randn(1, network.dim_proprio)} if network.dim_proprio else {}
    step, rows = module_of(network, _step(network)), mixed(config.num_denoising_steps)
    yield Graph(DENOISE, DENOISE_FILE, step, given, (VELOCITY,), loop=rows)


def noise_shape(policy: Any, checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Return the shape of the start noise, which is as wide as the network."""
    return 1, checkpoint.horizon, policy.model.dim_action


def entrance(
    policy: Any, checkpoint: Checkpoint, batch: Mapping[str, Any], _: ExportOptions
) -> Mapping[str, NDArray[Any]]:
    """Return the views that the graphs take, the tokens, the domain, and the state where it is read."""
    policy.reset()
    given = handed_over(policy.model, "generate_actions", lambda: policy.predict_action_chunk(dict(batch)))[1]
    cameras = fed_cameras(checkpoint)
    pictures, masks = (given[name].unbind(1)[: len(cameras)] for name in ("image_input", "image_mask"))
    felt = {STATE: given["proprio"].numpy()} if policy.model.dim_proprio else {}
    words = {TOKENS: given["input_ids"].numpy(), DOMAIN: given["domain_id"].numpy()}
    return seen_by(cameras, pictures, masks) | words | felt


def chunk(policy: Any, batch: Mapping[str, Any], noise: Floats, _: ExportOptions) -> Floats:
    """Return LeRobot's own normalised chunk, float32 (batch, rows, action_dim). noise: (batch, rows, width of the network).

    LeRobot draws this noise with torch.randn and takes none.
    """
    import torch

    policy.reset()
    with replaced(torch, "randn", lambda *_, **__: torch.from_numpy(noise)):
        made: Floats = policy.predict_action_chunk(dict(batch)).numpy()
    return made


def _prefix(network: Any, count: int, views: int) -> Callable[..., tuple[Any, Any]]:
    """Return LeRobot's encoder for all views at once: it leaves out those that are not there, and puts zeros in their place.

    count: of cameras. views: that the network has room for.
    """

    def prefix(*tensors: Any) -> tuple[Any, Any]:
        import torch

        pictures = torch.stack(tensors[:count], dim=1)
        there = torch.stack(tensors[count : 2 * count], dim=1)
        florence = network.vlm
        features = florence.get_image_features(pictures.flatten(0, 1)).pooler_output
        features = features.unflatten(0, pictures.shape[:2]) * there[:, :, None, None].to(features.dtype)
        blank = features.new_zeros(features.shape[0], max(views - count, 0), *features.shape[2:])
        features = torch.cat([features, blank], dim=1)
        words = florence.get_input_embeddings()(tensors[2 * count])
        merged = torch.cat([features[:, 0], words], dim=1)
        encoded = florence.language_model.encoder(inputs_embeds=merged, attention_mask=None)[0]
        return encoded, features[:, 1:].flatten(1, 2)

    return prefix


def _step(network: Any) -> Callable[..., Any]:
    space = network.action_space

    def step(x: Any, time: Any, encoded: Any, others: Any, domain: Any, *state: Any) -> Any:
        import torch

        proprio, noisy = space.preprocess(state[0] if state else x.new_zeros(x.shape[0], 0), x)
        predicted = network.transformer(
            domain_id=domain,
            vlm_features=encoded,
            aux_visual_inputs=others,
            action_with_noise=noisy,
            proprio=proprio,
            t=time,
        )
        # what the last step alone does in LeRobot: the columns that it changes are those that `preprocess` blanks
        finished = space.postprocess(predicted.clone())
        return torch.cat([finished, predicted[..., finished.shape[-1] :]], dim=-1)

    return step
