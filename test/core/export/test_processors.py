# SPDX-License-Identifier: Apache-2.0
"""LeRobot's processor JSON: every step is applied, changes nothing, or is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_files import (
    ABSOLUTE,
    BATCH,
    DEVICE,
    HIGH,
    LOW,
    MEAN,
    NEWLINE,
    NOT_ABSOLUTE,
    NOT_RELATIVE,
    PREPARE,
    Q01,
    Q10,
    Q90,
    Q99,
    RENAME,
    STD,
    TOKENIZER,
    Step,
    folder,
    normalizer,
    relative,
    statistics,
    unnormalizer,
)

from reflex_core.errors import ExportError
from reflex_core.export.export import Export, open_export
from reflex_core.export.processors import RelativeActions, read_processors

ACT = ([RENAME, BATCH, DEVICE, normalizer()], [unnormalizer(), DEVICE])
SMOLVLA = ([RENAME, BATCH, NEWLINE, TOKENIZER, DEVICE, normalizer()], [unnormalizer(), DEVICE])
PI0 = (
    [RENAME, BATCH, ("pi0_new_line_processor", {}), TOKENIZER, DEVICE, NOT_RELATIVE, normalizer()],
    [unnormalizer(), NOT_ABSOLUTE, DEVICE],
)
PI05 = (
    [RENAME, BATCH, NOT_RELATIVE, normalizer(), PREPARE, TOKENIZER, DEVICE],
    [unnormalizer(), NOT_ABSOLUTE, DEVICE],
)
PI05_OF_04 = ([RENAME, BATCH, normalizer(), PREPARE, TOKENIZER, DEVICE], [unnormalizer(), DEVICE])
DOMAIN: Step = ("xvla_add_domain_id", {"domain_id": 3})
XVLA = (
    [RENAME, BATCH, TOKENIZER, ("xvla_image_to_float", {}), ("xvla_imagenet_normalize", {}), DOMAIN, DEVICE, normalizer()],
    [unnormalizer(), DEVICE],
)  # fmt: skip
PHYSICAL = np.array([2.5, 7.0])


def opened(path: Path, before: Sequence[Step], after: Sequence[Step], **config: Any) -> Export:
    return open_export(folder(path, before, after, config))


def refused(path: Path, before: Sequence[Step], after: Sequence[Step], **config: Any) -> str:
    with pytest.raises(ExportError) as caught:
        opened(path, before, after, **config)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith(str(path))
    return sentence


def test_an_export_without_the_files_has_no_processors(tmp_path: Path) -> None:
    assert read_processors(tmp_path) is None


FORMULAS = {
    "MEAN_STD": (np.subtract(PHYSICAL, MEAN) / np.array(STD), np.add(MEAN, np.array(STD) * [0.5, -1])),
    "MIN_MAX": (
        2 * (PHYSICAL - LOW) / np.subtract(HIGH, LOW) - 1,
        (np.array([0.5, -1]) + 1) / 2 * np.subtract(HIGH, LOW) + LOW,
    ),
    "QUANTILES": (
        2 * (PHYSICAL - Q01) / np.subtract(Q99, Q01) - 1,
        (np.array([0.5, -1]) + 1) / 2 * np.subtract(Q99, Q01) + Q01,
    ),
    "QUANTILE10": (
        2 * (PHYSICAL - Q10) / np.subtract(Q90, Q10) - 1,
        (np.array([0.5, -1]) + 1) / 2 * np.subtract(Q90, Q10) + Q10,
    ),
}


@pytest.mark.parametrize("mode", list(FORMULAS))
def test_every_mode_has_lerobots_formula_and_is_not_clipped(tmp_path: Path, mode: str) -> None:
    export = opened(tmp_path, [normalizer(state=mode)], [unnormalizer(action=mode)])
    assert export.state_statistics is not None
    assert export.action_statistics is not None
    forward, back = FORMULAS[mode]
    np.testing.assert_allclose(export.state_statistics.normalise(PHYSICAL), forward, rtol=1e-6)
    np.testing.assert_allclose(export.action_statistics.denormalise(np.array([0.5, -1.0])), back, rtol=1e-6)


def test_state_and_action_are_normalised_each_by_its_own_mode(tmp_path: Path) -> None:
    export = opened(tmp_path, [normalizer(state="MIN_MAX")], [unnormalizer(action="MEAN_STD")])
    assert (export.normalization.state_mode, export.normalization.action_mode) == ("min_max", "mean_std")
    assert export.state_statistics is not None
    np.testing.assert_allclose(export.state_statistics.normalise(np.array(LOW)), [-1, -1])
    assert export.action_statistics is not None
    np.testing.assert_allclose(export.action_statistics.denormalise(np.zeros(2)), MEAN)


def test_identity_is_said_and_leaves_numbers_as_they_are(tmp_path: Path) -> None:
    export = opened(tmp_path, [normalizer(state="IDENTITY")], [unnormalizer(action="IDENTITY")])
    assert (export.state_statistics, export.action_statistics) == (None, None)
    assert export.says_how_it_normalises


def test_the_eps_of_the_step_counts_forward_and_not_back(tmp_path: Path) -> None:
    export = opened(tmp_path, [normalizer(eps=0.5)], [unnormalizer(eps=0.5)])
    assert export.state_statistics is not None
    np.testing.assert_allclose(export.state_statistics.normalise(np.array([2.0, -2.0])), [1.0, 0.0])
    assert export.action_statistics is not None
    np.testing.assert_allclose(export.action_statistics.denormalise(np.ones(2)), np.add(MEAN, STD))


def test_a_state_that_the_step_does_not_list_goes_as_it_is(tmp_path: Path) -> None:
    step = normalizer(features={"observation.images.top": {"type": "VISUAL", "shape": [3, 8, 8]}})
    assert opened(tmp_path, [step], [unnormalizer()]).state_statistics is None


def test_observations_that_the_step_leaves_out_go_as_they_are(tmp_path: Path) -> None:
    step = normalizer(normalize_observation_keys=["observation.images.top"])
    assert opened(tmp_path, [step], [unnormalizer()]).state_statistics is None


def test_a_state_without_statistics_is_reported(tmp_path: Path) -> None:
    path = folder(tmp_path, [normalizer()], [unnormalizer()])
    statistics(path / "before.safetensors", action={"mean": MEAN, "std": STD})
    export = open_export(path)
    assert export.state_statistics is None
    assert "has no observation.state: the state goes in as it is" in export.normalization.notes[0]


def test_actions_without_statistics_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, [normalizer()], [unnormalizer()])
    statistics(path / "after.safetensors", observation__state={"mean": MEAN, "std": STD})
    with pytest.raises(
        ExportError, match=r"policy_postprocessor\.json: un-normalises actions by mean_std, but"
    ):
        open_export(path)


def test_a_dataset_from_before_quantiles_is_refused_with_what_it_has(tmp_path: Path) -> None:
    path = folder(tmp_path, [normalizer(state="QUANTILES")], [unnormalizer()])
    statistics(path / "before.safetensors", observation__state={"mean": MEAN, "std": STD})
    with pytest.raises(ExportError, match=r"needs q01 and q99; the file has mean, std"):
        open_export(path)


@pytest.mark.parametrize("steps", [ACT, SMOLVLA, PI0, PI05, PI05_OF_04, XVLA])
def test_the_pipelines_of_the_families_are_read(tmp_path: Path, steps: tuple[list[Step], list[Step]]) -> None:
    export = opened(tmp_path, *steps)
    assert export.state_statistics is not None
    assert export.processors is not None
    assert export.processors.relative is None


@pytest.mark.parametrize("name", ["relative_actions_processor", "delta_actions_processor"])
def test_relative_actions_have_two_names(tmp_path: Path, name: str) -> None:
    step = relative(name, exclude_joints=["gripper"], action_names=["a.pos", "left_Gripper.pos"])
    export = opened(tmp_path, [step, normalizer()], [unnormalizer(), ABSOLUTE])
    assert export.processors is not None
    assert export.processors.relative is not None
    assert export.processors.relative.mask(2).tolist() == [True, False]


@pytest.mark.parametrize(
    ("exclude", "names", "mask"),
    [
        ((), ("a", "gripper"), [True, True, True]),
        (("gripper",), (), [True, True, True]),
        (("gripper",), ("arm", "left_gripper.pos", "other"), [True, False, True]),
        (("GRIPPER",), ("arm", "Gripper"), [True, False, True]),
        (("arm", "grip"), ("arm_1", "gripper", "base"), [False, False, True]),
        (("",), ("arm",), [True, True, True]),
    ],
)
def test_joints_are_left_out_by_what_their_names_contain(
    exclude: tuple[str, ...], names: tuple[str, ...], mask: list[bool]
) -> None:
    assert RelativeActions(exclude, names).mask(3).tolist() == mask


def test_the_number_of_the_robot_is_read_from_xvlas_pipeline(tmp_path: Path) -> None:
    with_number, without = opened(tmp_path / "a", *XVLA), opened(tmp_path / "b", *ACT)
    assert with_number.processors is not None
    assert without.processors is not None
    assert (with_number.processors.domain_id, without.processors.domain_id) == (3, None)


def test_prompts_are_as_the_steps_make_them(tmp_path: Path) -> None:
    read = {
        name: opened(tmp_path / name, *steps).processors
        for name, steps in (("smolvla", SMOLVLA), ("pi05", PI05), ("old", PI05_OF_04), ("act", ACT))
    }
    assert read["smolvla"] is not None
    assert dict(read["smolvla"].language) == {
        "template": "{instruction}", "strip": False, "replace": {}, "newline": True,
        "max_length": 8, "padding_side": "right", "truncation": True,
    }  # fmt: skip
    assert read["pi05"] is not None
    assert read["pi05"].language["template"] == "Task: {instruction}, State: {state};\nAction: "
    assert read["pi05"].language["replace"] == {"_": " ", "\n": " "}
    assert read["pi05"].state["pad"] == 0
    assert read["old"] is not None
    assert read["old"].state["pad"] == 32  # LeRobot 0.4, known by the step that it lacks
    assert read["act"] is not None
    assert not read["act"].language


BAD: dict[str, tuple[list[Step], list[Step], str]] = {
    "unknown step": ([("shuffle_processor", {}), normalizer()], [unnormalizer()], "step 'shuffle_processor' is not known"),
    "unknown step after": ([normalizer()], [unnormalizer(), ("wobble", {})], "step 'wobble' is not known"),
    "another family": (
        [("groot_n1_7_pack_inputs_v1", {})], [unnormalizer()], "step 'groot_n1_7_pack_inputs_v1' is not known"
    ),
    "a domain in words": (
        [("xvla_add_domain_id", {"domain_id": "three"})], [unnormalizer()], "'domain_id' must be a whole number from 0"
    ),
    "a domain after normalising": (
        [normalizer(), DOMAIN], [unnormalizer()], "step 'xvla_add_domain_id' stands after normalizer_processor"
    ),
    "rotations": ([normalizer()], [unnormalizer(), ("xvla_rotation_6d_to_axis_angle", {})], "'xvla_rotation_6d_to_axis"),
    "half precision": (
        [("device_processor", {"float_dtype": "bfloat16"}), normalizer()], [unnormalizer()], "float_dtype 'bfloat16'"
    ),
    "twice": ([normalizer(), normalizer()], [unnormalizer()], "step 'normalizer_processor' stands there twice"),
    "state after normalising": (
        [normalizer(), relative()], [unnormalizer(), ABSOLUTE], "step 'relative_actions_processor' stands after normalizer"
    ),
    "prompt before normalising": (
        [PREPARE, normalizer(), TOKENIZER], [unnormalizer()], "step 'normalizer_processor' stands after pi05_prepare"
    ),
    "added before un-normalising": (
        [relative(), normalizer()], [ABSOLUTE, unnormalizer()], "step 'unnormalizer_processor' stands after absolute"
    ),
    "renamed last": ([normalizer(), RENAME], [unnormalizer()], "step 'rename_observations_processor' stands after"),
    "only relative": ([relative(), normalizer()], [unnormalizer()], "policy_postprocessor.json has not"),
    "only absolute": ([normalizer()], [unnormalizer(), ABSOLUTE], "policy_preprocessor.json has not"),
    "unknown mode": ([normalizer(state="ROBUST")], [unnormalizer()], "norm_map.STATE must be one of MEAN_STD"),
    "no map": ([normalizer(norm_map=3)], [unnormalizer()], "'norm_map' must be an object"),
    "eps zero": ([normalizer(eps=0)], [unnormalizer()], "'eps' must be a number from 1e-12 to 1, got 0"),
    "eps that is as good as zero": ([normalizer()], [unnormalizer(eps=1e-320)], "'eps' must be a number from 1e-12 to 1"),
    "state of another width": (
        [normalizer(features={"observation.state": {"type": "STATE", "shape": [3]}})], [unnormalizer()],
        "observation.state must have 3 numbers, as the step's features say, got 2",
    ),
    "action of another width": (
        [normalizer()], [unnormalizer(features={"action": {"type": "ACTION", "shape": [1]}})],
        "action must have 1 numbers, as the step's features say, got 2",
    ),
    "enabled a word": ([relative(enabled="yes"), normalizer()], [unnormalizer()], "'enabled' must be true or false"),
    "names a word": ([relative(action_names="a"), normalizer()], [unnormalizer(), ABSOLUTE], "'action_names' must be"),
    "environment": (
        [normalizer(features={"observation.environment_state": {"type": "ENV", "shape": [4]}})], [unnormalizer()],
        "'observation.environment_state', which no robot measures",
    ),
    "another task": (
        [("tokenizer_processor", {"task_key": "subtask"}), normalizer()], [unnormalizer()], "'task_key' must be 'task'"
    ),
    "sideways padding": (
        [("tokenizer_processor", {"padding_side": "top"}), normalizer()], [unnormalizer()], "'padding_side' must be"
    ),
    "two names for one": (
        [("rename_observations_processor", {"rename_map": {"a": "c", "b": "c"}}), normalizer()], [unnormalizer()],
        "'rename_map' must map names to different names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_not_done_here_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    before, after, says = BAD[name]
    assert says in refused(tmp_path, before, after)


def test_a_step_that_is_disabled_passes_whatever_it_is(tmp_path: Path) -> None:
    export = opened(tmp_path, [("shuffle_processor", {"enabled": False}), normalizer()], [unnormalizer()])
    assert export.state_statistics is not None


def test_code_of_ones_own_is_refused_by_its_class(tmp_path: Path) -> None:
    path = folder(tmp_path, [normalizer()], [unnormalizer()])
    file = path / "policy_preprocessor.json"
    document = json.loads(file.read_text())
    document["steps"].insert(0, {"class": "my_robot.steps.Mirror", "config": {}})
    file.write_text(json.dumps(document))
    with pytest.raises(ExportError, match=r"step 'my_robot\.steps\.Mirror' is a class of third-party code"):
        open_export(path)


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        (
            "policy_postprocessor.json",
            r"policy_postprocessor\.json: missing: policy_preprocessor\.json is there",
        ),
        (
            "policy_preprocessor.json",
            r"policy_preprocessor\.json: missing: policy_postprocessor\.json is there",
        ),
        ("before.safetensors", r"before\.safetensors: not there: step 'normalizer_processor'"),
        ("after.safetensors", r"after\.safetensors: not there: step 'unnormalizer_processor'"),
    ],
)
def test_half_of_the_files_is_refused(tmp_path: Path, gone: str, says: str) -> None:
    path = folder(tmp_path, [normalizer()], [unnormalizer()])
    (path / gone).unlink()
    with pytest.raises(ExportError, match=says):
        open_export(path)


@pytest.mark.parametrize("name", ["../before.safetensors", "/etc/passwd", "", ".hidden", 3])
def test_a_state_file_elsewhere_is_refused(tmp_path: Path, name: Any) -> None:
    path = folder(tmp_path / "export", [normalizer()], [unnormalizer()])
    file = path / "policy_preprocessor.json"
    document = json.loads(file.read_text())
    document["steps"][0]["state_file"] = name
    file.write_text(json.dumps(document))
    with pytest.raises(ExportError, match="'state_file' must be a file beside it"):
        open_export(path)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"steps": 3}', '{"steps": ["a"]}', '{"steps": [], "steps": []}', "{}"]
)
def test_a_pipeline_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = folder(tmp_path, [normalizer()], [unnormalizer()])
    (path / "policy_preprocessor.json").write_text(text)
    with pytest.raises(ExportError, match=r"policy_preprocessor\.json: ") as caught:
        open_export(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"mode": "min_max"}, "the state is normalised by min_max here and by mean_std in"),
        ({"action": {"mode": "identity"}}, "the action is normalised by identity here and by mean_std in"),
        (
            {"state": {"mean": [0.0, 0.0], "std": [1.0, 1.0]}},
            "normalization.state has other numbers than the state file",
        ),
    ],
)
def test_a_configuration_that_says_something_else_is_refused(tmp_path: Path, block: Any, says: str) -> None:
    assert says in refused(tmp_path, [normalizer()], [unnormalizer()], normalization=block)


def test_a_configuration_that_says_the_same_is_fine(tmp_path: Path) -> None:
    block = {"state": {"mode": "mean_std", "mean": MEAN, "std": STD}, "action": {"mode": "mean_std"}}
    assert (
        opened(tmp_path, [normalizer()], [unnormalizer()], normalization=block).state_statistics is not None
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"norm_map": {"STAT": "MEAN_STD", "ACTION": "MEAN_STD"}}, "norm_map must be one of STATE, VISUAL, .*, got 'STAT'"),
        ({"norm_map": {"state": "MEAN_STD"}}, "norm_map must be one of STATE, VISUAL, .*, got 'state'"),
        ({"features": {"observation.state": {"type": "STTE", "shape": [2]}}}, r"features.observation.state.type must .*, got 'STTE'"),
        ({"features": {"observation.state": {"shape": [2]}}}, r"features.observation.state.type must .*, got None"),
        ({"features": {"observation.state": {"type": ["STATE"], "shape": [2]}}}, "got \\['STATE'\\]"),
        ({"clip": True}, "'clip' is not known here"),
        ({"stats": {"observation.state": {"mean": [0, 0]}}}, "'stats' is not known here"),
    ],
)  # fmt: skip
def test_what_would_leave_numbers_as_they_are_in_silence_is_refused(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(ExportError, match=f"step 'normalizer_processor': .*{says}"):
        opened(tmp_path, [normalizer(**config)], [unnormalizer()])


def test_padded_shapes_stand_beside_the_robots_own_statistics(tmp_path: Path) -> None:
    features = {"observation.state": {"type": "STATE", "shape": [32]}}
    found = opened(tmp_path, [normalizer(features=features)], [unnormalizer()]).state_statistics
    assert found is not None
    assert found.dim == 2


def test_keys_without_a_value_of_later_versions_pass(tmp_path: Path) -> None:
    assert opened(
        tmp_path, [normalizer(clip=None, normalize_observation_keys=None)], [unnormalizer()]
    ).processors
