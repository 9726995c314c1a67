# SPDX-License-Identifier: Apache-2.0
"""What a family and LeRobot's processors say becomes part of an export's description; contradictions are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import BLUE, GREEN, RED, SIDE, TOKEN, echo
from lerobot_files import (
    BATCH,
    DEVICE,
    NEWLINE,
    NOT_ABSOLUTE,
    NOT_RELATIVE,
    PREPARE,
    RENAME,
    TOKENIZER,
    Step,
    folder,
    normalizer,
    pipelines,
    statistics,
    unnormalizer,
)

from reflex_core.errors import ExportError
from reflex_core.export.export import open_export
from reflex_core.export.processed import with_processors
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation

SEVEN = {"mean": [0.0] * 7, "std": [1.0] * 7, "q01": [-1.0] * 7, "q99": [1.0] * 7}
XVLA_DOMAIN: Step = ("xvla_add_domain_id", {"domain_id": 3})
PI05 = [RENAME, BATCH, NOT_RELATIVE, normalizer(), PREPARE, TOKENIZER, DEVICE]
PI05_OF_04 = [RENAME, BATCH, normalizer(), PREPARE, TOKENIZER, DEVICE]
SMOLVLA = [RENAME, BATCH, NEWLINE, TOKENIZER, DEVICE, normalizer()]


def policy_of(path: Path) -> Policy:
    return load_policy(open_export(path), None, "cpu", 1)


def with_steps(
    path: Path, before: Sequence[Step], after: Sequence[Step] = (unnormalizer(), NOT_ABSOLUTE)
) -> Path:
    pipelines(path, before, after)
    pictures = {f"observation__images__{name}": SEVEN | COLOURS[name] for name in COLOURS}
    statistics(path / "before.safetensors", observation__state=SEVEN, **pictures)
    statistics(path / "after.safetensors", action=SEVEN)
    return path


COLOURS = {
    "front": {"mean": [0.5, 0.25, 0.0], "std": [0.5, 0.25, 1.0]},
    "wrist": {"mean": [0.1, 0.2, 0.3], "std": [0.1, 0.2, 0.4]},
}


def prompt(policy: Policy, instruction: str, state: str = "1 2") -> str:
    assert policy.contract.language is not None
    return policy.contract.language.prompt.text(instruction, state)


FAMILIES = {
    "smolvla": ({"model_type": "smolvla"}, " pick_up\nit ", " pick_up\nit \n"),
    "smolvla, with a line break": ({"model_type": "smolvla"}, "pick\n", "pick\n"),
    "pi0": ({"model_type": "pi0"}, "pick_up\nit", "pick_up\nit\n"),
    "pi0 of openpi": ({"model_type": "pi0", "source": "openpi"}, " pick_up\nit\n", "pick up it\n"),
    "pi0.5": ({"model_type": "pi05"}, " pick_up\nit\n", "Task: pick up it, State: 1 2;\nAction: "),
    "pi0.5 of openpi": (
        {"model_type": "pi0.5", "source": "openpi"},
        " a_b",
        "Task: a b, State: 1 2;\nAction: ",
    ),
    "pi0.5 without a state": ({"model_type": "pi05", "state": None}, "a", "Task: a;\nAction: "),
}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_has_the_prompt_of_its_training(tmp_path: Path, name: str) -> None:
    config, instruction, text = FAMILIES[name]
    family = str(config["model_type"]).replace(".", "")
    path = echo(tmp_path, family, felt=0 if family == "pi05" else 32)
    file = path / "reflex_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    assert prompt(policy_of(path), instruction) == text


def test_a_pi05_whose_graph_takes_the_state_leaves_it_out_of_the_prompt(tmp_path: Path) -> None:
    policy = policy_of(echo(tmp_path, "pi05", felt=32))
    assert prompt(policy, "a") == "Task: a;\nAction: "
    assert policy.contract.state is not None
    assert policy.contract.state.input == "state"


def test_a_prompt_that_is_written_has_no_line_break_of_the_family(tmp_path: Path) -> None:
    path = echo(tmp_path, "smolvla", language={"template": "Do: {instruction}"})
    assert prompt(policy_of(path), "pick") == "Do: pick"


def test_cleaning_may_be_switched_off_for_a_family_that_cleans(tmp_path: Path) -> None:
    path = echo(tmp_path, "pi05", felt=0, language={"clean": False})
    assert prompt(policy_of(path), " a_b") == "Task:  a_b, State: 1 2;\nAction: "


@pytest.mark.parametrize(("steps", "numbers"), [(PI05, 7), (PI05_OF_04, 32)])
def test_a_state_is_padded_as_in_the_version_that_wrote_the_pipeline(
    tmp_path: Path, steps: list[Step], numbers: int
) -> None:
    path = with_steps(echo(tmp_path, "custom", felt=0, image=False, normalization=None), steps)
    policy = policy_of(path)
    words = policy._state(Observation({}, np.zeros(7, np.float32), ""), {})
    assert words.split() == ["128"] * numbers
    assert prompt(policy, " pick_up\nit ") == "Task: pick up it, State: 1 2;\nAction: "


def test_the_prompt_of_the_processors_counts_whatever_the_family_is(tmp_path: Path) -> None:
    path = with_steps(echo(tmp_path, "somebodys", image=False, normalization=None), SMOLVLA)
    policy = policy_of(path)
    assert prompt(policy, "pick_up") == "pick_up\n"
    assert policy.contract.language is not None
    assert policy.contract.language.window == 8
    seen = Observation({}, np.zeros(7, np.float32), "reach the red green cube Task State reach the")
    prediction = policy.predict(seen, 1)
    assert prediction.tokens_cut == 1
    assert np.count_nonzero(prediction.actions[:, TOKEN]) == 8


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ({"template": "Do: {instruction}"}, "'language' is 'Prompt("),
        ({"newline": False}, "'language' is 'Prompt("),
        ({"clean": True}, "'language' is 'Prompt("),
        ({"max_length": 4}, "'language.max_length' is '4' here and '8' in policy_preprocessor.json"),
        ({"padding_side": "left"}, "'language.padding_side' is 'left' here and 'right' in"),
    ],
)
def test_a_prompt_that_contradicts_the_processors_is_refused(
    tmp_path: Path, language: Any, says: str
) -> None:
    path = with_steps(
        echo(tmp_path, "somebodys", image=False, normalization=None, language=language), SMOLVLA
    )
    with pytest.raises(ExportError) as caught:
        policy_of(path)
    assert "\n" not in str(caught.value)
    assert says.replace("'", "") in str(caught.value).replace("'", "").replace('"', "")


def test_a_prompt_that_says_the_same_in_other_words_is_fine(tmp_path: Path) -> None:
    path = echo(
        tmp_path,
        "somebodys",
        image=False,
        normalization=None,
        language={"template": "{instruction}\n", "clean": False},
    )
    assert prompt(policy_of(with_steps(path, SMOLVLA)), "pick") == "pick\n"


VISUAL = {
    name: {"type": "VISUAL", "shape": [3, SIDE, SIDE]}
    for name in ("observation.images.front", "observation.images.wrist")
}


def pictured(path: Path, rename: dict[str, str] | None = None, **config: Any) -> Policy:
    step = normalizer(
        visual="MEAN_STD", features=VISUAL | {"observation.state": {"type": "STATE", "shape": [7]}}
    )
    steps = [("rename_observations_processor", {"rename_map": rename or {}}), step]
    return policy_of(
        with_steps(echo(path, "act", policy="flow_matching", normalization=None, **config), steps)
    )


def colours(policy: Policy, camera: str = "front") -> list[float]:
    frame = Frame(np.full((SIDE, SIDE, 3), 255, np.uint8), "rgb8", SIDE, SIDE)
    seen = Observation({camera: frame}, np.zeros(7, np.float32), "pick")
    return policy.predict(seen, 1).actions[0, [RED, GREEN, BLUE]].tolist()


def images(**more: Any) -> list[dict[str, Any]]:
    return [{"camera": "front", "input": "img_front"} | more]


def test_pictures_are_normalised_by_the_statistics_of_their_own_camera(tmp_path: Path) -> None:
    front = colours(pictured(tmp_path / "a", images=images()))
    np.testing.assert_allclose(front, [1.0, 3.0, 1.0], rtol=1e-5)
    wrist = colours(pictured(tmp_path / "b", images=images(camera="wrist")), "wrist")
    np.testing.assert_allclose(wrist, [9.0, 4.0, 1.75], rtol=1e-5)


def test_a_range_follows_the_normalisation_of_the_processors(tmp_path: Path) -> None:
    found = colours(pictured(tmp_path, images=images(range=[-1.0, 1.0])))
    np.testing.assert_allclose(found, [1.0, 5.0, 1.0], rtol=1e-5)


def test_a_feature_may_be_named_where_the_camera_is_called_otherwise(tmp_path: Path) -> None:
    found = colours(
        pictured(tmp_path, images=images(camera="eye", feature="observation.images.wrist")), "eye"
    )
    np.testing.assert_allclose(found, [9.0, 4.0, 1.75], rtol=1e-5)


@pytest.mark.parametrize("feature", [["observation.images.wrist"], {}, None, 7])
def test_a_feature_that_is_no_name_is_refused(feature: object, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="'feature' of camera 'eye' in 'images' must be the name of a feature"
    ):
        pictured(tmp_path, images=images(camera="eye", feature=feature))


def test_cameras_of_other_names_are_paired_in_the_order_of_the_features(tmp_path: Path) -> None:
    np.testing.assert_allclose(
        colours(pictured(tmp_path, images=images(camera="eye")), "eye"), [1.0, 3.0, 1.0], rtol=1e-5
    )


def test_a_camera_has_the_name_that_the_robot_gives_it(tmp_path: Path) -> None:
    policy = pictured(
        tmp_path, {"observation.images.overhead": "observation.images.wrist"}, images=images(camera="wrist")
    )
    assert [slot.camera for slot in policy.contract.images] == ["overhead"]
    np.testing.assert_allclose(colours(policy, "overhead"), [9.0, 4.0, 1.75], rtol=1e-5)


def test_mean_and_deviation_that_contradict_the_statistics_are_refused(tmp_path: Path) -> None:
    same = COLOURS["front"]
    assert colours(pictured(tmp_path / "a", images=images(**same)))[1] == pytest.approx(3.0)
    with pytest.raises(ExportError, match=r"images \(img_front\)' is .* in policy_preprocessor\.json"):
        pictured(tmp_path / "b", images=images(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))


def test_a_prompt_with_a_state_that_is_not_normalised_is_reported(tmp_path: Path) -> None:
    path = echo(tmp_path, "pi05", felt=0, image=False, images=[], normalization=None)
    assert any("its prompt holds the state, and nothing says how" in note for note in policy_of(path).notes)
    message = echo(tmp_path, "pi05", felt=0, image=False, images=[])
    assert policy_of(message).notes == ()


@pytest.mark.parametrize("written", [{}, {"constants": {"domain_id": 3}}, {"constants": {"domain_id": [3]}}])
def test_the_number_of_the_robot_is_a_constant_of_the_graph_that_takes_it(
    tmp_path: Path, written: dict[str, Any]
) -> None:
    export = open_export(folder(tmp_path, [XVLA_DOMAIN, normalizer()], [unnormalizer()]))
    config = with_processors(export, written | {"language": {}}, {"domain_id", "img"})
    assert np.ravel(config["constants"]["domain_id"]).tolist() == [3]
    assert "constants" not in with_processors(export, {"language": {}}, {"img"})


def test_another_number_of_the_robot_than_the_pipelines_is_refused(tmp_path: Path) -> None:
    export = open_export(folder(tmp_path, [XVLA_DOMAIN, normalizer()], [unnormalizer()]))
    with pytest.raises(
        ExportError, match=r"'constants.domain_id' is 4 here and 3 in policy_preprocessor.json"
    ):
        with_processors(export, {"language": {}, "constants": {"domain_id": 4}}, {"domain_id"})
