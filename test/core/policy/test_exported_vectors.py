# SPDX-License-Identifier: Apache-2.0
"""ACT and Diffusion Policy, exported by `reflex export`, give what LeRobot itself gave: its answers (fixtures/exported)."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from http_client import Client, text
from known_weights import weights
from onnx import numpy_helper
from repository import FIXTURES

from reflex_core.engine.engine import Engine
from reflex_core.export.export import open_export
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.micro_batch import TOLERANCE, Waiting
from reflex_core.policy.onnx_policy import OnnxPolicy
from reflex_core.policy.providers import LoadOptions
from reflex_core.policy.sampler import PLAIN
from reflex_core.settings.table import settings_from
from reflex_core.values import Floats, Frame, Observation
from reflex_ros.sidecar.server import Sidecar

EXPORTED = FIXTURES / "exported"
sys.path.insert(0, str(FIXTURES.parent / "export" / "support"))
from raw_observations import RawObservation, observation  # noqa: E402  (beside the tests that need torch)

LIMIT = 1e-4  # rad
SIZE = (96, 128)
CASES = range(3)
NAMES = ("act", "diffusion", "diffusion_ddpm")
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`export("act")`: the folder, its weights made from their names; not to be changed."""
    root = tmp_path_factory.mktemp("exported")

    def make(name: str) -> Path:
        folder = root / name
        shutil.copytree(
            EXPORTED / name, folder, ignore=shutil.ignore_patterns("*.gz", "answers.npz", "weights.json")
        )
        known = json.loads((EXPORTED / name / "weights.json").read_text(encoding="utf-8"))
        for file, names in known.items():
            model = onnx.ModelProto.FromString(gzip.decompress((EXPORTED / name / f"{file}.gz").read_bytes()))
            for tensor in model.graph.initializer:
                if tensor.name in names:
                    made = weights(names[tensor.name], tensor.dims)
                    tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))
            onnx.save(model, folder / file)
        return folder

    return cache(make)


def moments(number: int) -> tuple[RawObservation, RawObservation]:
    newest = observation(number, SIZE)
    return observation(number + 100, SIZE, task=newest.task), newest


def sent(seen: RawObservation) -> dict[str, Any]:
    """What a request says of an observation, and an entry of its `history` of an earlier one."""
    top, wrist = (
        text(cv2.imencode(".png", seen.pictures[name][:, :, ::-1])[1].tobytes()) for name in ("top", "wrist")
    )
    return {"image": top, "image_wrist": wrist, "state": seen.state.tolist()}


def chunk_of(policy: Policy, number: int) -> Floats:
    earlier, newest = (
        Observation(
            {name: Frame(p, "rgb8", *SIZE) for name, p in seen.pictures.items()}, seen.state, seen.task
        )
        for seen in moments(number)
    )
    return policy.predict(replace(newest, history=(earlier,)), seed=number).actions


def difference(policy: Policy, name: str) -> float:
    """The largest difference from LeRobot's own answers, in the robot's units."""
    wanted = np.load(EXPORTED / name / "answers.npz")
    made = {number: chunk_of(policy, number) for number in CASES}
    return max(float(np.abs(made[number] - wanted[f"case_{number}"]).max()) for number in CASES)


def policy_of(folder: Path) -> Policy:
    return load_policy(open_export(folder), None, "cpu", 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_served_policy_gives_lerobots_own_actions(name: str, export: Callable[[str], Path]) -> None:
    wanted = np.load(EXPORTED / name / "answers.npz")["case_0"]
    assert np.ptp(wanted, axis=0).max() > 100 * LIMIT
    found = difference(policy_of(export(name)), name)
    assert found <= LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_them_is_each_its_single_run(name: str, export: Callable[[str], Path]) -> None:
    """A deterministic policy, and two with a table of steps, one of which draws noise in each step."""
    path = export(name)
    batched = load_policy(open_export(path), None, "cpu", 1, (), LoadOptions(max_batch=4))
    assert isinstance(batched, OnnxPolicy)
    assert batched._batches is not None
    batched.verify_batches()
    rows = [batched._trial_inputs(number) for number in range(4)]
    single = [batched._ran(*row, PLAIN, None).normalised for row in rows]
    together = batched._batches._together([Waiting(*row, PLAIN) for row in rows], None)
    assert together.normalised.shape == (4, *single[0].shape[1:])
    for number, one in enumerate(single):
        np.testing.assert_allclose(together.normalised[number], one[0], rtol=0, atol=TOLERANCE)
    assert len({one.tobytes() for one in single}) == 4


def described_otherwise(folder: Path, out: Path, change: Change) -> Policy:
    shutil.copytree(folder, out)
    document = json.loads((out / "reflex_config.json").read_text(encoding="utf-8"))
    change(document)
    (out / "reflex_config.json").write_text(json.dumps(document), encoding="utf-8")
    return policy_of(out)


def swapped(document: dict[str, Any]) -> None:
    """Each camera has the statistics of the other; to ACT itself all cameras are alike."""
    first, second = document["images"]
    first["feature"], second["feature"] = second["feature"], first["feature"]


def later(document: dict[str, Any]) -> None:
    """One time for all steps."""
    for row in document["sampler"]["rows"]:
        row[0] = document["sampler"]["rows"][0][0]


# what else a policy could do with the same observation
WRONG: dict[str, tuple[str, Change]] = {
    "statistics of the other camera": ("act", swapped),
    "no clip": ("diffusion", lambda document: document["sampler"].update(clip=None)),
    "the time of the first step": ("diffusion", later),
    "one control period late": ("diffusion", lambda document: document.update(first_row=0)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_seen(wrong: str, export: Callable[[str], Path], tmp_path: Path) -> None:
    name, change = WRONG[wrong]
    policy = described_otherwise(export(name), tmp_path / "out", change)
    wanted = np.load(EXPORTED / name / "answers.npz")["case_0"]
    rows = chunk_of(policy, 0)[: len(wanted)]
    assert np.abs(rows - wanted[: len(rows)]).max() > 100 * LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_its_configuration_says_which_batches_were_verified(name: str, export: Callable[[str], Path]) -> None:
    assert policy_of(export(name)).contract.batch == (1, 2, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_request_over_http_gets_them_too(name: str, export: Callable[[str], Path]) -> None:
    given = {"export_dir": str(export(name)), "device": "cpu", "intra_op_threads": 1, "port": 0}
    engine = Engine(settings_from(given))
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    try:
        earlier, newest = map(sent, moments(1))
        history = {"history": [earlier]} if name != "act" else {}
        answer = Client(sidecar.port).act(newest | history | {"seed": 1})
        assert answer.status == 200, answer.body
        wanted = np.load(EXPORTED / name / "answers.npz")["case_1"]
        assert np.abs(np.asarray(answer.json["actions"]) - wanted).max() <= LIMIT
    finally:
        sidecar.stop()
        engine.unload()
