# SPDX-License-Identifier: Apache-2.0
"""Every layout loads and answers on real graphs; what is missing or damaged is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import ExportDir
from graphs import FLOAT, Graph
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
    probe,
)  # fmt: skip

from reflex_core.errors import ExportError
from reflex_core.export import open_export
from reflex_core.policy.policy import Policy, load_policy
from reflex_core.values import Floats, Frame, Observation, Pixels

QUICK = [
    "mono_smolvla", "mono_pi0", "mono_pi05", "decomposed", "decomposed_per_step", "decomposed_state",
    "decomposed_state_per_step", "expert_stack", "vlm_stack", "gr00t", "mono_pi0_7",
]  # fmt: skip


def policy_of(path: Path) -> Policy:
    return load_policy(open_export(path), None, "cpu", 1)


def picture(colour: tuple[int, int, int] = (255, 51, 102), height: int = 32, width: int = 32) -> Frame:
    pixels: Pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour
    return Frame(pixels, "rgb8", height, width)


def observation(
    policy: Policy, instruction: str = "reach the red cube", colour: int = 200, shift: float = 0.0
) -> Observation:
    """Something that every policy takes; the arguments change what it sees, hears and feels."""
    plain = policy.canary()
    frames = {name: picture((colour, 20, 20)) for name in plain.frames}
    state = None if plain.state is None else (plain.state + np.float32(shift)).astype(np.float32)
    return Observation(frames, state, instruction)


@pytest.mark.parametrize("name", QUICK)
def test_every_layout_answers_with_a_finite_float32_chunk_row_by_row(
    export_dir: ExportDir, name: str
) -> None:
    policy = policy_of(export_dir(name))
    actions = policy.predict(observation(policy), seed=1).actions
    assert actions.shape == (policy.fit.horizon, len(policy.fit.action_names))
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
    reads = name not in ("mono_pi05", "decomposed", "decomposed_per_step", "expert_stack", "gr00t")
    assert (policy.contract.state is not None) == reads
    if not reads:
        return
    usual = policy.predict(observation(policy), 5).actions
    assert not np.array_equal(policy.predict(observation(policy, shift=0.4), 5).actions, usual)


@pytest.mark.parametrize("kind", ["decomposed", "decomposed_state"])
def test_a_baked_loop_and_single_steps_of_the_same_weights_agree(export_dir: ExportDir, kind: str) -> None:
    baked, stepped = policy_of(export_dir(kind)), policy_of(export_dir(f"{kind}_per_step"))
    assert (baked.contract.baked, stepped.contract.baked) == (True, False)
    seen = observation(baked)
    first, second = baked.predict(seen, 5), stepped.predict(seen, 5)
    np.testing.assert_allclose(first.actions, second.actions, atol=1e-5)
    assert (first.denoise_steps, second.denoise_steps) == (10, 10)


def test_the_configured_number_of_steps_is_taken(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("gr00t"))
    assert policy.predict(observation(policy), 1).denoise_steps == 4


@pytest.mark.parametrize("name", ["expert_stack", "gr00t"])
def test_a_policy_that_sees_and_hears_nothing_says_so(export_dir: ExportDir, name: str) -> None:
    assert policy_of(export_dir(name)).notes == ("it takes no image and no instruction",)


# every odd export must show the same picture, words and state in its actions
ODD: dict[str, dict[str, Any]] = {
    "two graphs with their own names": {},
    "one graph and single steps": {"split": False},
    "one graph with the loop baked in": {"split": False, "baked": True},
    "two graphs with the loop baked in": {"baked": True},
    "channels last": {"layout": "nhwc"},
    "any image size": {"size": ("h", "w")},
    "32-bit tokens": {"token": INT32},
    "half precision": {"kind": FLOAT16},
    "half precision, loop baked in": {"kind": FLOAT16, "baked": True},
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
    assert policy.fit.state_dim == 2
    actions = shown(policy, state=np.array([0.5, 3.5], np.float32), instruction="reach")
    # "State", ":", "0", "3", ";", "reach"; the number n is token 12 + n
    np.testing.assert_allclose(actions[0, TOKEN_SUM], 8 + 9 + 12 + 15 + 11 + 2, atol=1e-4)
    np.testing.assert_allclose(actions[0, TOKEN_COUNT], 6, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mono_pi0", "model.onnx"),
        ("decomposed", "expert_denoise.onnx"),
        ("decomposed", "vlm_prefix.onnx"),
        ("gr00t", "model.onnx"),
    ],
)
def test_a_missing_graph_is_named(export_copy: ExportDir, name: str, file: str) -> None:
    path = export_copy(name)
    (path / file).unlink()
    with pytest.raises(ExportError, match=rf"{path}/{file}: missing: the export needs it as its") as caught:
        policy_of(path)
    assert caught.value.slug == "export-file-missing"


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_graph_is_named(export_copy: ExportDir, keep: float) -> None:
    path = export_copy("mono_pi0")
    content = (path / "model.onnx").read_bytes()
    (path / "model.onnx").write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ExportError, match=rf"{path}/model\.onnx: onnxruntime cannot load it: ") as caught:
        policy_of(path)
    assert "\n" not in str(caught.value)


def test_missing_external_weights_are_named(export_copy: ExportDir) -> None:
    path = export_copy("mono_pi0")
    model = onnx.load(path / "model.onnx")
    onnx.save(
        model, path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=128
    )
    assert policy_of(path).contract.baked
    (path / "model.onnx.data").unlink()
    with pytest.raises(
        ExportError, match=rf"{path}/model\.onnx: onnxruntime cannot load it: .*model\.onnx\.data"
    ):
        policy_of(path)


@pytest.mark.parametrize(
    "file", ["vision_encoder.onnx", "text_embedder.onnx", "decoder_prefill.onnx", "state_proj_weight.npy"]
)
def test_every_piece_of_the_vlm_stack_is_needed(export_copy: ExportDir, file: str) -> None:
    path = export_copy("vlm_stack")
    (path / file).unlink()
    with pytest.raises(ExportError, match=rf"{path}/{file}: missing: the export needs it as"):
        policy_of(path)


def test_a_state_projection_without_a_bias_is_told_to_people(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    (path / "state_proj_bias.npy").unlink()
    assert policy_of(path).notes == ("it brings no state_proj_bias.npy, so its state projection has no bias",)


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("state_proj_weight.npy", np.zeros((12, 31))),
        ("state_proj_weight.npy", np.zeros(12)),
        ("state_proj_bias.npy", np.zeros(5)),
    ],
)
def test_a_state_projection_of_the_wrong_shape_is_refused(
    export_copy: ExportDir, file: str, array: Floats
) -> None:
    path = export_copy("vlm_stack")
    np.save(path / file, array.astype(np.float32))
    with pytest.raises(ExportError, match=rf"{path}/{file}: must be \(.*got shape"):
        policy_of(path)


def test_a_state_projection_with_nan_is_refused(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    np.save(path / "state_proj_weight.npy", np.full((12, 32), np.nan, np.float32))
    with pytest.raises(ExportError, match=rf"{path}/state_proj_weight\.npy: holds NaN or Inf"):
        policy_of(path)


def test_a_pickled_state_projection_is_not_opened(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    np.save(path / "state_proj_weight.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ExportError, match="not readable as a numpy array"):
        policy_of(path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    config = json.loads((path / "reflex_config.json").read_text())
    change(config)
    (path / "reflex_config.json").write_text(json.dumps(config))
    return path


def test_the_state_of_the_vlm_stack_may_be_named(export_copy: ExportDir) -> None:
    names = [f"joint_{number}" for number in range(7)]
    path = rewritten(export_copy("vlm_stack"), lambda config: config.update(state={"names": names}))
    assert policy_of(path).fit.state_names == tuple(names)


def test_a_vision_graph_with_an_input_of_its_own_name_must_be_described(export_copy: ExportDir) -> None:
    path = export_copy("vlm_stack")
    vision = Graph()
    image = vision.input("frames", FLOAT, [1, 3, 32, 32])
    colour = vision.shaped(vision.mean(image, 2, 3), 1, 1, 3)
    vision.output(vision.op("MatMul", colour, vision.weights(3, 12)), "image_embeds", FLOAT, [1, 1, 12])
    vision.save(path / "vision_encoder.onnx")
    with pytest.raises(
        ExportError, match=r"reflex_config\.json: 'images' must describe the vision graph's input 'frames'"
    ):
        policy_of(path)
    images = [{"camera": "camera", "input": "frames"}]
    policy = policy_of(rewritten(path, lambda config: config.update(images=images)))
    assert np.isfinite(policy.predict(observation(policy), 1).actions).all()


def test_a_graph_input_that_nobody_describes_is_named(export_copy: ExportDir) -> None:
    path = export_copy("mono_pi0")
    model = onnx.load(path / "model.onnx")
    model.graph.input.append(onnx.helper.make_tensor_value_info("gripper_force", FLOAT, [1, 3]))
    onnx.save(model, path / "model.onnx")
    with pytest.raises(
        ExportError, match=rf"{path}/model\.onnx: nothing provides its input 'gripper_force'"
    ) as caught:
        policy_of(path)
    assert caught.value.slug == "undescribed-input"


def test_an_output_of_another_shape_is_refused_at_load(export_copy: ExportDir) -> None:
    path = export_copy("mono_pi0")
    graph = Graph()
    noise = graph.input("noise", FLOAT, [1, 10, 32])
    bounds = [graph.constant([value], np.int64) for value in (0, 31, 2)]
    graph.output(graph.op("Slice", noise, *bounds), "actions", FLOAT, [1, 10, 31])
    graph.save(path / "model.onnx")
    with pytest.raises(
        ExportError,
        match=rf"{path}/model\.onnx: its output 'actions' has shape \(1, 10, 31\), expected \(1, 10, 32\)",
    ):
        policy_of(path)


def test_a_wrong_chunk_size_is_refused(export_copy: ExportDir) -> None:
    path = rewritten(export_copy("mono_pi0"), lambda config: config.update(chunk_size=50))
    with pytest.raises(
        ExportError,
        match=rf"{path}/reflex_config\.json: 'chunk_size' must be 10, as the graph's input 'noise'",
    ):
        policy_of(path)
