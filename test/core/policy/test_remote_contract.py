# SPDX-License-Identifier: Apache-2.0
"""What a policy on another server is for a robot: what the server says, what the user says, and where they contradict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robots import robot

from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.policy.cloud_server import CloudAnswer
from reflex_core.policy.remote import RemotePolicy
from reflex_core.policy.remote_contract import RemoteParts, read_description, remote_parts, require_robot
from reflex_core.policy.remote_server import OPENPI, REFLEX, RemoteAbout
from reflex_core.robot.presets import load_preset
from reflex_core.settings.table import settings_from
from reflex_core.values import POLICY, Frame, Observation, Request

URL = "ws://gpu:8000"
NAMES = ["a", "b", "c"]
ABOUT = RemoteAbout(OPENPI, action_dim=3, horizon=4, action_space="joint_position")


def parts(
    path: Path, about: RemoteAbout = ABOUT, says: Mapping[str, Any] | None = None, **changes: Any
) -> RemoteParts:
    return remote_parts(URL, about, says or {}, robot(path, NAMES, **changes), settings_from({}))


class Server:
    """Answers with rows of its own, and keeps what it was asked."""

    def __init__(self, rows: Any, names: tuple[str, ...] = ()) -> None:
        self.rows, self.names, self.requests = np.array(rows, np.float32), names, list[Request]()

    def ask(self, request: Request, left_s: float) -> CloudAnswer:
        self.requests.append(request)
        return CloudAnswer(self.rows, self.names, None, POLICY, "arm@1")

    def about(self, left_s: float) -> RemoteAbout:
        return ABOUT

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


def seen(**frames: Any) -> Observation:
    pixels = np.zeros((4, 4, 3), np.uint8)
    given = frames or {"front": pixels}
    return Observation(
        {name: Frame(pixels, "rgb8", 4, 4) for name in given}, np.array([1, 2, 3], np.float32), "go"
    )


def test_rows_of_a_server_that_names_its_joints_are_put_into_the_robots_order(tmp_path: Path) -> None:
    about = RemoteAbout(REFLEX, action_names=("c", "a", "b"), action_dim=3, horizon=4, dt_s=0.05)
    server = Server([[3, 1, 2]] * 4, ("c", "a", "b"))
    policy = RemotePolicy(server, parts(tmp_path, about), REFLEX, 100.0)
    assert policy.predict(seen(), 0).actions[0].tolist() == [1, 2, 3]


def test_a_camera_has_the_servers_name_in_the_request(tmp_path: Path) -> None:
    about = RemoteAbout(
        REFLEX, action_names=tuple(NAMES), action_dim=3, horizon=4, dt_s=0.05, cameras=("base",)
    )
    server = Server([[1, 2, 3]] * 4)
    RemotePolicy(server, parts(tmp_path, about), REFLEX, 100.0).predict(seen(), 0)
    assert list(server.requests[0].observation.frames) == ["base"]


def test_degrees_go_out_and_come_back_as_degrees(tmp_path: Path) -> None:
    server = Server([[90, 90, 90]] * 4)
    policy = RemotePolicy(server, parts(tmp_path, says={"units": "degrees"}), OPENPI, 100.0)
    actions = policy.predict(seen(), 0).actions
    np.testing.assert_allclose(actions, np.pi / 2, rtol=1e-6)
    state = server.requests[0].observation.state
    assert state is not None
    np.testing.assert_allclose(state, np.degrees([1, 2, 3]), rtol=1e-6)


def test_deltas_start_from_the_measured_joints(tmp_path: Path) -> None:
    says = {"action_space": [{"columns": [0, 1, 2], "mode": "delta"}]}
    policy = RemotePolicy(Server([[0.1, 0.1, 0.1]] * 2), parts(tmp_path, says=says), OPENPI, 100.0)
    np.testing.assert_allclose(
        policy.predict(seen(), 0).actions, [[1.1, 2.1, 3.1], [1.2, 2.2, 3.2]], rtol=1e-6
    )


def test_a_server_of_velocities_says_so_itself(tmp_path: Path) -> None:
    about = RemoteAbout(OPENPI, action_dim=3, horizon=4, action_space="joint_velocity")
    policy = RemotePolicy(Server([[1.0, 0, 0]]), parts(tmp_path, about), OPENPI, 100.0)
    np.testing.assert_allclose(policy.predict(seen(), 0).actions, [[1.05, 2, 3]], rtol=1e-6)


def test_rows_beyond_the_robots_chunks_are_cut(tmp_path: Path) -> None:
    about = replace(ABOUT, horizon=80)
    policy = RemotePolicy(Server([[1, 2, 3]] * 80), parts(tmp_path, about), OPENPI, 100.0)
    assert policy.predict(seen(), 0).actions.shape == (50, 3)


@pytest.mark.parametrize(
    ("about", "says", "sentence"),
    [
        (RemoteAbout(OPENPI, action_dim=0, horizon=4), {}, "0 columns"),
        (RemoteAbout(OPENPI, action_dim=3, horizon=10**9), {}, "1000000000 rows"),
        (RemoteAbout(OPENPI, action_dim=2, horizon=4), {}, "2 dimensions"),
        (RemoteAbout(OPENPI, action_dim=3, horizon=4, dt_s=0.1), {}, "10 Hz"),
        (RemoteAbout(OPENPI, action_dim=3, horizon=4, dt_s=0.05), {"frequency_hz": 30}, "30 Hz"),
        (RemoteAbout(OPENPI, action_dim=3, horizon=4, dt_s=-1.0), {}, "expected"),
        (RemoteAbout(OPENPI, action_names=("a", "b", "d"), action_dim=3, horizon=4), {}, "c"),
        (
            RemoteAbout(OPENPI, action_names=tuple(NAMES), action_dim=3, horizon=4),
            {"action_names": ["c", "b", "a"]}, "c, b, a",
        ),
        (RemoteAbout(OPENPI, action_names=("a", "b"), action_dim=3, horizon=4), {}, "names 2 actions"),
        (RemoteAbout(REFLEX, action_dim=3, horizon=4, cameras=("one", "two")), {}, "camera 'two'"),
        (ABOUT, {"units": "miles"}, "miles"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_in_one_sentence(
    tmp_path: Path, about: RemoteAbout, says: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parts(tmp_path, about, says)
    assert sentence in str(caught.value)


def test_what_is_not_declared_is_to_be_written_into_a_file_that_the_user_knows(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="^the file of --remote-description: does not say .* gripper"
    ):
        remote_parts(URL, replace(ABOUT, action_dim=8), {}, load_preset("franka"), settings_from({}))


@pytest.mark.parametrize("says", [{}, {"frequency_hz": 20}, {"state_names": NAMES}])
def test_rows_that_nothing_declares_move_no_robot(tmp_path: Path, says: dict[str, Any]) -> None:
    """openpi's servers say nothing: those of DROID give velocities, those of LIBERO offsets, others positions."""
    undeclared = replace(ABOUT, action_space="")
    with pytest.raises(ConfigurationError, match="says what its rows are") as caught:
        parts(tmp_path, undeclared, says)
    assert caught.value.slug == "remote-undeclared"
    for declared in (
        {"units": "radians"},
        {"action_space": [{"columns": [0, 1, 2], "mode": "absolute"}]},
        {"action_space": [{"columns": [0, 1, 2], "mode": "velocity"}]},
    ):
        parts(tmp_path, undeclared, says | declared)
    parts(tmp_path, replace(undeclared, dialect=REFLEX), says)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "object"),
        ("{", "remote_description"),
        ('{"action_name": ["a"]}', "action_names"),
        ('{"frequency_hz": 0}', "frequency_hz"),
        ('{"action_names": "a"}', "list of names"),
        ('{"reads_state": 1}', "true or false"),
    ],
)
def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "said.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=sentence):
        read_description(settings_from({"remote_description": str(path)}))


def test_a_description_is_read(tmp_path: Path) -> None:
    path = tmp_path / "said.json"
    path.write_text(json.dumps({"frequency_hz": 20, "reads_state": False}))
    says = read_description(settings_from({"remote_description": str(path)}))
    assert parts(tmp_path, says=says).contract.state is None


def test_without_a_robot_nothing_is_served() -> None:
    with pytest.raises(SettingError, match="--embodiment"):
        require_robot(None)
