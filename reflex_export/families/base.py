# SPDX-License-Identifier: Apache-2.0
"""What every model family gives: a module with the functions of Family is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.fused_loop import Row
from reflex_export.options import ExportOptions

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX graph to be written.

    Attributes:
        role: `prefix`, `denoise` or `monolithic`, a key of `graphs` in reflex_config.json.
        file: Its name in the export, such as vlm_prefix.onnx.
        module: torch.nn.Module whose forward takes the values of `inputs` in their order.
        inputs: Name -> example tensor, batch axis first.
        outputs: Their names, in the order of forward's results.
        batched: Whether axis 0 of every input may vary.
        loop: Of a denoise step, the rows of the loop that `--fused` writes around it; () where there is none.
    """

    role: str
    file: str
    module: Any
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    batched: bool = True
    loop: tuple[Row, ...] = ()


class Family(Protocol):
    """One family. `describe` runs without torch; the others import torch and LeRobot when they are called."""

    def describe(self, checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
        """Return the family's part of reflex_config.json."""

    def describe_policy(self, policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Any]:
        """Return what of reflex_config.json only the loaded policy knows, such as the table of a schedule; {} for most."""

    def graphs(self, policy: Any, checkpoint: Checkpoint, options: ExportOptions) -> Iterator[Graph]:
        """Yield the graphs of a loaded policy, one at a time, so that each can be freed before the next."""

    def noise_shape(self, policy: Any, checkpoint: Checkpoint) -> tuple[int, int, int]:
        """Return (draws, horizon, width) of the noise of one inference: the start's, then that of the steps that draw some."""

    def chunk(self, policy: Any, batch: Mapping[str, Any], noise: Floats, options: ExportOptions) -> Floats:
        """Return LeRobot's own normalised chunk from its own sampler with this start noise, float32 (batch, rows, action_dim).

        options: what LeRobot shall do as another of its releases did, such as `bars`.
        """

    def entrance(
        self, policy: Any, checkpoint: Checkpoint, batch: Mapping[str, Any], options: ExportOptions
    ) -> Mapping[str, NDArray[Any]]:
        """Return what LeRobot itself feeds its network for a preprocessed batch, by the names of the graphs' inputs.

        It is compared with what is served from the same observation, so that a difference names the stage where it begins.
        """
