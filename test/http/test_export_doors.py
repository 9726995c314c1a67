# SPDX-License-Identifier: Apache-2.0
"""What an export says, where people meet it: over HTTP, in the doctor, in a replayed trace's hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echoes import GIVEN, MASK, STATE, TOKEN, echo
from http_client import Client
from lerobot_files import ABSOLUTE, normalizer, pipelines, relative, statistics, unnormalizer
from servers import Server

from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from
from reflex_ros.sidecar.server import Sidecar

Serving = Callable[[Path], Server]
LOW, HIGH = [-1.5] * 6 + [0.5], [2.5] * 6 + [0.5]
NUMBERS = {"mean": [0.0] * 7, "std": [0.5] * 7, "q01": LOW, "q99": HIGH}
OFFSETS = {"mean": [0.0] * 7, "std": [0.05] * 7, "q01": [-0.1] * 7, "q99": [0.3] * 7}
HERE = [0.5, 2.5, -1.5, 0.0, 0.1, 0.2, 0.5]
NAMES = [f"joint_{index}.pos" for index in range(6)] + ["left_Gripper.pos"]


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    opened: list[tuple[Sidecar, Engine]] = []

    def make(path: Path) -> Server:
        values = {"export_dir": str(path), "device": "cpu", "intra_op_threads": 1, "port": 0}
        engine = Engine(settings_from(values))
        sidecar = Sidecar(engine, engine.settings)
        sidecar.start()
        engine.load()
        engine.warm_up()
        opened.append((sidecar, engine))
        return Server(engine, sidecar, Client(sidecar.port))

    yield make
    for sidecar, engine in opened:
        sidecar.stop()
        engine.unload()


@pytest.fixture(scope="module")
def trained(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """LeRobot's quantiles and relative actions; the last number of the state never moved in training."""
    path = echo(tmp_path_factory.mktemp("lerobot"), "somebodys", felt=7, image=False, normalization=None)
    offsets = relative(exclude_joints=["gripper"], action_names=NAMES)
    features = {"observation.state": {"type": "STATE", "shape": [7]}}
    pipelines(
        path,
        [offsets, normalizer("QUANTILES", "QUANTILES", features=features)],
        [unnormalizer("QUANTILES"), ABSOLUTE],
    )
    statistics(path / "before.safetensors", observation__state=NUMBERS)
    statistics(path / "after.safetensors", action=OFFSETS)
    return serving(path)


def reply_of(server: Server, state: list[float], instruction: str = "reach", seed: int = 5) -> Any:
    return server.client.act({"state": state, "instruction": instruction, "seed": seed})


def test_quantiles_of_lerobots_processors_are_served(trained: Server) -> None:
    actions = np.array(reply_of(trained, HERE).json["actions"])
    seen = (actions[:7, STATE] - HERE[STATE] + 0.1) / 0.2 - 1
    expected = 2 * (np.array(HERE) + 1.5) / 4 - 1
    expected[6] = -1.0
    np.testing.assert_allclose(seen, expected, atol=1e-4)


def test_relative_actions_are_served_as_positions(trained: Server) -> None:
    moved = [0.9, *HERE[1:]]
    here, there = (np.array(reply_of(trained, state).json["actions"]) for state in (HERE, moved))
    np.testing.assert_allclose(there[:, TOKEN] - here[:, TOKEN], 0.4, atol=1e-5)
    np.testing.assert_allclose(there[:, GIVEN], here[:, GIVEN], atol=1e-6)  # the gripper is excluded


def test_config_says_how_actions_and_state_are_taken(trained: Server) -> None:
    effective = trained.client.get("/config").json["effective"]
    assert effective["relative_actions"] == [f"action_{number}" for number in range(6)]
    assert effective["normalization"] == {"state": "quantiles", "action": "quantiles"}


def test_a_state_off_its_constant_is_the_callers_mistake(trained: Server) -> None:
    answer = reply_of(trained, [*HERE[:6], 0.501])
    assert answer.status == 422
    assert answer.json["error"] == "state-off-constant"
    assert "number 6" in answer.json["message"]
    assert reply_of(trained, HERE).status == 200


def test_a_pi05_reads_its_state_in_the_prompt(serving: Serving, tmp_path: Path) -> None:
    state = {"mode": "quantiles", "q01": [-1.0, -1.0, 0.0], "q99": [1.0, 1.0, 2.0]}
    block = {"state": state, "action": {"mode": "identity"}}
    server = serving(echo(tmp_path, "pi05", felt=0, image=False, images=[], normalization=block))
    actions = np.array(reply_of(server, [0.0, -9.0, 2.0], "reach_the\ncube").json["actions"])
    heard = actions[actions[:, MASK] > 0, TOKEN].astype(int).tolist()
    # Task : reach the cube , State : 128 - 1 255 ; Action :, of which the tokenizer knows most; 12 + n is the number n
    assert heard == [7, 9, 2, 3, 6, 10, 8, 9, 12 + 128, 1, 12 + 1, 12 + 255, 11, 1, 9]


def test_the_doctor_warns_of_a_state_without_statistics(tmp_path: Path) -> None:
    from reflex_core.doctor.served_policy import policy

    block = {"action": {"mode": "mean_std", "mean": [0.0] * 7, "std": [1.0] * 7}}
    path = echo(tmp_path, "somebodys", felt=7, image=False, normalization=block)
    found = {
        one.name: one
        for one in policy(settings_from({"export_dir": str(path), "device": "cpu"}), drives=False)
    }
    assert found["statistics"].level == "warn"
    assert "the state goes in as it is" in found["statistics"].said


def test_another_tokenizer_is_another_model(tmp_path: Path) -> None:
    from reflex_core.export.export import open_export

    hashes = {open_export(echo(tmp_path, felt=7, image=False)).model_hash}
    file = tmp_path / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace('"reach"', '"grasp"'))
    hashes.add(open_export(tmp_path).model_hash)
    assert len(hashes) == 2
