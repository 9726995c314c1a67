# SPDX-License-Identifier: Apache-2.0
"""Every layout loads and answers on real graphs, and exports that describe themselves are served as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import BOOL, FLOAT, INT64
from layout_policies import observation, picture, policy_of
from odd_exports import (
    BLUE,
    FLOAT16,
    GREEN,
    INT32,
    RED,
    STATE,
    TOKEN_COUNT,
    TOKEN_SUM,
    UINT8,
    clock,
    probe,
    retyped,
)  # fmt: skip
from servers import ExportDir

from reflex_core.errors import ExportError
from reflex_core.policy.base import Policy
from reflex_core.policy.sampler import Sampling
from reflex_core.values import Floats, Frame, Observation

QUICK = [
    "mono_smolvla", "mono_pi0", "mono_pi05", "decomposed", "decomposed_per_step", "decomposed_state",
    "decomposed_state_per_step", "expert_stack", "vlm_stack", "gr00t", "mono_pi0_7",
]  # fmt: skip


def clocked(path: Path, kind: int, **config: Any) -> Policy:
    return policy_of(clock(path, kind, **config))


def fed_times(policy: Policy) -> list[float]:
    """The times that the network of a clock was fed, in order."""
    fed: list[float] = []
    shown = Observation({}, None, "")
    policy.predict(shown, 1, Sampling(watch=lambda _, velocity: fed.append(float(velocity[0, 0, 1]))))
    return fed


@pytest.mark.parametrize("name", QUICK)
def test_every_layout_answers_with_a_finite_float32_chunk_row_by_row(
    export_dir: ExportDir, name: str
) -> None:
    policy = policy_of(export_dir(name))
    actions = policy.predict(observation(policy), seed=1).actions
    assert actions.shape == (policy.binding.horizon, len(policy.binding.action_names))
    assert actions.dtype == np.float32
    assert actions.flags.c_contiguous
    assert np.isfinite(actions).all()
    assert actions.std() > 0


@pytest.mark.parametrize("name", QUICK)
def test_the_same_observation_and_seed_give_the_same_bytes(export_dir: ExportDir, name: str) -> None:
    first, second = policy_of(export_dir(name)), policy_of(export_dir(name))
    seen = observation(first)
    answers = [policy.predict(seen, seed=5).actions.tobytes() for policy in (first, first, second)]
    assert len(set(answers)) == 1


@pytest.mark.parametrize("name", QUICK)
def test_another_seed_gives_another_chunk(export_dir: ExportDir, name: str) -> None:
    policy = policy_of(export_dir(name))
    seen = observation(policy)
    assert not np.array_equal(policy.predict(seen, 5).actions, policy.predict(seen, 6).actions)


@pytest.mark.parametrize("name", [name for name in QUICK if name not in ("expert_stack", "gr00t")])
def test_image_and_words_change_the_actions(export_dir: ExportDir, name: str) -> None:
    policy = policy_of(export_dir(name))
    usual = policy.predict(observation(policy), 5).actions
    assert not np.array_equal(policy.predict(observation(policy, colour=30), 5).actions, usual)
    assert not np.array_equal(policy.predict(observation(policy, "push the blue ball"), 5).actions, usual)


@pytest.mark.parametrize("name", QUICK)
def test_the_state_changes_the_actions_exactly_where_it_is_read(export_dir: ExportDir, name: str) -> None:
    policy = policy_of(export_dir(name))
    reads = name not in ("decomposed", "decomposed_per_step", "expert_stack", "gr00t")
    assert (policy.contract.state is not None) == reads
    if (
        not reads or name == "mono_pi05"
    ):  # pi0.5 writes it into the prompt, and this tokenizer knows no numbers
        return
    usual = policy.predict(observation(policy), 5).actions
    assert not np.array_equal(policy.predict(observation(policy, shift=0.4), 5).actions, usual)


@pytest.mark.parametrize("kind", ["decomposed", "decomposed_state"])
def test_a_fused_loop_and_single_steps_of_the_same_weights_agree(export_dir: ExportDir, kind: str) -> None:
    fused, stepped = policy_of(export_dir(kind)), policy_of(export_dir(f"{kind}_per_step"))
    assert (fused.contract.fused, stepped.contract.fused) == (True, False)
    seen = observation(fused)
    first, second = fused.predict(seen, 5), stepped.predict(seen, 5)
    np.testing.assert_allclose(first.actions, second.actions, atol=1e-5)
    assert (first.denoise_steps, second.denoise_steps) == (10, 10)


def test_the_configured_number_of_steps_is_taken(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("gr00t"))
    assert policy.predict(observation(policy), 1).denoise_steps == 4


@pytest.mark.parametrize("name", ["expert_stack", "gr00t"])
def test_a_policy_without_images_and_language_says_so(export_dir: ExportDir, name: str) -> None:
    assert policy_of(export_dir(name)).notes == ("it takes no image and no instruction",)


def test_an_export_that_describes_itself_twice_is_served_by_the_first_and_says_so(
    export_copy: ExportDir,
) -> None:
    path = export_copy("gr00t")
    (path / "tether_config.json").write_text("{}")
    assert any("tether_config.json: the first is read" in note for note in policy_of(path).notes)


# every odd export must show the same picture, words and state in its actions
ODD: dict[str, dict[str, Any]] = {
    "two graphs with their own names": {},
    "one graph and single steps": {"split": False},
    "one graph with the loop fused in": {"split": False, "fused": True},
    "two graphs with the loop fused in": {"fused": True},
    "channels last": {"layout": "nhwc"},
    "any image size": {"size": ("h", "w")},
    "32-bit tokens": {"token": INT32},
    "half precision": {"kind": FLOAT16},
    "half precision, loop fused in": {"kind": FLOAT16, "fused": True},
    "time from 0 to 1": {"time": (0.0, 1.0, 1)},
    "velocity the other way": {"time": (1.0, 0.0, -1)},
    "time from 0 to 1, velocity the other way": {"time": (0.0, 1.0, -1)},
    "time in thousandths": {"time": (1000.0, 0.0, 1)},
    "six layers of memory": {"layers": 6},
    "a single step": {"steps": 1},
    "fifty steps": {"steps": 50},
}


def shown(policy: Policy, **changes: Any) -> Floats:
    seen = Observation({"front": picture()}, np.array([0.25, -0.5], np.float32), "reach the red cube")
    seen = Observation(
        **({"frames": seen.frames, "state": seen.state, "instruction": seen.instruction} | changes)
    )
    return policy.predict(seen, seed=3).actions


@pytest.mark.parametrize("name", list(ODD))
def test_an_export_that_describes_itself_needs_no_code(tmp_path: Path, name: str) -> None:
    actions = shown(policy_of(probe(tmp_path, **ODD[name])))
    assert actions.shape == (12, 7)
    tolerance = 0.01 if "half" in name else 1e-4
    np.testing.assert_allclose(
        actions[:, [RED, GREEN, BLUE]], np.tile([1.0, 0.2, 0.4], (12, 1)), atol=tolerance
    )
    np.testing.assert_allclose(actions[:, TOKEN_SUM], 2 + 3 + 4 + 6, atol=tolerance)
    np.testing.assert_allclose(actions[:, TOKEN_COUNT], 4, atol=tolerance)
    np.testing.assert_allclose(actions[:, STATE:], np.tile([0.25, -0.5], (12, 1)), atol=tolerance)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"range": [-1.0, 1.0]}, [1.0, -0.6, -0.2]),
        ({"range": [0.0, 255.0]}, [255, 51, 102]),
        ({"mean": [0.5, 0.1, 0.0], "std": [0.5, 0.1, 0.2]}, [1.0, 1.0, 2.0]),
    ],
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pixels_are_scaled_as_described(
    tmp_path: Path, image: dict[str, Any], expected: list[float], layout: str
) -> None:
    images = [{"camera": "front", "input": "eye", "layout": layout} | image]
    actions = shown(policy_of(probe(tmp_path, layout=layout, config={"images": images})))
    np.testing.assert_allclose(actions[0, :3], expected, rtol=1e-5, atol=1e-5)


def test_a_graph_that_takes_bytes_sees_the_colours(tmp_path: Path) -> None:
    images = [{"camera": "front", "input": "eye", "range": [0, 255]}]
    actions = shown(policy_of(probe(tmp_path, pixel=UINT8, config={"images": images})))
    np.testing.assert_allclose(actions[0, :3], [255, 51, 102], atol=1e-3)


@pytest.mark.parametrize(
    ("pixel", "image"),
    [
        (INT32, {}),  # [-1, 1] would be zeros and ones
        (UINT8, {"range": [0.0, 1.0]}),
        (UINT8, {"range": [-128, 127]}),  # does not fit
        (UINT8, {"range": [0, 510]}),
        (UINT8, {"range": [0, 255], "fill": -1}),
        (INT32, {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}),
        (INT64, {"range": [0, 100]}),
        (BOOL, {"range": [0, 255]}),
    ],
)
def test_a_graph_of_whole_numbers_that_would_see_no_picture_is_refused(
    tmp_path: Path, pixel: int, image: dict[str, Any]
) -> None:
    images = [{"camera": "front", "input": "eye"} | image]
    with pytest.raises(ExportError) as caught:
        policy_of(probe(tmp_path, pixel=pixel, config={"images": images}))
    assert "'images (eye).range' must be [0, 255], as the graph takes whole numbers" in str(caught.value)
    assert caught.value.args[0].count("\n") == 0


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (0, 1020), (255, 0)])
def test_a_graph_of_whole_numbers_gets_the_pixels_rounded_not_cut(
    tmp_path: Path, low: float, high: float
) -> None:
    images = [{"camera": "front", "input": "eye", "range": [low, high], "resize": "stretch"}]
    policy = policy_of(probe(tmp_path, pixel=INT32, config={"images": images}))
    half = np.repeat(np.array([[10, 11]], np.uint8), 3).reshape(1, 2, 3).repeat(2, axis=0)
    frames = {"front": Frame(half, "rgb8", 2, 2)}
    real = policy_of(probe(tmp_path / "real", config={"images": images}))
    whole, exact = shown(policy, frames=frames)[0, RED], shown(real, frames=frames)[0, RED]
    assert exact == pytest.approx(low + (high - low) * 10.5 / 255, abs=1e-3)
    assert whole == pytest.approx(exact, abs=0.07 if abs(high - low) == 255 else 0.5)


@pytest.mark.parametrize(("flow", "times"), [
    ({"start": 0.0, "end": 1.0, "time_scale": 1000}, [0, 250, 500, 750]),
    ({"start": 1.0, "end": 0.0, "time_scale": 1000}, [1000, 750, 500, 250]),
    ({"start": 1.0, "end": 0.0, "time_scale": 10}, [10, 7, 5, 2]),
    ({"start": 1000.0, "end": 0.0}, [1000, 750, 500, 250]),
])  # fmt: skip
@pytest.mark.parametrize("kind", [INT64, INT32])
def test_whole_number_times_are_scaled_as_described(
    tmp_path: Path, flow: dict[str, float], times: list[int], kind: int
) -> None:
    assert fed_times(clocked(tmp_path, kind, flow=flow)) == times


def test_groot_runs_from_0_to_1_in_the_buckets_it_was_trained_on(tmp_path: Path) -> None:
    policy = clocked(tmp_path, INT64, model_type="gr00t", flow={})
    assert fed_times(policy) == [0, 250, 500, 750]
    flow = policy.contract.flow
    assert (flow.start, flow.end, flow.sign) == (0.0, 1.0, 1)
    # the network's velocity is added: from the noise, one unit of time at a velocity of 100
    np.testing.assert_allclose(policy.predict(Observation({}, None, ""), 7).actions[:, 0].mean(), 100, atol=1)


@pytest.mark.parametrize("name", ["gr00t", "groot", "GR00T-N1.7", "nvidia/GR00T-N1.5-3B", "gr00t_student"])
def test_groot_by_any_of_its_names_runs_from_0_to_1(tmp_path: Path, name: str) -> None:
    assert fed_times(clocked(tmp_path, FLOAT, model_type=name, flow={})) == [0, 0.25, 0.5, 0.75]


def test_a_groot_step_that_is_no_number_at_time_0_runs_from_1_to_0_and_says_so(tmp_path: Path) -> None:
    """Tools before this one exported its head for the loop of the other families."""
    policy = clocked(tmp_path, FLOAT, divides=True, model_type="gr00t", flow={})
    assert (policy.contract.flow.start, policy.contract.flow.end) == (1.0, 0.0)
    assert any("gives no number at time 0" in note for note in policy.notes)
    assert np.isfinite(policy.predict(Observation({}, None, ""), 7).actions).all()


def test_what_an_export_says_of_its_time_is_never_turned_round(tmp_path: Path) -> None:
    policy = clocked(tmp_path, FLOAT, divides=True, model_type="gr00t", flow={"start": 0.0, "end": 1.0})
    assert (policy.contract.flow.start, policy.contract.flow.end) == (0.0, 1.0)


@pytest.mark.parametrize(("kind", "flow"), [
    (INT64, {}),
    (INT32, {"start": 0.0, "end": 1.0}),
    (INT64, {"start": 0.0, "end": 1.0, "time_scale": 2}),
    (BOOL, {"time_scale": 1000}),
])  # fmt: skip
def test_whole_number_times_that_would_all_be_alike_are_refused(
    tmp_path: Path, kind: int, flow: dict[str, float]
) -> None:
    with pytest.raises(ExportError, match=r"'flow.time_scale' must be what makes 4 different whole numbers"):
        clocked(tmp_path, kind, flow=flow)


def test_the_last_of_a_hundred_buckets_is_not_lost_to_rounding(tmp_path: Path) -> None:
    flow = {"start": 1.0, "end": 0.0, "time_scale": 1000}
    policy = clocked(tmp_path, INT64, flow=flow, steps=100)
    assert fed_times(policy) == [1000 - 10 * step for step in range(100)]


@pytest.mark.parametrize("name", ["body", "sample"])
def test_a_state_or_noise_of_whole_numbers_is_refused(tmp_path: Path, name: str) -> None:
    path = probe(tmp_path, split=False)
    with pytest.raises(
        ExportError, match=rf'an input that takes floating-point numbers, got "{name}: int64"'
    ):
        policy_of(retyped(path / "hand.onnx", name, INT64))


def test_tokens_that_do_not_hold_the_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"'language.tokens' must be an input of int64 or int32, got .uint8"
    ):
        policy_of(probe(tmp_path, token=UINT8))


# what each family's training code does to a picture: resize, filter, value of black, of the bars, of what is missing
FAMILIES: dict[str, tuple[str, str, float, float, float]] = {
    "smolvla": ("letterbox_top_left", "bilinear", -1.0, -1.0, -1.0),
    "lerobot/smolvla-base": ("letterbox_top_left", "bilinear", -1.0, -1.0, -1.0),
    "pi0.5-libero": ("letterbox", "bilinear", -1.0, -1.0, -1.0),
    "X-VLA": ("letterbox_top_left", "bilinear", -0.485 / 0.229, 0.0, 0.0),
    "smolvla_decomposed": ("letterbox_top_left", "bilinear", -1.0, -1.0, -1.0),
    "pi0": ("letterbox", "bilinear", -1.0, -1.0, -1.0),
    "pi05": ("letterbox", "bilinear", -1.0, -1.0, -1.0),
    "xvla": ("letterbox_top_left", "bilinear", -0.485 / 0.229, 0.0, 0.0),
    "probe": ("letterbox", "bilinear", -1.0, -1.0, -1.0),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_slot_that_says_nothing_gets_what_its_family_does_to_pictures(tmp_path: Path, family: str) -> None:
    images = [{"camera": "front", "input": "eye"}]
    slot = policy_of(probe(tmp_path, config={"images": images, "model_type": family})).contract.images[0]
    resize, how, black, bars, missing = FAMILIES[family]
    assert (slot.resize, slot.filter) == (resize, how)
    found = (slot.offset[0], slot.bars[0], slot.fill)
    np.testing.assert_allclose(found, (black, bars, missing), atol=1e-6)


def test_bars_of_the_mean_colour_are_zeros_and_not_nearly_so(tmp_path: Path) -> None:
    """A patch of zeros stays zero in layers without bias; one of 1e-8 is blown up by the first layer norm."""
    images = [{"camera": "front", "input": "eye"}]
    slot = policy_of(probe(tmp_path, config={"images": images, "model_type": "xvla"})).contract.images[0]
    assert slot.bars.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_openpi_shrinks_pictures_with_an_antialiased_filter(tmp_path: Path, family: str) -> None:
    config = {"images": [{"camera": "front", "input": "eye"}], "model_type": family}
    for source, how in (
        ("openpi", "bilinear_antialias"),
        ("lerobot", "bilinear"),
        ({"type": "x"}, "bilinear"),
    ):
        slot = policy_of(probe(tmp_path / how, config=config | {"source": source})).contract.images[0]
        assert (slot.resize, slot.filter) == ("letterbox", how)


@pytest.mark.parametrize("own", [
    {"resize": "letterbox_center"}, {"resize": "letterbox"}, {"filter": "area"}, {"bars": -1.0}, {"bars": [0.1, 0.2, 0.3]},
    {"range": [0.0, 1.0]}, {"mean": [0.5] * 3, "std": [0.25] * 3}, {"fill": 0.5},
])  # fmt: skip
@pytest.mark.parametrize("family", ["smolvla", "xvla"])
def test_what_an_export_says_of_its_pictures_wins_over_its_family(
    tmp_path: Path, family: str, own: dict[str, Any]
) -> None:
    images = [{"camera": "front", "input": "eye"} | own]
    slot = policy_of(probe(tmp_path, config={"images": images, "model_type": family})).contract.images[0]
    if "resize" in own:
        assert slot.resize == "letterbox"
    if "filter" in own:
        assert slot.filter == "area"
    if "bars" in own:
        colour = np.broadcast_to(own["bars"], 3)
        np.testing.assert_allclose(slot.bars, colour * 255 * slot.scale + slot.offset, rtol=1e-6)
    if own == {"bars": -1.0} and family == "smolvla":
        assert slot.bars.tolist() == [-3.0] * 3  # what LeRobot 0.4 padded pi0 with
    if "range" in own:
        assert (slot.offset[0], slot.fill) == (0.0, 0.0)
    if "mean" in own:
        np.testing.assert_allclose((slot.offset[0], slot.fill), (-2.0, -2.0))
    if "fill" in own:
        assert slot.fill == 0.5


@pytest.mark.parametrize(("resize", "red"), [("letterbox", 0.5), ("stretch", 1.0)])
def test_wide_pictures_are_letterboxed_or_stretched_as_described(
    tmp_path: Path, resize: str, red: float
) -> None:
    images = [{"camera": "front", "input": "eye", "range": [0.0, 1.0], "resize": resize}]
    policy = policy_of(probe(tmp_path, config={"images": images}))
    actions = shown(policy, frames={"front": picture(height=48, width=96)})
    np.testing.assert_allclose(actions[0, RED], red, atol=1e-5)


def test_a_camera_that_may_be_missing_is_masked_and_one_that_is_there_is_seen(tmp_path: Path) -> None:
    policy = policy_of(probe(tmp_path, wrist=True))
    np.testing.assert_allclose(shown(policy)[0, 5:7], [0.0, 0.0], atol=1e-5)
    both = {"front": picture(), "wrist": picture((51, 0, 0))}
    np.testing.assert_allclose(shown(policy, frames=both)[0, 5:7], [0.2, 1.0], atol=1e-5)


def test_the_instruction_is_put_into_the_template(tmp_path: Path) -> None:
    language = {
        "tokens": "spoken", "mask": "heard", "tokenizer": "words.json", "template": "Task: {instruction};"
    }  # fmt: skip
    actions = shown(policy_of(probe(tmp_path, config={"language": language})), instruction="reach the cube")
    np.testing.assert_allclose(actions[0, TOKEN_SUM], 7 + 9 + 2 + 3 + 6 + 11, atol=1e-4)


def test_a_state_that_is_spoken_is_heard_in_steps(tmp_path: Path) -> None:
    language = {
        "tokens": "spoken", "mask": "heard", "tokenizer": "words.json", "template": "State: {state}; {instruction}"
    }  # fmt: skip
    numbers = {"state": {"mode": "min_max", "min": [0.0, 0.0], "max": [4.0, 4.0]}}
    config = {"language": language, "state": {"enters": "prompt", "bins": 4}, "normalization": numbers}
    policy = policy_of(probe(tmp_path, state=0, config=config))
    assert policy.binding.state_dim == 2
    actions = shown(policy, state=np.array([0.5, 3.5], np.float32), instruction="reach")
    # "State", ":", "0", "3", ";", "reach"; the number n is token 12 + n
    np.testing.assert_allclose(actions[0, TOKEN_SUM], 8 + 9 + 12 + 15 + 11 + 2, atol=1e-4)
    np.testing.assert_allclose(actions[0, TOKEN_COUNT], 6, atol=1e-4)


@pytest.mark.parametrize(("verified", "warned"), [(False, True), (True, False), (None, False)])
def test_an_export_that_its_exporter_did_not_verify_says_so(
    tmp_path: Path, verified: bool | None, warned: bool
) -> None:
    policy = clocked(tmp_path, FLOAT, flow={}, source={"type": "act", "verified": verified})
    assert any("did not verify it" in note for note in policy.notes) == warned
