# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's own policies hand to their networks, by the names of the graphs' inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_export.checkpoint import CameraFeature, Checkpoint
from reflex_export.families.blocks import fed_cameras, token_length
from reflex_export.families.module import replaced
from reflex_export.families.names import STATE, TOKENS, TOKENS_MASK


class _ReachedError(Exception):
    """Ends LeRobot's policy where its network would begin."""


def handed_over(network: Any, method: str, run: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the call of `network.method` that `run` leads to; the method itself is not run."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(*given: Any, **named: Any) -> Any:
        seen.append((given, named))
        raise _ReachedError

    with replaced(network, method, stop):
        try:
            run()
        except _ReachedError:
            return seen[0]
    raise AssertionError(f"LeRobot's policy does not call {method}")


def seen_by(
    cameras: Sequence[CameraFeature], pictures: Sequence[Any], masks: Sequence[Any]
) -> dict[str, NDArray[Any]]:
    """Return pictures and their masks. pictures, masks: tensors in the order of the cameras, batch axis first."""
    found: dict[str, NDArray[Any]] = {}
    for camera, picture, mask in zip(cameras, pictures, masks, strict=True):
        found |= {camera.input: picture.numpy(), camera.mask: mask.numpy()}
    return found


def sampled_from(policy: Any, checkpoint: Checkpoint, batch: Mapping[str, Any]) -> Mapping[str, NDArray[Any]]:
    """Return what SmolVLA, pi0 and pi0.5 sample actions from. Tokens that are not there are 0, up to the length of the graphs."""
    policy.reset()
    given, _ = handed_over(policy.model, "sample_actions", lambda: policy.predict_action_chunk(dict(batch)))
    pictures, masks, tokens, there, *state = given
    words = (tokens * there).numpy(), there.numpy()
    missing = ((0, 0), (0, token_length(checkpoint) - tokens.shape[1]))
    padded = dict(zip((TOKENS, TOKENS_MASK), (np.pad(one, missing) for one in words), strict=True))
    felt = {STATE: state[0].numpy()} if state else {}
    cameras = fed_cameras(checkpoint)  # the empty ones are behind them
    return seen_by(cameras, pictures[: len(cameras)], masks[: len(cameras)]) | padded | felt
