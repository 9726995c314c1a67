# SPDX-License-Identifier: Apache-2.0
"""Inputs of other shapes: states of every rank, cameras stacked in one input, several observations, constants, batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seen_exports import RAW, SIDE, seeing

from reflex_core.errors import ConfigurationError, ExportError, ObservationError
from reflex_core.export.contract import Contract
from reflex_core.export.export import open_export
from reflex_core.policy import flow_matching
from reflex_core.policy.base import Policy
from reflex_core.policy.layouts import load_layout
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation

TWO = {"observation_steps": 2, "frequency_hz": 10.0}


def grey(value: int, height: int = SIDE, width: int = SIDE) -> Frame:
    return Frame(np.full((height, width, 3), value, np.uint8), "rgb8", height, width)


def seen(state: Sequence[float], history: tuple[Observation, ...] = (), **values: int) -> Observation:
    frames = {name: grey(value) for name, value in (values or {"front": 50}).items()}
    return Observation(frames, np.array(state, np.float32), "", history=history)


def opened(path: Path) -> Policy:
    return load_policy(open_export(path), None, "cpu", 1)


def contract(path: Path) -> Contract:
    return load_layout(flow_matching.network, open_export(path), "cpu", 1).contract


def row(policy: Policy, observation: Observation) -> list[float]:
    return [float(number) for number in policy.predict(observation, 0).actions[0]]


@pytest.mark.parametrize("body", [(2,), (1, 2), (1, 1, 2), ("batch", 2), ("batch", 1, 2), ("batch", "o", 2)])
def test_the_state_has_the_rank_of_the_graph(tmp_path: Path, body: tuple[int | str, ...]) -> None:
    policy = opened(seeing(tmp_path, body=body))
    assert row(policy, seen([1.5, -2.0])) == [50, 1.5, -2.0]
    policy.predict(policy.canary(), 0)


@pytest.mark.parametrize("body", [(1, 1, 1, 2), (2, 2), (1, 2, 2)])
def test_a_state_of_another_shape_is_refused(tmp_path: Path, body: tuple[int | str, ...]) -> None:
    with pytest.raises(ExportError, match=r"'state\.input' must be an input of"):
        opened(seeing(tmp_path, body=body))


def test_stacked_cameras_are_one_input_in_the_order_of_their_places(tmp_path: Path) -> None:
    policy = opened(seeing(tmp_path, eye=(1, 3, 3, SIDE, SIDE), cameras=("top", "left", "right")))
    assert row(policy, seen([0, 0], right=30, top=10, left=20)) == [10, 20, 30, 0, 0]
    with pytest.raises(ObservationError, match="no image from camera 'left'"):
        policy.predict(seen([0, 0], right=30, top=10), 0)


def test_a_missing_stacked_camera_is_masked_in_its_place(tmp_path: Path) -> None:
    images = [
        {
            "camera": name,
            "input": "eye",
            "mask": "mask",
            "stack": number,
            "required": False,
            "fill": -7.0,
            **RAW,
        }
        for number, name in enumerate(("top", "left"))
    ]
    path = seeing(tmp_path, eye=(1, 2, 3, SIDE, SIDE), mask=(1, 2), cameras=("top", "left"), images=images)
    assert row(opened(path), seen([0, 0], left=20)) == [-7, 20, 0, 0, 0, 1]


def test_an_input_of_several_observations_holds_them_oldest_first(tmp_path: Path) -> None:
    policy = opened(seeing(tmp_path, eye=(1, 2, 3, SIDE, SIDE), body=(1, 2, 2), **TWO))
    earlier = (seen([9, 9], front=9), seen([1, 2], front=10))
    assert row(policy, seen([3, 4], earlier, front=20)) == [10, 20, 1, 2, 3, 4]
    policy.predict(policy.canary(), 0)


def test_an_episodes_first_observation_stands_for_those_before_it(tmp_path: Path) -> None:
    policy = opened(
        seeing(tmp_path, eye=(1, 3, 3, SIDE, SIDE), body=(1, 3, 1), observation_steps=3, frequency_hz=10.0)
    )
    assert row(policy, seen([5], front=20)) == [20, 20, 20, 5, 5, 5]
    assert row(policy, seen([5], (seen([4], front=10),), front=20)) == [10, 10, 20, 4, 4, 5]


def test_stacked_cameras_of_several_observations(tmp_path: Path) -> None:
    policy = opened(
        seeing(tmp_path, eye=("b", 2, 2, 3, SIDE, SIDE), cameras=("top", "left"), body=(1, 2), **TWO)
    )
    earlier = (seen([1, 1], top=10, left=20),)
    # the state has no axis of observations: the newest
    assert row(policy, seen([2, 3], earlier, top=30, left=40)) == [10, 20, 30, 40, 2, 3]


def test_every_earlier_observation_is_checked_as_the_newest(tmp_path: Path) -> None:
    policy = opened(seeing(tmp_path, eye=(1, 2, 3, SIDE, SIDE), body=(1, 2, 2), **TWO))
    with pytest.raises(ObservationError, match="the state must be 2 numbers|at most 2"):
        policy.predict(seen([3, 4], (seen([1, 2, 3]),)), 0)
    with pytest.raises(ObservationError, match="no image from camera 'front'"):
        policy.predict(seen([3, 4], (Observation({}, np.zeros(2, np.float32), ""),)), 0)


def test_only_pictures_of_the_exact_size_are_taken(tmp_path: Path) -> None:
    exact = [{"camera": "front", "input": "eye", "range": [0, 255], "size": "exact"}]
    policy = opened(seeing(tmp_path / "exact", eye=(1, 3, 6, SIDE), images=exact))
    policy.predict(policy.canary(), 0)
    right = Observation({"front": grey(7, 6, SIDE)}, np.zeros(2, np.float32), "")
    assert row(policy, right)[0] == 7
    expected = "camera 'front' must give images of 8x6, as the policy was trained without a resize, got 8x8"
    with pytest.raises(ObservationError, match=expected) as refused:
        policy.predict(seen([0, 0], front=7), 0)
    assert refused.value.slug == "image-size"
    resized = seeing(tmp_path / "resized", eye=(1, 3, 6, SIDE), images=[exact[0] | {"resize": "stretch"}])
    assert row(opened(resized), seen([0, 0], front=7))[0] == 7


@pytest.mark.parametrize(
    ("domain", "value", "expected"), [((1,), 3, [3]), ((2,), [4, 5], [4, 5]), ((1, 2), [[6, 7]], [6, 7])]
)
def test_constant_inputs_are_fed_as_they_are_written(
    tmp_path: Path, domain: tuple[int, ...], value: Any, expected: list[float]
) -> None:
    policy = opened(seeing(tmp_path, domain=domain, constants={"domain": value}))
    assert row(policy, seen([0, 0], front=1)) == [1, 0, 0, *expected]


def test_a_verified_batch_is_read(tmp_path: Path) -> None:
    free: dict[str, Any] = {"eye": ("b", 3, SIDE, SIDE), "body": ("b", 2), "noise": ("b", 4, "width")}
    assert contract(seeing(tmp_path / "a", **free)).batch == (1,)
    found = contract(seeing(tmp_path / "b", **free, batch={"verified": [4, 1, 2]}))
    assert (found.batch, found.observation_steps) == ((1, 2, 4), 1)


EYE = {"camera": "front", "input": "eye", **RAW}
STACK = {"eye": (1, 2, 3, SIDE, SIDE), "cameras": ("a", "b")}
# what is written, and what the refusal says
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "steps of no input": (
        TWO,
        "'observation_steps' must be 1, as no input of the graphs has an axis of observations, got 2",
    ),
    "steps of text": (
        {"observation_steps": "two"},
        "'observation_steps' must be a positive integer up to 64, got \"two\"",
    ),
    "steps of another number": (
        {"eye": (1, 3, 3, SIDE, SIDE), **TWO},
        r"'images \(eye\)' must be an input of shape \(1, 2, and an image\), .*got \[1, 3, 3, 8, 8\]",
    ),
    "a batch": ({"eye": (2, 3, SIDE, SIDE)}, r"'images \(eye\)' must be an input of shape \(1, and an image\)"),
    "too many axes": (
        {"eye": (1, 1, 1, 3, SIDE, SIDE)},
        r"'images \(eye\)' must be an input of shape \(1, and an image\)",
    ),
    "no places": (STACK | {"images": [EYE, EYE]}, r"'images \(eye\).* must be"),
    "one place twice": (
        STACK | {"images": [EYE | {"stack": 0}, EYE | {"stack": 0}]},
        r"'images \(eye\)\.stack' must be 0 to 1, one for each camera of this input, got \[0, 0\]",
    ),
    "a place beyond": (
        STACK | {"images": [EYE | {"stack": 2}, EYE | {"stack": 0}]},
        r"'images \(eye\)\.stack' must be a number from 0 to 1, as 2 cameras name the input, got 2",
    ),
    "fewer cameras than places": (
        STACK | {"images": [EYE | {"stack": 0}]},
        r"'images \(eye\)' must be an input of shape \(1, 1, and an image\)",
    ),
    "two sizes": (
        {"eye": (1, 2, 3, "h", "w"), "images": [EYE | {"stack": n, "height": 8 + n, "width": 8} for n in (0, 1)]},
        "of one layout, height and width for all its cameras",
    ),
    "no size": (
        {"eye": (1, 2, 3, "h", "w"), "cameras": ("a", "b")},
        r"'images \(eye\)\.height' must be a number, as the graph takes any and all images must have one size, got null",
    ),
    "a mask of another shape": (
        STACK | {"mask": (1,)},
        r"'images \(eye\)\.mask' must be an input of shape \(1, 2\), as its images, got \[1\]",
    ),
    "an unknown size": (
        {"images": [EYE | {"size": "big"}]},
        r"'images \(eye\)\.size' must be any or exact, got \"big\"",
    ),
    "exact of any size": (
        {"eye": (1, 3, "h", "w"), "images": [{"camera": "front", "input": "eye", "size": "exact"}]},
        r"'images \(eye\)\.height' must be a number",
    ),
    "a constant of nothing": ({"constants": {"planet": 3}}, "'constants.planet' must be an input of the graphs"),
    "a constant of what is fed": (
        {"constants": {"body": 3}},
        "'constants.body' must be an input that nothing else feeds, got 3",
    ),
    "a constant text": (
        {"domain": (1,), "constants": {"domain": "home"}},
        "'constants.domain' must be a number, or lists of at most",
    ),
    "a constant of another shape": (
        {"domain": (2,), "constants": {"domain": [1, 2, 3]}},
        r"'constants.domain' must be a number, or lists of shape \(2,\), got \[3\]",
    ),
    "a crooked constant": (
        {"domain": (1, 2), "constants": {"domain": [[1], [2, 3]]}},
        r"'constants.domain' must be lists of shape \(1, 2\)",
    ),
    "a constant fraction": (
        {"domain": (1,), "constants": {"domain": 0.5}},
        "'constants.domain' must be numbers that int64 holds, as the graph takes, got 0.5",
    ),
    "a constant too large": (
        {"domain": (1,), "constants": {"domain": 1 << 70}},
        "'constants.domain' must be numbers that int64 holds",
    ),
    "a batch of text": (
        {"batch": {"verified": "4"}},
        "'batch.verified' must be a list of sizes from 1 to 1024, 1 among them, got \"4\"",
    ),
    "a batch without one": (
        {"batch": {"verified": [2, 4]}},
        "'batch.verified' must be a list of sizes from 1 to 1024, 1 among them",
    ),
    "a batch of a fixed graph": (
        {"batch": {"verified": [1, 2]}},
        r"'batch.verified' must be \[1\], as the graph's input 'body' of shape \(1, 2\) takes one robot",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_inputs_that_cannot_be_fed_are_refused_in_one_sentence(tmp_path: Path, what: str) -> None:
    written, message = REFUSED[what]
    with pytest.raises(ExportError, match=message):
        contract(seeing(tmp_path, **written))


def test_several_observations_need_the_rate_of_training(tmp_path: Path) -> None:
    path = seeing(tmp_path, eye=(1, 2, 3, SIDE, SIDE), observation_steps=2)
    with pytest.raises(ConfigurationError, match="'frequency_hz' must be the rate of training, got none"):
        opened(path)
