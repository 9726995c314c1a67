# SPDX-License-Identifier: Apache-2.0
"""What is written into reflex_config.json is what serving reads: with small graphs in place of the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import BEFORE, JOINTS, checkpoint_folder, configure, edit, options, step
from checkpoint_graphs import described, small_side

from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_export.documents.description import describe
from reflex_export.export import run
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.options import ExportOptions


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch and LeRobot were installed: nothing here imports them."""
    monkeypatch.setattr("reflex_export.export.LIBRARIES", ())


def description(folder: Path, given: ExportOptions | None = None) -> dict[str, Any]:
    given = given or options()
    (folder.parent / "work").mkdir(exist_ok=True)
    checkpoint = read_checkpoint(str(folder), given, folder.parent / "work")
    return describe(checkpoint, given, "policy", described(checkpoint, given))


def served(folder: Path, **given: Any) -> Policy:
    """The export of a checkpoint, loaded as the server loads it."""
    out = folder.parent / f"{folder.name}_export"
    run(str(folder), out, options(**given), lambda _: None, lambda *_: None, small_side)
    return load_policy(open_export(out), None, "cpu", 1)


@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_flow_policy_is_served_as_described(family: str, fused: bool, tmp_path: Path) -> None:
    policy = served(checkpoint_folder(tmp_path / "policy", family), fused=fused)
    contract = policy.contract
    assert [(slot.camera, slot.required) for slot in contract.images] == [("top", True), ("wrist", True)]
    assert (contract.horizon, contract.action_dim, contract.action_names) == (50, 6, JOINTS)
    assert (contract.frequency_hz, contract.flow.steps, contract.fused) == (30.0, 10, fused)
    assert contract.language is not None
    assert contract.state is not None
    assert (contract.state.names, contract.state.input) == (JOINTS, None if family == "pi05" else "state")
    assert contract.relative == ((True,) * 5 + (False,) if family == "pi0" else ())
    chunk = policy.predict(policy.canary(), 0)
    assert np.isfinite(chunk.normalised).all()


def test_an_act_is_served_as_described(tmp_path: Path) -> None:
    policy = served(checkpoint_folder(tmp_path / "policy", "act"))
    contract = policy.contract
    assert [(slot.camera, slot.height, slot.width) for slot in contract.images] == [
        ("top", 480, 640), ("wrist", 480, 640)
    ]  # fmt: skip
    assert (contract.horizon, contract.action_dim, contract.action_names) == (50, 6, JOINTS)
    # each camera by statistics of its own, which the pipeline's state file holds
    assert [float(slot.scale[0] * 255) for slot in contract.images] == pytest.approx([1 / 0.2, 1 / 0.15])
    assert np.isfinite(policy.predict(policy.canary(), 0).normalised).all()


def test_a_diffusion_policy_is_served_as_described(tmp_path: Path) -> None:
    policy = served(checkpoint_folder(tmp_path / "policy", "diffusion"))
    contract = policy.contract
    assert (contract.observation_steps, contract.action_dim) == (2, 6)
    assert contract.language is None
    assert np.isfinite(policy.predict(policy.canary(), 0).normalised).all()


def test_an_xvla_is_served_as_described(tmp_path: Path) -> None:
    policy = served(checkpoint_folder(tmp_path / "policy", "xvla"))
    contract = policy.contract
    assert (contract.horizon, contract.width, contract.action_dim) == (32, 20, 6)
    assert contract.language is not None
    assert contract.language.mask is None
    np.testing.assert_allclose(
        contract.images[0].bars, np.zeros(3), atol=1e-6
    )  # the mean's colour, normalised
    assert np.isfinite(policy.predict(policy.canary(), 0).normalised).all()


PLACES = {
    "smolvla": "letterbox_top_left",
    "pi0": "letterbox",
    "pi05": "letterbox",
    "xvla": "letterbox_top_left",
}


@pytest.mark.parametrize("family", PLACES)
def test_pictures_are_scaled_as_the_family_scales_them(family: str, tmp_path: Path) -> None:
    for slot in description(checkpoint_folder(tmp_path / "policy", family))["images"]:
        assert (slot["resize"], slot["filter"]) == (PLACES[family], "bilinear")
        assert slot["camera"] in ("top", "wrist")


def test_a_camera_that_was_empty_in_training_has_an_input_only_where_it_is_not_masked_away(
    tmp_path: Path,
) -> None:
    """SmolVLA may put tokens around every picture, which are seen although the picture is not."""
    folder = checkpoint_folder(tmp_path / "policy", "smolvla")
    for around, expected in ((False, ["top", "wrist"]), (True, ["top", "wrist", None])):
        configure(folder, add_image_special_tokens=around)
        assert [slot["camera"] for slot in description(folder)["images"]] == expected


def test_sides_of_a_picture_are_in_the_order_of_each_family(tmp_path: Path) -> None:
    """SmolVLA writes its width first, X-VLA its height, pi0 its height under another name."""
    for family, key in (
        ("smolvla", "resize_imgs_with_padding"),
        ("xvla", "resize_imgs_with_padding"),
        ("pi0", "image_resolution"),
    ):
        folder = checkpoint_folder(tmp_path / family, family)
        configure(folder, **{key: [320, 240]})
        slot = description(folder)["images"][0]
        assert (slot["height"], slot["width"]) == ((240, 320) if family == "smolvla" else (320, 240)), family


@pytest.mark.parametrize("family", ["act", "diffusion"])
def test_a_policy_without_a_resize_takes_one_size_unless_asked_for(family: str, tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", family)
    for slot in description(folder)["images"]:
        assert (slot["size"], slot["height"], slot["width"], slot["mask"]) == ("exact", 480, 640, None)
    for slot in description(folder, options(resize_cameras=True))["images"]:
        assert "size" not in slot
        assert (slot["resize"], slot["filter"]) == ("stretch", "bilinear")


def test_what_only_one_kind_has(tmp_path: Path) -> None:
    act = description(checkpoint_folder(tmp_path / "act", "act"))
    assert (act["policy"], act["actions_output"], act["n_action_steps"]) == ("deterministic", "actions", 40)
    assert not {"flow", "sampler", "observation_steps", "temporal_ensemble_coeff"} & set(act)
    configure(tmp_path / "act", temporal_ensemble_coeff=0.01, n_action_steps=1)
    assert description(tmp_path / "act")["temporal_ensemble_coeff"] == 0.01
    diffusion = description(checkpoint_folder(tmp_path / "diffusion", "diffusion"))
    assert (diffusion["policy"], diffusion["observation_steps"], diffusion["first_row"]) == (
        "diffusion",
        2,
        1,
    )
    assert (diffusion["num_denoising_steps"], len(diffusion["sampler"]["rows"])) == (2, 2)
    xvla = description(checkpoint_folder(tmp_path / "xvla", "xvla"))
    assert xvla["constants"] == {"domain_id": [0]}
    assert xvla["sampler"]["rows"][-1] == pytest.approx([0.1, 0, 1, 1, 0, 0, 0, 0])
    assert xvla["images"][0]["bars"] == xvla["images"][0]["mean"]


def test_bars_of_0_4_are_drawn_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "pi0")
    assert description(folder)["images"][0]["bars"] == 0.0
    policy = served(folder, bars=-3.0)
    np.testing.assert_array_equal(policy.contract.images[0].bars, np.full(3, -3.0, np.float32))


def test_guidance_of_the_training_is_taken_over(tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy", "smolvla")
    assert description(folder)["rtc"] == {"mode": "guided_identity"}
    configure(folder, rtc_config={"enabled": True, "max_guidance_weight": 5.0, "execution_horizon": 10})
    assert description(folder)["rtc"] == {"mode": "guided_identity", "max_guidance_weight": 5.0}


def test_a_camera_that_is_renamed_has_the_robots_name_and_its_own_statistics(tmp_path: Path) -> None:
    """Both cameras change their names: what one is called in training is what the other is called on the robot."""
    folder = checkpoint_folder(tmp_path / "policy", "smolvla")
    swapped = {
        "observation.images.top": "observation.images.wrist",
        "observation.images.wrist": "observation.images.top",
    }
    edit(
        folder / BEFORE,
        lambda document: step(document, "rename_observations_processor")["config"].update(rename_map=swapped),
    )
    edit(
        folder / BEFORE,
        lambda document: step(document, "normalizer_processor")["config"]["norm_map"].update(
            VISUAL="MEAN_STD"
        ),
    )
    policy = served(folder)
    scales = {slot.input: (slot.camera, float(slot.scale[0] * 255)) for slot in policy.contract.images}
    # in the statistics top has a deviation of 0.2 in red, wrist one of 0.15; SmolVLA's [-1, 1] comes after that
    assert scales["img_top"] == ("wrist", pytest.approx(2 / 0.2, rel=1e-5))
    assert scales["img_wrist"] == ("top", pytest.approx(2 / 0.15, rel=1e-5))


def test_units_are_written_for_all_or_by_name(tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path / "policy")
    assert "units" not in description(folder)
    assert description(folder, options(units=("radians",)))["units"] == "radians"
    degrees = dict.fromkeys(JOINTS, "degrees") | {"gripper": "percent"}
    assert description(folder, options(units=("degrees",)))["units"] == degrees
    unnamed = ExportOptions(units=("degrees",) * 5 + ("percent",))
    assert description(folder, unnamed)["units"] == ["degrees"] * 5 + ["percent"]


def test_the_written_file_says_where_it_comes_from(tmp_path: Path) -> None:
    served(checkpoint_folder(tmp_path / "policy", "smolvla"))
    source = json.loads((tmp_path / "policy_export" / "reflex_config.json").read_text())["source"]
    assert (source["type"], source["verified"], source["lerobot"]) == ("smolvla", True, "0.6.1")
    assert source["parity_max_abs"] == 1e-6
    assert len(source["weights_sha256"]) == 64
