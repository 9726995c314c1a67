# SPDX-License-Identifier: Apache-2.0
"""What a LeRobot checkpoint holds, as far as an export needs it, in one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflex_core.export.processors import Processors
from reflex_core.export.read_normalization import Normalization


@dataclass(frozen=True, slots=True)
class CameraFeature:
    """One picture input, in the order of the policy's config.json.

    feature: its key there, such as `observation.images.top`. observation, camera: its key and its name on the robot, before
    `rename_map`. slot: its name in the graphs, of letters, digits and underscores, different from every other one. height, width: pixels.
    empty: it had no camera in training, and its slot is always masked.
    """

    feature: str
    observation: str
    camera: str
    slot: str
    height: int
    width: int
    empty: bool = False

    @property
    def input(self) -> str:
        """The graph input of its picture."""
        return f"img_{self.slot}"

    @property
    def mask(self) -> str:
        """The graph input that says whether there is a picture, in families that have one."""
        return f"mask_{self.slot}"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a safetensors file: its dtype as the file spells it (F32, BF16), its shape, its bytes from start to end.

    start, end: counted from the first byte after the header.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A safetensors file by its header: no tensor is loaded. data_start: the first byte after the header."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    data_start: int

    @property
    def elements(self) -> int:
        """How many numbers all tensors have together."""
        return sum(tensor.elements for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """meta/info.json of a LeRobot data set.

    folder: of the data set; None where only its info.json is at hand. fps: control rate in Hz. shapes: feature -> shape.
    action_names, state_names: () where it does not name them.
    """

    file: Path
    folder: Path | None
    codebase_version: str
    fps: float | None
    robot_type: str
    shapes: Mapping[str, tuple[int, ...]]
    action_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RobotFacts:
    """What no checkpoint says of its own: from options, from the pipeline, from the data set.

    action_names, state_names: () where they are not known. frequency_hz: control rate. units: one for all numbers, or one
    per action; () where it is not known. robot_type: as the data set calls it. open_questions: what is still missing, and how to say it.
    """

    action_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    frequency_hz: float | None = None
    units: tuple[str, ...] = ()
    robot_type: str = ""
    open_questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One LeRobot checkpoint that can be exported.

    Attributes:
        name: What to call it: the training run and step, or the model's name on the hub.
        folder: With config.json, model.safetensors and both pipelines, as LeRobot 0.4 to 0.6 write it.
        family: `act`, `diffusion`, `smolvla`, `pi0`, `pi05` or `xvla`: a row of families/table.py.
        config: config.json as it is written.
        version: Of LeRobot, as far as the folder shows it: 0.3, 0.4, 0.5 or 0.6.
        processors: Both pipelines. normalization: their statistics, of state, action and pictures.
        cameras: Picture inputs in the policy's order.
        state_dim: Numbers of observation.state; 0 where the policy does not read it. action_dim: of one action.
        horizon: Rows that the network makes. n_action_steps: rows that are executed before the next inference.
        observation_steps: Observations that one inference reads, a control period apart, oldest first.
        weights: model.safetensors by its header. robot: what options and data set add.
        tokenizer: Folder with tokenizer.json, None where the family reads no words. vlm: folder with the config.json of
            the vision-language model, for SmolVLA alone.
        dataset: What --dataset names. notes: what the user should know, one sentence each.
    """

    name: str
    folder: Path
    family: str
    config: Mapping[str, Any]
    version: str
    processors: Processors
    normalization: Normalization
    cameras: tuple[CameraFeature, ...]
    state_dim: int
    action_dim: int
    horizon: int
    n_action_steps: int
    observation_steps: int
    weights: WeightsFile
    robot: RobotFacts = RobotFacts()
    tokenizer: Path | None = None
    vlm: Path | None = None
    dataset: DatasetInfo | None = None
    notes: tuple[str, ...] = ()

    @property
    def joints(self) -> tuple[str, ...]:
        """One name for each action, numbers where none is known."""
        return self.robot.action_names or tuple(f"action_{index}" for index in range(self.action_dim))
