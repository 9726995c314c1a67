# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: a gripper in metres whatever the policy counts, steps as positions, and the refusal where it is not declared."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leading_robots as robots
import numpy as np
import pytest
from asking import AT_REST, BEYOND, act
from echoes import echo
from grouped_robots import document
from http_client import raw, wait_for
from kinds import HEIGHT, WIDTH
from ros_world import REACH_HOME
from servers import ExportDir, Server

from reflex_core.errors import ConfigurationError
from reflex_core.files.share import embedded_policy
from reflex_core.records.trace.reader import TraceReader

Serve = Callable[..., Server]
NAMES = ["shoulder", "elbow", "finger"]
SENSE = {"columns": ["finger"], "gripper": {"open": 0.0, "closed": 1.0}}


def served(serve: Serve, path: Path, *space: dict[str, Any], ready: bool = True) -> Server:
    made = echo(
        path / "export", "somebodys", felt=3, image=False, action_dim=3, action_names=NAMES, frequency_hz=20,
        state={"input": "state", "names": NAMES}, action_space=list(space),
    )  # fmt: skip
    file = path / "robot.json"
    wide = {"type": "continuous", "dim": 3, "ranges": [[-25, 25], [-25, 25], [0, 0.04]]}
    file.write_text(json.dumps(document(action_space=wide, velocity_max=[100, 100, 1.0])))
    return serve("act", ready=ready, export_dir=str(made), embodiment="", custom_embodiment_config=str(file))


def test_a_measured_gripper_comes_back_in_its_joints_unit(serve: Serve, tmp_path: Path) -> None:
    server = served(serve, tmp_path, SENSE)
    reply = server.client.act({"instruction": "pick", "state": [0.0, 0.0, 0.03]}).json
    # the network repeats the state, as it sees it, in the gripper's column: 0, 0, then 0.25 of the way to closed
    assert [row[2] for row in reply["actions"][:3]] == pytest.approx([0.04, 0.04, 0.03], abs=1e-6)
    shown = server.client.get("/config").json["effective"]
    assert shown["policy_units"]["action"] == ["si", "si", "open to closed"]


def test_config_names_the_groups_of_the_robot_and_their_interfaces(serve: Serve, tmp_path: Path) -> None:
    server = served(serve, tmp_path, SENSE)
    arm = {"name": "arm", "joints": ["shoulder", "elbow"], "output": "joint_trajectory", "address": None}
    hand = {"name": "hand", "joints": ["finger"], "output": "parallel_gripper", "address": None}
    assert server.client.get("/config").json["effective"]["groups"] == [arm, hand]
    server.engine.addresses = {"hand": "/hand/gripper_cmd"}  # as a node around the engine sets it
    groups = server.client.get("/config").json["effective"]["groups"]
    assert [group["address"] for group in groups] == [None, "/hand/gripper_cmd"]


def test_config_names_the_one_group_of_a_robot_that_is_not_described(serve: Serve) -> None:
    effective = serve("mono_pi0_7", embodiment="").client.get("/config").json["effective"]
    whole = {"name": "", "joints": effective["action_names"], "output": "joint_trajectory", "address": None}
    assert effective["groups"] == [whole]


def test_a_gripper_that_is_not_explained_is_not_served(serve: Serve, tmp_path: Path) -> None:
    server = served(serve, tmp_path, {"columns": ["shoulder"], "mode": "absolute"}, ready=False)
    with pytest.raises(
        ConfigurationError, match="does not say what its numbers of the gripper 'finger' mean"
    ):
        server.engine.load()


def test_a_late_chunk_of_steps_goes_on_as_positions(serve: Serve, export_copy: ExportDir) -> None:
    path = export_copy("act_burning")
    file = path / "reflex_config.json"
    config = json.loads(file.read_text())
    space = {"columns": list(range(config.get("action_dim", 7))), "mode": "delta", "scale": 1e-3}
    file.write_text(json.dumps(config | {"action_space": [space]}))
    server = serve("act", export_dir=str(path), deadline_ms=500.0, max_fallback_age_ms=60_000.0)
    image = raw(height=HEIGHT, width=WIDTH)
    good = server.client.act(
        {"image": image, "instruction": "reach", "state": AT_REST, "episode_id": "ep"}
    ).json
    late = server.client.act(
        {"image": image, "instruction": "reach", "state": BEYOND, "episode_id": "ep"}
    ).json
    assert (good["source"], late["source"]) == ("policy", "last_known_good")
    # the joint that was moved by hand is led back by the guard; the others go on along the positions that were served
    assert late["actions"][0][1:] in [row[1:] for row in good["actions"]]


def test_a_chunk_after_a_late_one_goes_on_where_that_led(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller counts the rows of the answer that it executes, which is the tail of an earlier chunk."""
    server = serve("act", export_dir=str(embedded_policy()), embodiment="", deadline_ms=2000.0, max_fallback_age_ms=60_000.0,
        record=str(tmp_path), record_images="none", record_no_gzip=True)  # fmt: skip
    assert server.engine.loaded is not None
    client, policy = server.client, server.engine.loaded.policy
    good = act(client, REACH_HOME, episode_id="ep", elapsed_rows=0.0).json
    received_s = time.monotonic()
    over, predict = threading.Event(), policy.predict

    def late_once(*arguments: Any) -> Any:
        over.wait(60.0)
        return predict(*arguments)

    monkeypatch.setattr(policy, "predict", late_once)
    wait_for(lambda: time.monotonic() > received_s + 2 * good["dt_s"])
    late = act(client, REACH_HOME, episode_id="ep", elapsed_rows=0.0).json
    of_good = {"elapsed_rows": 1.0, "previous_request_id": good["request_id"]}
    counted = act(client, REACH_HOME, episode_id="ep", **of_good).json
    monkeypatch.undo()
    over.set()
    skipped = len(good["actions"]) - len(late["actions"])
    assert (late["source"], skipped > 0) == ("last_known_good", True)
    assert counted["actions"][:5] == good["actions"][1:6]  # whatever the clock says
    wait_for(lambda: server.engine.loaded is not None and not server.engine.loaded.deadline.busy)
    of_late = {"elapsed_rows": 2.0, "previous_request_id": counted["request_id"]}
    after = act(client, REACH_HOME, episode_id="ep", **of_late).json
    assert (after["rtc_mode"], after["rtc_previous"]) == ("guided_identity", good["request_id"])
    server.engine.unload()
    [trace] = tmp_path.glob("*.jsonl")
    with TraceReader(trace) as reader:
        [record] = [one for one in reader if one.request_id == after["request_id"]]
    assert record.document["rtc"]["elapsed_rows"] == 1.0 + 2.0


def test_two_policies_that_count_differently_are_both_answered_in_rad_and_m(
    serve: Serve, tmp_path: Path
) -> None:
    """One in degrees, from 0 rad; one in steps of 0.1 rad, whose gripper counts the other way."""
    arm, rows = ["a", "b"], np.arange(robots.ROWS)
    groups = [
        robots.joints("arm", arm),
        robots.gripper("hand", "finger", "parallel_gripper", action="/gripper_cmd"),
    ]
    there = {
        "a": np.degrees(0.2 + 0.01 * rows),
        "b": np.degrees(-0.1 - 0.01 * rows),
        "finger": 1.0 - 0.02 * rows,
    }
    steps = {"a": [0.1] * robots.ROWS, "b": [-0.1] * robots.ROWS, "finger": 2.0 * rows}
    slots = {
        "policy_a": robots.leading(tmp_path / "a", there, [
            {"columns": arm, "mode": "absolute", "unit": "deg"}, {"columns": ["finger"], "gripper": {"open": 1.0, "closed": 0.0}},
        ]),
        "policy_b": robots.leading(tmp_path / "b", steps, [
            {"columns": arm, "mode": "delta", "scale": 0.1}, {"columns": ["finger"], "gripper": {"open": 0.0, "closed": 100.0}},
        ]),
    }  # fmt: skip
    server = serve(
        "act", export_dir="", embodiment="", custom_embodiment_config=str(robots.embodiment(tmp_path / "robot.json", groups)),
        rtc=False, **{name: str(path) for name, path in slots.items()},
    )  # fmt: skip
    image, state = raw(height=24, width=32), [0.21, -0.12, 0.03]
    finger = 0.04 * (1.0 - 0.02 * rows)
    expected = {
        "a": np.stack([0.2 + 0.01 * rows, -0.1 - 0.01 * rows, finger], axis=1),
        "b": np.stack([0.21 + 0.01 * (rows + 1), -0.12 - 0.01 * (rows + 1), finger], axis=1),
    }
    for episode, slot in (("ep_2", "a"), ("ep_1", "b"), ("ep_2", "a")):
        reply = server.client.act(
            {"image": image, "instruction": "pick", "state": state, "episode_id": episode}
        ).json
        assert (reply["policy_slot"], reply["guard_violations"]) == (slot, [])
        np.testing.assert_allclose(reply["actions"], expected[slot], atol=2e-6)
    described = server.client.get("/policies").json["slots"]
    assert described["a"]["policy_units"]["action"] == ["degrees", "degrees", "open to closed"]
    assert described["b"]["action_modes"] == {"a": "delta", "b": "delta"}
    assert described["b"]["relative_actions"] == arm
