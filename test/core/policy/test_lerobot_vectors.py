# SPDX-License-Identifier: Apache-2.0
"""The served policy gives what LeRobot itself gives: its own classes' answers (fixtures/lerobot) in physical units.

The graphs are LeRobot's small networks of random weights. What is compared is everything around them: pictures, prompt and
tokens, state, start noise, Euler steps, un-normalisation, relative actions.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from http_client import Client, text
from repository import FIXTURES
from safetensors.numpy import load_file

from reflex_core.engine.engine import Engine
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.settings.table import settings_from
from reflex_core.values import Floats, Frame, Observation
from reflex_ros.sidecar.server import Sidecar

LEROBOT = FIXTURES / "lerobot"
sys.path.insert(0, str(LEROBOT))
from observations import CASES, JOINTS, Case, pictures_of, state_of  # noqa: E402  (beside the script that needs torch)

LIMIT = 1e-4  # rad, m
SERVED = "pi05/relative"
STEPS = 4
VARIANTS = sorted(path.parent.relative_to(LEROBOT).as_posix() for path in LEROBOT.glob("*/*/answers.npz"))


def described(family: str, **changes: Any) -> dict[str, Any]:
    """What an exporter has to say beside LeRobot's own files: names, and nothing of what the family does."""
    cameras: dict[str, str | None] = {"top": "top", "wrist": "wrist", "empty_camera_0": None}
    return {
        "model_type": family, "export_kind": "decomposed", "num_denoising_steps": STEPS, "action_dim": len(JOINTS),
        "action_names": list(JOINTS),
        "images": [
            {"camera": camera, "input": f"img_{name}", "mask": f"mask_{name}", "required": name == "top"}
            for name, camera in cameras.items()
        ],
        "flow": {"x": "x_t", "time": "t", "velocity": "v_t"},
    } | changes  # fmt: skip


def exported(folder: Path, variant: str, **changes: Any) -> Path:
    """An export as a user would make it of the fixture's files."""
    family = variant.split("/", maxsplit=1)[0]
    shutil.copytree(LEROBOT / variant, folder, ignore=shutil.ignore_patterns("answers.npz"))
    shutil.copytree(LEROBOT / family / "tokenizer", folder / "tokenizer")
    for graph in ("vlm_prefix.onnx", "expert_denoise.onnx"):
        (folder / graph).symlink_to(LEROBOT / family / graph)
    (folder / "reflex_config.json").write_text(json.dumps(described(family, **changes)))
    return folder


def policy_of(folder: Path) -> Policy:
    return load_policy(open_export(folder), None, "cpu", 1)


def quantiles(variant: str) -> tuple[Floats, Floats]:
    (file,) = (LEROBOT / variant).glob("policy_preprocessor*.safetensors")
    table = load_file(file)
    return table["observation.state.q01"], table["observation.state.q99"]


def actions_of(policy: Policy, variant: str, number: int, case: Case) -> Floats:
    called = {"top": "front"} if variant == "smolvla/pictures" else {}  # by its rename_map
    frames = {
        called.get(camera, camera): Frame(picture, "rgb8", *picture.shape[:2])
        for camera, picture in pictures_of(case, number).items()
    }
    state = state_of(case, number, *quantiles(variant))
    return policy.predict(Observation(frames, state, case.task), seed=number).actions


def difference(policy: Policy, variant: str, number: int) -> float:
    """The largest difference from LeRobot's own answer to one case."""
    wanted = np.load(LEROBOT / variant / "answers.npz")[f"case_{number}"]
    return float(np.abs(actions_of(policy, variant, number, CASES[number]) - wanted).max())


def test_all_three_families_are_compared() -> None:
    assert {variant.split("/")[0] for variant in VARIANTS} == {"smolvla", "pi0", "pi05"}
    assert len(VARIANTS) == 9
    assert {case.size for case in CASES} >= {(480, 640), (640, 480), (224, 224), (512, 512), (333, 517)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_served_policy_gives_lerobots_own_actions(tmp_path: Path, variant: str) -> None:
    policy = policy_of(exported(tmp_path / "export", variant))
    found = {number: difference(policy, variant, number) for number in range(len(CASES))}
    assert max(found.values()) <= LIMIT, found


def images(**changes: Any) -> dict[str, Any]:
    return {"images": [slot | changes for slot in described("")["images"]]}


# what else a policy could do to the same observation, and the case that shows that it is not what LeRobot does
WRONG: dict[str, tuple[str, int, dict[str, Any]]] = {
    "smolvla's bars in the middle": ("smolvla/mean_std", 0, images(resize="letterbox")),
    "pi0's bars at the left and top": ("pi0/mean_std", 0, images(resize="letterbox_top_left")),
    "pi0.5's bars at the left and top": ("pi05/quantiles", 2, images(resize="letterbox_top_left")),
    "stretched": ("smolvla/mean_std", 5, images(resize="stretch")),
    "averaged by area": ("smolvla/mean_std", 0, images(filter="area")),
    "shrunk as openpi shrinks": ("pi0/mean_std", 0, images(filter="bilinear_antialias")),
    "openpi's row": ("pi0/mean_std", 0, {"source": "openpi"}),
    "bars of LeRobot 0.4": ("pi0/mean_std", 0, images(bars=-1.0)),
    "white bars": ("smolvla/mean_std", 5, images(bars=1.0)),
    "pixels in 0..1": ("pi05/quantiles", 3, images(range=[0.0, 1.0])),
    "one step more": ("pi05/quantiles", 0, {"num_denoising_steps": STEPS + 1}),
    "time the other way": ("pi0/mean_std", 0, {"flow": described("")["flow"] | {"start": 0.0, "end": 1.0}}),
    "velocity the other way": ("pi0/mean_std", 0, {"flow": described("")["flow"] | {"sign": -1}}),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_the_comparison_sees_what_is_done_otherwise(tmp_path: Path, name: str) -> None:
    variant, number, changes = WRONG[name]
    policy = policy_of(exported(tmp_path / "export", variant, **changes))
    assert difference(policy, variant, number) > 5 * LIMIT


def rewritten(folder: Path, *pairs: tuple[str, str]) -> Path:
    """The export with words of its two pipelines replaced."""
    for file in folder.glob("policy_p*processor.json"):
        words = file.read_text()
        for old, new in pairs:
            words = words.replace(old, new)
        file.write_text(words)
    return folder


OTHER_PIPELINES = {
    "offsets sent as positions": ('"enabled": true', '"enabled": false'),
    "other statistics": ("QUANTILES", "MEAN_STD"),
    "the gripper relative as well": ('"gripper"', '"claw"'),
}


@pytest.mark.parametrize("name", list(OTHER_PIPELINES))
@pytest.mark.parametrize("variant", ["pi0/relative", "pi05/relative"])
def test_the_comparison_sees_other_pipelines(tmp_path: Path, variant: str, name: str) -> None:
    folder = rewritten(exported(tmp_path / "export", variant), OTHER_PIPELINES[name])
    assert difference(policy_of(folder), variant, 0) > 5 * LIMIT


def test_relative_actions_are_known_by_their_older_name(tmp_path: Path) -> None:
    older = ("relative_actions_processor", "delta_actions_processor")  # LeRobot 0.5
    folder = rewritten(exported(tmp_path / "export", "pi0/relative"), older)
    assert difference(policy_of(folder), "pi0/relative", 0) <= LIMIT


@pytest.mark.parametrize("change", ["noise", "state", "instruction", "newline", "picture", "wrist"])
@pytest.mark.parametrize("variant", ["smolvla/mean_std", "pi0/mean_std", "pi05/quantiles"])
def test_everything_that_goes_in_counts(tmp_path: Path, variant: str, change: str) -> None:
    policy = policy_of(exported(tmp_path / "export", variant))
    case, number = CASES[0], 0
    frames = {
        name: Frame(picture, "rgb8", *picture.shape[:2]) for name, picture in pictures_of(case, 0).items()
    }
    state, task = state_of(case, 0, *quantiles(variant)), case.task
    usual = policy.predict(Observation(frames, state, task), seed=0).actions
    if change == "noise":
        number = 1
    if change == "state":
        state = state + np.where(
            np.arange(len(state)) == 3, np.float32(0), np.float32(0.3)
        )  # that one never moved
    if change == "instruction":
        task = task.upper()
    if change == "newline":
        task = task.replace(" ", "\n")
    if change == "picture":
        frames |= {"top": Frame(255 - frames["top"].data, "rgb8", *case.size)}
    if change == "wrist":
        frames = {"top": frames["top"]}
    other = policy.predict(Observation(frames, state, task), seed=number).actions
    moved = float(np.abs(other - usual).max())
    # pi0.5 reads a line break as a blank
    assert (moved == 0) if (variant, change) == ("pi05/quantiles", "newline") else moved > 3 * LIMIT


def test_a_server_gives_lerobots_own_actions(tmp_path: Path) -> None:
    folder = exported(tmp_path / "export", SERVED)
    settings = settings_from({"export_dir": str(folder), "device": "cpu", "intra_op_threads": 1, "port": 0})
    engine = Engine(settings)
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, settings)
    sidecar.start()
    try:
        for number, case in enumerate(CASES[:3]):
            pictures = pictures_of(case, number)
            top, wrist = (
                text(cv2.imencode(".png", pictures[name][:, :, ::-1])[1].tobytes())
                for name in ("top", "wrist")
            )
            state = state_of(case, number, *quantiles(SERVED)).tolist()
            answer = Client(sidecar.port).act(
                {"image": top, "image_wrist": wrist, "state": state, "instruction": case.task, "seed": number}
            )
            assert answer.status == 200, answer.body
            wanted = np.load(LEROBOT / SERVED / "answers.npz")[f"case_{number}"]
            np.testing.assert_allclose(answer.json["actions"], wanted, rtol=0, atol=LIMIT)
    finally:
        sidecar.stop()
        engine.unload()
