# SPDX-License-Identifier: Apache-2.0
"""What is traced computes what LeRobot's own sampler computes, before any of it is written as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import tiny_models
import torch
from checkpoints import FAMILIES, Made
from raw_observations import noise, observation

from reflex_export.checkpoint import Checkpoint
from reflex_export.families.base import Family, Graph
from reflex_export.families.table import family
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.lerobot_policy import Loaded, load
from reflex_export.options import ExportOptions

SAMPLERS = {
    "smolvla": "sample_actions",
    "pi0": "sample_actions",
    "pi05": "sample_actions",
    "xvla": "generate_actions",
}
# LeRobot masks the tokens of an empty camera, the graphs have none; X-VLA: it leaves out views, the graph multiplies by zero
ROUNDING = 2e-6


class Opened:
    """One small checkpoint as the exporter loads it."""

    def __init__(self, made: Made, work: Path) -> None:
        tiny_models.shrink_pi()
        self.options = ExportOptions(tokenizer=made.tokenizer, vlm=made.vlm, dataset=made.dataset)
        self.checkpoint: Checkpoint = read_checkpoint(str(made.folder), self.options, work)
        self.loaded: Loaded = load(self.checkpoint)
        self.family: Family = family(self.checkpoint.family)

    def batch(self, seed: int = 3) -> dict[str, Any]:
        """What LeRobot's preprocessor makes of an observation."""
        seen = observation(seed)
        pictures = {
            f"observation.images.{camera}": torch.from_numpy(picture).permute(2, 0, 1).float() / 255
            for camera, picture in seen.pictures.items()
        }
        return self.loaded.preprocess(
            pictures | {"observation.state": torch.from_numpy(seen.state), "task": seen.task}
        )

    def graphs(self, **changes: Any) -> Iterator[Graph]:
        return self.family.graphs(self.loaded.policy, self.checkpoint, replace(self.options, **changes))

    def predicted(self, start: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """LeRobot's own normalised chunk, and the graphs' inputs as its policy hands them to its sampler."""
        model, seen = self.loaded.policy.model, {}
        sampler = SAMPLERS[self.checkpoint.family]
        real = getattr(model, sampler)

        def spy(*given: Any, **named: Any) -> Any:
            seen.update(self._named(*given, **named))
            return real(*given, **named)

        with patch.object(model, sampler, spy):
            chunk = self.family.chunk(self.loaded.policy, self.batch(), start, self.options)
        return chunk, seen

    def _named(self, *given: Any, **named: Any) -> dict[str, Any]:
        cameras = self.checkpoint.cameras
        if self.checkpoint.family == "xvla":
            pictures, masks = named["image_input"].unbind(1), named["image_mask"].unbind(1)
            words = {
                "lang_tokens": named["input_ids"],
                "domain_id": named["domain_id"],
                "state": named["proprio"],
            }
        else:
            pictures, masks, tokens, there, *state = given
            words = {"lang_tokens": tokens, "lang_masks": there} | ({"state": state[0]} if state else {})
        for camera, picture, mask in zip(cameras, pictures, masks, strict=False):
            words |= {camera.input: picture, camera.mask: mask}
        return words


@pytest.fixture(scope="module")
def opened(
    checkpoint: Callable[[str], Made], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Opened]:
    return lambda name: Opened(checkpoint(name), tmp_path_factory.mktemp(name))


def run(graph: Graph, given: dict[str, Any]) -> dict[str, Any]:
    """The results of a graph by their names, for inputs by theirs."""
    with torch.no_grad():
        made = graph.module(*(given[name] for name in graph.inputs))
    return dict(zip(graph.outputs, made if isinstance(made, tuple) else (made,), strict=True))


def sampled(prefix: Graph, step: Graph, given: dict[str, Any], start: torch.Tensor) -> torch.Tensor:
    """The chunk by the rows that are written around a step."""
    given, x = given | run(prefix, given), start
    for row in step.loop:
        answer = run(step, given | {"x_t": x, "t": torch.full((1,), row.time)})["v_t"]
        x = row.from_x * x + row.from_network * answer + row.from_start * start
    return x


@pytest.mark.parametrize("name", ["smolvla", "pi0", "pi0_relative", "pi05", "xvla"])
def test_prefix_and_steps_are_lerobots_sampler(name: str, opened: Callable[[str], Opened]) -> None:
    policy = opened(name)
    prefix, step = policy.graphs()
    start = noise(1, tuple(step.inputs["x_t"].shape))
    wanted, given = policy.predicted(start)
    made = sampled(prefix, step, given, torch.from_numpy(start))
    assert np.ptp(wanted, axis=1).max() > 0.05
    np.testing.assert_allclose(made[..., : wanted.shape[-1]].numpy(), wanted, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("space", "columns"), [("joint", 14), ("so101_bimanual", 12), ("franka_joint7", 7), ("auto", 6)]
)
def test_every_space_of_joint_actions_of_xvla_ends_as_in_lerobot(
    space: str, columns: int, tmp_path: Path
) -> None:
    """Some have grippers, whose sigmoid LeRobot applies after the last step, some columns that are cut off then."""
    policy = Opened(FAMILIES["xvla"](tmp_path / "made", action_mode=space, max_state_dim=20), tmp_path)
    prefix, step = policy.graphs()
    start = noise(1, tuple(step.inputs["x_t"].shape))
    wanted, given = policy.predicted(start)
    made = sampled(prefix, step, given, torch.from_numpy(start)).numpy()
    assert wanted.shape[-1] == columns
    np.testing.assert_allclose(made[..., :columns], wanted, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ["smolvla", "pi0", "pi05", "xvla"])
def test_lerobots_policy_is_as_before_when_its_graphs_are_taken(
    name: str, opened: Callable[[str], Opened]
) -> None:
    policy = opened(name)
    prefix, step = policy.graphs()
    start = noise(1, tuple(step.inputs["x_t"].shape))
    before, _ = policy.predicted(start)
    for graph in policy.graphs():
        run(graph, dict(graph.inputs))
    np.testing.assert_array_equal(policy.predicted(start)[0], before)


def test_no_input_is_there_for_a_camera_that_was_empty_in_training(opened: Callable[[str], Opened]) -> None:
    policy = opened("smolvla")
    prefix, _ = policy.graphs()
    pictures = [name for name in prefix.inputs if name.startswith("img_")]
    assert pictures == ["img_top", "img_wrist"]
    assert prefix.module(*prefix.inputs.values())[0].shape[-2] == 2 * 16 + 48 + 1


def test_tokens_around_an_empty_camera_are_seen_where_smolvla_has_them(tmp_path: Path) -> None:
    """LeRobot masks its picture and not the tokens, so that the graph has the slot."""
    policy = Opened(FAMILIES["smolvla"](tmp_path / "made", add_image_special_tokens=True), tmp_path)
    prefix, step = policy.graphs()
    assert "img_empty_camera_0" in prefix.inputs
    start = noise(1, tuple(step.inputs["x_t"].shape))
    wanted, given = policy.predicted(start)
    made = sampled(prefix, step, given, torch.from_numpy(start)).numpy()
    np.testing.assert_allclose(made[..., : wanted.shape[-1]], wanted, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ["smolvla", "pi0", "pi05", "xvla"])
def test_rows_of_a_batch_do_not_see_each_other(name: str, opened: Callable[[str], Opened]) -> None:
    for graph in opened(name).graphs():
        other = {key: torch.flip(value, [-1]) for key, value in graph.inputs.items()}
        both = run(graph, {key: torch.cat([value, other[key]]) for key, value in graph.inputs.items()})
        for row, given in enumerate((dict(graph.inputs), other)):
            for key, alone in run(graph, given).items():
                np.testing.assert_allclose(
                    both[key][row : row + 1].float(), alone.float(), rtol=0, atol=1e-5, err_msg=key
                )


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_lerobot_is_asked_with_the_bars_of_its_release_0_4(
    name: str, opened: Callable[[str], Opened]
) -> None:
    policy = opened(name)
    start = noise(1, (1, policy.checkpoint.horizon, 32))
    now, seen = policy.predicted(start)
    policy.options = replace(policy.options, bars=-3.0)
    then, seen_then = policy.predicted(start)
    top = seen["img_top"][0].numpy(), seen_then["img_top"][0].numpy()
    bars = np.ones((112, 112), dtype=bool)
    bars[14:98] = False  # 640x480 into 112x112
    for picture, value in zip(top, (-1.0, -3.0), strict=True):
        np.testing.assert_array_equal(picture[:, bars], value)
    np.testing.assert_array_equal(top[0][:, ~bars], top[1][:, ~bars])
    assert np.abs(then - now).max() > 1e-3
