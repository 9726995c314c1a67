# SPDX-License-Identifier: Apache-2.0
"""--safety-config and --audit-log through the server: what is repaired, what trips, who may reset, what is on record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import AT_REST, act, figure, safety_file
from http_client import good
from numpy.typing import NDArray
from repository import ROOT
from servers import Server

from reflex_ros.cli.audit import UNPROVEN
from reflex_ros.cli.main import main

Serve = Callable[..., Server]

EMBODIMENTS = ROOT / "test" / "fixtures" / "embodiments_v1"
SEED = 3
KEY = "a-key-of-this-test"
TIGHT = {
    "velocity_max": [1.0] * 7,
    "max_consecutive_clamps": 3,
}  # the export's rows are noise: each breaks it


@pytest.fixture
def guarded(serve: Serve, tmp_path: Path) -> Callable[..., Server]:
    """`guarded(mode="reject", robot_id="a")`: a server whose chunks leave the ranges of its safety file."""

    def start(mode: str = "clip", **settings: object) -> Server:
        return serve("mono_pi0_7", safety_config=safety_file(tmp_path, mode=mode, **TIGHT), **settings)

    return start


def actions(answer: Any) -> NDArray[np.float64]:
    """(horizon, 7) of a reply."""
    return np.asarray(answer.json["actions"])


def unguarded(serve: Serve) -> NDArray[np.float64]:
    """What the network gives for SEED: a server without an embodiment has no limits."""
    return actions(act(serve("mono_pi0_7", embodiment="").client, seed=SEED))


def test_a_violation_names_joint_bound_value_and_limit(guarded: Any, serve: Serve) -> None:
    reply = act(guarded().client, seed=SEED).json
    raw = unguarded(serve)
    assert reply["guard_clamped"] is True
    assert f"panda_joint1 below min: {raw[:, 0].min():g} < -0.3" in reply["guard_violations"]
    assert f"panda_joint1 above max: {raw[:, 0].max():g} > 0.3" in reply["guard_violations"]
    speeds = [
        re.fullmatch(r"panda_joint\d velocity: (\S+) > 1 rad/s", line) for line in reply["guard_violations"]
    ]
    assert all(float(found[1]) > 1.0 for found in speeds if found)
    assert any(speeds)
    assert reply["guard_summary"]["clamp_count"] > 0


@pytest.mark.parametrize("mode", ["clip", "scale"])
def test_what_is_served_keeps_every_limit(guarded: Any, mode: str) -> None:
    served = actions(act(guarded(mode).client, seed=SEED))
    assert (np.abs(served - AT_REST) <= 0.3 + 1e-6).all()
    steps = np.diff(np.vstack([AT_REST, served]), axis=0)
    assert (np.abs(steps) <= 1.0 * 0.05 + 1e-6).all()


def test_scale_keeps_the_direction_that_clip_does_not(guarded: Any, serve: Serve) -> None:
    meant = unguarded(serve)[0] - AT_REST
    kept = {
        mode: (actions(act(guarded(mode).client, seed=SEED))[0] - AT_REST) / meant
        for mode in ("scale", "clip")
    }
    np.testing.assert_allclose(kept["scale"], kept["scale"][0], rtol=1e-2)
    assert np.ptp(kept["clip"]) > 0.1


def test_reject_changes_nothing_and_holds(guarded: Any) -> None:
    answer = act(guarded("reject").client, seed=SEED)
    assert (answer.json["source"], answer.json["hold_reason"]) == ("hold", "rejected")
    np.testing.assert_allclose(actions(answer), [AT_REST] * 50, rtol=1e-6)


def test_after_too_many_clamped_chunks_it_holds_without_inference_until_it_is_reset(guarded: Any) -> None:
    client = guarded().client
    assert [act(client).json["source"] for _ in range(3)] == ["policy", "policy", "hold"]
    steps, examined = (
        figure(client, "reflex_denoise_steps_total"),
        client.get("/guard/status").json["inference_count"],
    )
    for _ in range(3):
        reply = act(client).json
        assert (reply["source"], reply["hold_reason"], reply["denoising_steps"]) == (
            "hold",
            "guard_tripped",
            0,
        )
        assert reply["guard_violations"][0].startswith(
            "guard_tripped: consecutive_clamp_limit_exceeded: 3 chunks"
        )
        np.testing.assert_allclose(reply["actions"], [AT_REST] * 50, rtol=1e-6)
    assert figure(client, "reflex_denoise_steps_total") == steps
    status = client.get("/guard/status").json
    assert (status["enabled"], status["tripped"], status["inference_count"]) == (True, True, examined)
    assert (status["consecutive_clamps"], status["max_consecutive_clamps"]) == (3, 3)
    assert "3 chunks in a row" in status["trip_reason"]
    mistaken = act(client, AT_REST[:5])
    assert (mistaken.status, mistaken.json["error"]) == (422, "state-length")
    assert "must be 7 numbers" in mistaken.json["message"]
    for _ in range(2):
        without = act(client, None)
        assert (without.status, without.json["error"]) == (422, "missing-state")
    assert client.get("/health").json["guard_tripped"] is True
    assert client.ask("POST", "/guard/reset").json == {"reset": True, "was_tripped": True}
    assert client.get("/guard/status").json["tripped"] is False
    assert act(client).json["source"] == "policy"


def test_only_who_holds_the_key_resets_the_guard(guarded: Any, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    client = guarded(api_key_file=str(key_file)).client
    body = json.dumps(good(state=AT_REST)).encode()
    for _ in range(3):
        assert client.ask("POST", "/act", body, X_Reflex_Key=KEY).status == 200
    for headers in ({}, {"X_Reflex_Key": "guess"}, {"Authorization": "Bearer guess"}):
        assert client.ask("POST", "/guard/reset", **headers).status == 401
        assert client.get("/guard/status", **headers).status == 401
    assert client.get("/guard/status", X_Reflex_Key=KEY).json["tripped"] is True
    assert client.ask("POST", "/guard/reset", Authorization=f"Bearer {KEY}").json["was_tripped"] is True
    assert client.get("/guard/status", X_Reflex_Key=KEY).json["tripped"] is False


def test_without_a_policy_there_is_no_guard_to_reset(serve: Serve) -> None:
    client = serve("calm", ready=False).client
    assert client.get("/guard/status").json == {"enabled": False}
    assert (client.ask("POST", "/guard/reset").status, client.ask("POST", "/guard/reset").json["error"]) == (
        400,
        "guard_not_enabled",
    )


def test_the_audit_log_has_every_answer_and_the_reset_and_verifies(
    guarded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit"
    server = guarded(audit_log=str(log))
    assert server.client.act(request_id="r-bad", state=[0.0] * 5).status == 422
    replies = [act(server.client, request_id=f"r-{number}", episode_id="ep_1").json for number in range(4)]
    server.client.ask("POST", "/guard/reset")
    server.engine.unload()
    assert main(["audit", "verify", str(log)]) == UNPROVEN
    assert capsys.readouterr().out.startswith("whole: ")
    [file] = log.glob("audit_*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    acts = [record for record in records if record["kind"] == "act"]
    assert [record["request_id"] for record in acts] == [f"r-{number}" for number in range(4)]
    for record, answer in zip(acts, replies, strict=True):
        assert (record["source"], record["clamped"]) == (answer["source"], answer["guard_clamped"])
        np.testing.assert_allclose(record["actions_safe"], answer["actions"], rtol=1e-6)
        assert (record["model_hash"], record["robot_id"]) == (answer["model_hash"], "arm7")
    assert acts[0]["violations"] == replies[0]["guard_violations"]
    assert acts[0]["actions_raw"] is not None
    assert [record["error"]["slug"] for record in records if record["kind"] == "error"] == ["state-length"]
    [reset] = [record for record in records if record.get("event") == "guard-reset"]
    assert reset["was_tripped"] is True


def test_a_gripper_that_saturates_does_not_trip(serve: Serve, tmp_path: Path) -> None:
    """The last joint as a gripper: the policy rests just beyond its end, a hundred chunks long."""
    document = json.loads((EMBODIMENTS / "franka.json").read_text())
    space, norm = document["action_space"], document["normalization"]
    rest = AT_REST[-1]
    space["dim"] = 7
    space["ranges"] = [*space["ranges"][:6], [rest - 0.0515, rest - 0.0015]]
    document["joint_names"] = [*document["joint_names"][:6], "panda_joint7"]
    document["gripper"] = {"component_idx": 6}
    document["embodiment"] = "custom"
    for block in ("mean_action", "std_action", "mean_state", "std_state"):
        norm[block] = norm[block][:7]
    del document["velocity_max"]
    document.pop("acceleration_max", None)
    path = tmp_path / "robot.json"
    for tolerance, tripped in ((0.5, False), (0.0, True)):
        document["gripper"]["saturation_tolerance"] = tolerance
        path.write_text(json.dumps(document))
        client = serve("calm", embodiment="", custom_embodiment_config=str(path)).client
        for _ in range(100 if not tripped else 10):
            reply = act(client).json
        assert (reply["hold_reason"] == "guard_tripped") is tripped
        assert reply["guard_clamped"] is tripped
        assert max(row[6] for row in reply["actions"]) <= rest - 0.0015 + 1e-6
        assert client.get("/guard/status").json["tripped"] is tripped
