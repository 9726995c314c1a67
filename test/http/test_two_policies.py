# SPDX-License-Identifier: Apache-2.0
"""Two policies in one server, over HTTP: sharing, draining, healing, changing the split, outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import AT_REST, BEYOND, act, figure
from http_client import Answer, wait_for
from ros_world import REACH_HOME
from servers import ExportDir, MakeEngine, Server

from reflex_core.engine import build
from reflex_core.engine.engine import Engine
from reflex_core.errors import ConfigurationError, InferenceError
from reflex_core.files.share import embedded_policy
from reflex_core.records.audit.chain import audit_files
from reflex_core.records.trace.reader import TraceReader
from reflex_core.slots import memory
from reflex_core.slots.memory import Room
from reflex_core.slots.routing import bucket
from reflex_ros.cli.main import main

A_EPISODES, B_EPISODES = ["ep_2", "req_abc", "0"], ["ep_1", "ep_xyz", "épisode-1"]  # at split 50

Pairs = Callable[..., Server]


@pytest.fixture
def pair(serve: Callable[..., Server], export_dir: ExportDir) -> Pairs:
    """`pair("calm", "calm_raise", split=80)`: a server with both in its slots."""

    def start(a: str = "calm", b: str = "calm", **settings: object) -> Server:
        slots = {"policy_a": str(export_dir(a)), "policy_b": str(export_dir(b)), "rtc": False}
        return serve(a, **(slots | {"max_consecutive_crashes": 2} | settings))

    return start


def change(server: Server, **changes: Any) -> Answer:
    return server.client.ask("POST", "/policies", json.dumps(changes).encode())


def slot_of(server: Server, episode: str, state: list[float] = AT_REST) -> str:
    return act(server.client, state, episode_id=episode).headers["x-reflex-policy-slot"]


def crash(server: Server, episode: str, times: int = 2) -> None:
    for _ in range(times):
        assert act(server.client, BEYOND, episode_id=episode).status == 500


def test_episodes_are_shared_as_their_hashes_say_and_stay_where_they_are(pair: Pairs) -> None:
    server = pair(split=60)
    for episode in (*A_EPISODES, *B_EPISODES):
        expected = "a" if bucket(episode) < 60 else "b"
        assert {slot_of(server, episode) for _ in range(3)} == {expected}


def test_a_reply_says_who_answered_in_headers_and_body(pair: Pairs) -> None:
    server = pair("calm", "calm_raise")
    answer = act(server.client, episode_id="épisode-1")
    assert answer.headers["x-reflex-policy-slot"] == "b"
    assert answer.headers["x-reflex-routing-key"] == "%C3%A9pisode-1"
    assert answer.headers["x-reflex-model-version"] == answer.json["model_version"]
    assert answer.json["policy_slot"] == "b"
    assert answer.json["routing"]["bucket"] == 96
    assert "x-reflex-routing-degraded" not in answer.headers
    assert act(server.client).headers["x-reflex-routing-degraded"] == "true"


def test_each_slot_has_its_own_series(pair: Pairs) -> None:
    server = pair()
    for episode in (*A_EPISODES, B_EPISODES[0]):
        assert act(server.client, episode_id=episode).status == 200
    for slot, count in (("a", 3), ("b", 1)):
        labels = {"policy_slot": slot}
        assert figure(server.client, "reflex_act_latency_seconds_count", **labels) == count
        assert figure(server.client, "reflex_denoise_steps_total", **labels) > 0
        assert figure(server.client, "reflex_in_flight_requests", **labels) == 0


def test_a_slot_that_crashes_is_drained_and_comes_back_by_its_canary(pair: Pairs) -> None:
    server = pair("calm", "calm_raise", breaker_cooldown_s=0.6)
    crash(server, "ep_1")
    assert server.client.get("/policies").json["verdict"] == "drain-b"
    assert server.client.get("/health").status == 200  # a answers for both
    drained = act(server.client, episode_id="ep_xyz")
    assert (drained.headers["x-reflex-policy-slot"], drained.json["routing"]["crash_verdict"]) == (
        "a",
        "drain-b",
    )
    wait_for(lambda: server.client.get("/policies").json["verdict"] == "healthy")
    assert slot_of(server, "ep_xyz") == "a"  # one change of policy is enough for a robot
    assert slot_of(server, "épisode-1") == "b"


def test_a_slot_heals_only_when_it_is_mended(pair: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real graph can be mended in place: the network of slot b is made to fail until it is."""
    server = pair(breaker_cooldown_s=0.1)
    loaded = server.engine.loaded
    assert loaded is not None
    policy, tries = loaded.slots["b"].policy, []

    def broken(*_: object) -> None:
        tries.append(1)
        raise InferenceError("broken")

    monkeypatch.setattr(policy, "predict", broken)
    assert [act(server.client, episode_id="ep_1").status for _ in range(2)] == [500, 500]
    wait_for(lambda: len(tries) >= 5)  # two by requests, the others are probes
    assert server.client.get("/policies").json["verdict"] == "drain-b"
    monkeypatch.undo()
    wait_for(lambda: server.client.get("/policies").json["verdict"] == "healthy")


def test_with_both_slots_out_the_server_is_degraded_until_one_heals(pair: Pairs) -> None:
    server = pair("calm_raise", "calm_raise", breaker_cooldown_s=1.5)
    crash(server, "ep_2")
    crash(server, "ep_1")
    refused = act(server.client, episode_id="ep_2")
    assert (refused.status, refused.json["error"]) == (503, "server-degraded")
    assert int(refused.headers["retry-after"]) >= 1
    health = server.client.get("/health")
    assert (health.status, health.json["state"]) == (503, "degraded")
    assert server.client.get("/policies").json["verdict"] == "degraded"
    wait_for(lambda: server.client.get("/health").status == 200)
    assert act(server.client, episode_id="ep_2").status == 200


def test_one_policy_heals_without_a_request_too(serve: Callable[..., Server]) -> None:
    server = serve("calm_raise", max_consecutive_crashes=2, breaker_cooldown_s=0.5)
    crash(server, "ep_1")
    assert server.client.get("/health").status == 503
    wait_for(lambda: server.client.get("/health").status == 200)


def test_a_new_split_is_for_new_episodes(pair: Pairs) -> None:
    server = pair()
    assert slot_of(server, "ep_1") == "b"
    changed = change(server, split=100, reason="v2 drops cups")
    assert (changed.status, changed.json["split"]) == (200, 100)
    assert changed.json["history"][-1]["reason"] == "v2 drops cups"
    assert slot_of(server, "ep_1") == "b"
    assert slot_of(server, "ep_xyz") == "a"
    assert server.engine.settings.split == 100
    assert figure(server.client, "reflex_policy_split_percent") == 100


def test_promotion_and_rollback_are_at_once_and_need_no_load(pair: Pairs) -> None:
    server = pair()
    loaded = server.engine.loaded
    assert change(server, promote="b").json["split"] == 0
    assert slot_of(server, "ep_2") == "b"
    assert change(server, rollback=True).json["split"] == 50
    assert slot_of(server, "ep_2") == "a"  # a rollback is for the episodes under way too
    assert server.engine.loaded is loaded
    assert figure(server.client, "reflex_model_swaps_total") == 2
    again = change(server, rollback=True)
    assert (again.status, again.json["error"]) == (409, "cannot-swap")


def test_a_drained_slot_cannot_be_promoted(pair: Pairs) -> None:
    server = pair("calm", "calm_raise")
    crash(server, "ep_1")
    refused = change(server, promote="b")
    assert (refused.status, refused.json["error"]) == (409, "cannot-swap")
    assert "drained" in refused.json["message"]


@pytest.mark.parametrize(
    "changes", [{}, {"split": 101}, {"split": "80"}, {"split": 1, "promote": "a"}, {"rollback": False},
              {"promote": "c"}, {"split": 5, "why": 1}, {"split": 5, "reason": "\n"}, {"promote": "a", "running": 1}],
)  # fmt: skip
def test_a_change_that_makes_no_sense_changes_nothing(pair: Pairs, changes: dict[str, Any]) -> None:
    server = pair()
    refused = change(server, **changes)
    assert refused.status in (409, 422)
    assert len(refused.json["message"]) > 20
    after = server.client.get("/policies").json
    assert (after["split"], after["history"]) == (50, [])


def test_a_body_that_is_no_object_is_refused(pair: Pairs) -> None:
    server = pair()
    for body in (b"", b"[]", b"\xff", b'{"split": 1' + b" " * 70_000 + b"}"):
        assert server.client.ask("POST", "/policies", body).status in (413, 422)


def test_a_policy_that_is_clamped_more_than_the_one_before_is_rolled_back(pair: Pairs) -> None:
    server = pair("calm", "wide", max_consecutive_crashes=0)
    for number in range(30):
        act(server.client, episode_id=f"before-{number}")
    change(server, promote="b")
    for number in range(25):
        act(server.client, episode_id=f"after-{number}")
        if server.client.get("/policies").json["split"] != 0:
            break
        server.client.ask("POST", "/guard/reset")
    state = server.client.get("/policies").json
    assert state["split"] == 50
    assert state["history"][-1]["kind"] == "rollback"
    assert "clamp rate" in state["monitor"]["last"]


def test_policies_that_drift_apart_are_rolled_back(pair: Pairs) -> None:
    server = pair("calm", "calm_other", rollback_divergence=1e-7)
    change(server, promote="b")

    def rolled_back() -> bool:
        act(server.client, episode_id="after")
        return bool(server.client.get("/policies").json["split"] == 50)

    wait_for(rolled_back)
    assert "divergence" in server.client.get("/policies").json["monitor"]["last"]


def test_a_slot_that_hangs_is_rolled_back(pair: Pairs) -> None:
    """It never fails, so that its breaker stays closed; but every answer of it is late."""
    server = pair("calm", "calm_burning", deadline_ms=60.0)
    change(server, promote="b")

    def rolled_back() -> bool:
        act(server.client, BEYOND, episode_id="after")
        return bool(server.client.get("/policies").json["split"] == 50)

    wait_for(rolled_back)
    assert "error rate" in server.client.get("/policies").json["monitor"]["last"]


def test_what_answers_without_inference_is_said_of_the_slot_that_was_to_answer(pair: Pairs) -> None:
    """Also while the guard is tripped, and by another slot's chunks."""
    server = pair("calm", "wide", max_consecutive_crashes=0)
    wait_for(
        lambda: act(server.client, episode_id="ep_1", robot_id="arm").json["hold_reason"] == "guard_tripped"
    )
    for episode, slot in (("ep_2", "a"), ("ep_1", "b")):
        held = act(server.client, episode_id=episode, robot_id="arm")
        assert (held.json["hold_reason"], held.json["policy_slot"]) == ("guard_tripped", slot)
        assert held.headers["x-reflex-policy-slot"] == slot
        assert held.headers["x-reflex-routing-key"] == episode
        assert (
            held.headers["x-reflex-model-version"] == server.engine.policies()["slots"][slot]["model_version"]
        )


def test_a_hold_at_the_deadline_is_said_of_the_slot_that_was_to_answer(pair: Pairs) -> None:
    server = pair("calm", "calm_burning", deadline_ms=100.0)
    held = act(server.client, BEYOND, episode_id="ep_1")
    assert (held.json["hold_reason"], held.json["policy_slot"]) == ("deadline", "b")
    assert held.json["routing"]["crash_verdict"] == "healthy"


def test_outcomes_are_counted_for_the_slot_that_drove(pair: Pairs, tmp_path: Path) -> None:
    server = pair(record=str(tmp_path), record_images="none")
    for episode in ("ep_1", "ep/2 ü"):
        act(server.client, episode_id=episode)
    slot = "a" if bucket("ep/2 ü") < 50 else "b"
    kept = server.client.ask(
        "POST", "/episodes/ep_1/outcome", b'{"success": true, "score": 0.5, "note": "ok"}'
    )
    assert (kept.status, kept.json["slot"], kept.json["score"]) == (200, "b", 0.5)
    kept = server.client.ask("POST", "/episodes/ep%2F2%20%C3%BC/outcome", b'{"success": false}')
    assert (kept.status, kept.json["episode_id"], kept.json["slot"]) == (200, "ep/2 ü", slot)
    assert figure(server.client, "reflex_episode_outcomes_total", success="true", policy_slot="b") == 1
    slots = server.client.get("/policies").json["slots"]
    assert sum(one["episodes"] for one in slots.values()) == 2
    server.engine.unload()
    [trace] = tmp_path.iterdir()
    with TraceReader(trace) as reader:
        assert [policy["slot"] for policy in reader.header["policies"]] == ["a", "b"]
        written = list(reader.documents())
    assert [record["kind"] for record in written] == ["request", "request", "outcome", "outcome", "footer"]
    assert written[0]["routing"]["slot"] == "b"
    with TraceReader(trace) as reader:
        assert len(list(reader)) == 2
        assert (reader.warnings, reader.damage) == ([], [])


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"success": 1}', b'{"success": true, "score": "much"}', b"[", b'{"success": true, "x": 1}'],
)
def test_an_outcome_that_says_nothing_is_refused(pair: Pairs, body: bytes) -> None:
    server = pair()
    assert server.client.ask("POST", "/episodes/ep_1/outcome", body).status == 422
    assert server.client.get("/policies").json["slots"]["b"]["episodes"] == 0


def test_changes_are_in_the_audit_log(pair: Pairs, tmp_path: Path) -> None:
    server = pair(audit_log=str(tmp_path))
    change(server, split=5, reason="rollout")
    server.engine.unload()
    lines = [json.loads(line) for path in audit_files(tmp_path) for line in path.read_text().splitlines()]
    [swap] = [line for line in lines if line.get("event") == "policy-swap"]
    assert (swap["kind"], swap["change"], swap["to_split"], swap["by"]) == ("event", "split", 5, "http")


def test_the_report_reads_what_two_policies_have_recorded(
    pair: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = pair("calm", "calm_other", record=str(tmp_path), record_images="none", split=60)
    for number in range(40):
        act(server.client, episode_id=f"ep_{number}")
        succeeded = b"true" if number % 4 else b"false"
        server.client.ask("POST", f"/episodes/ep_{number}/outcome", b'{"success": ' + succeeded + b"}")
    server.engine.unload()
    assert main(["ab", "report", str(tmp_path), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    of_a = sum(bucket(f"ep_{number}") < 60 for number in range(40))
    assert [report["slots"][slot]["episodes"] for slot in "ab"] == [of_a, 40 - of_a]
    assert sum(report["slots"][slot]["successes"] for slot in "ab") == 30


def test_where_there_is_one_policy_there_is_nothing_to_change(serve: Callable[..., Server]) -> None:
    server = serve("calm")
    refused = change(server, split=10)
    assert (refused.status, refused.json["error"]) == (409, "single-policy")
    assert server.client.get("/policies").json["mode"] == "single"
    assert "x-reflex-policy-slot" not in act(server.client, episode_id="ep_1").headers


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"policy_a": "calm"}, "--policy-b"),
        ({"policy_b": "calm"}, "--policy-a"),
        ({"policy_a": "calm", "policy_b": "calm"}, "--no-rtc"),
        ({"policy_a": "calm", "policy_b": "calm", "rtc": False, "shadow_policy": "calm"}, "--shadow-policy"),
        (
            {"policy_a": "calm", "policy_b": "calm", "rtc": False, "a2c2_checkpoint": "calm"},
            "--a2c2-checkpoint",
        ),
        ({"policy_a": "calm_raise", "policy_b": "calm", "rtc": False}, "is not --policy-a"),
        ({"policy_a": "calm", "policy_b": "expert_stack", "rtc": False}, "another robot"),
        ({"split": 80}, "--policy-a"),
    ],
)
def test_every_wrong_combination_is_one_sentence(
    make_engine: MakeEngine, export_dir: ExportDir, settings: dict[str, Any], says: str
) -> None:
    named = {
        key: str(export_dir(value)) if isinstance(value, str) else value for key, value in settings.items()
    }
    engine = make_engine("calm", ready=False, **named)
    with pytest.raises(ConfigurationError, match=says) as caught:
        engine.load()
    assert "\n" not in str(caught.value)
    assert engine.state == "failed"


def test_two_policies_that_do_not_fit_are_refused_before_they_are_loaded(
    make_engine: MakeEngine, export_dir: ExportDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe alone is replaced: no test machine has exactly one policy's room to spare."""
    monkeypatch.setattr(memory, "free_room", lambda _: Room(600 << 20, memory.MEMORY))
    monkeypatch.setattr(
        build, "load", lambda *_: pytest.fail("a policy was loaded before it was known to fit")
    )
    path = str(export_dir("calm"))
    engine = make_engine("calm", ready=False, policy_a=path, policy_b=path, rtc=False)
    with pytest.raises(ConfigurationError, match="2-policy mode requires 0.5 GB memory but only 0.4 GB"):
        engine.load()
    monkeypatch.undo()
    monkeypatch.setattr(memory, "free_room", lambda _: pytest.fail("one policy is never asked for its room"))
    single: Engine = make_engine("calm", ready=False)
    single.load()


def test_a_shadow_sees_the_same_and_touches_nothing(
    serve: Callable[..., Server], export_dir: ExportDir, tmp_path: Path
) -> None:
    server = serve("calm", shadow_policy=str(export_dir("calm_other")), record=str(tmp_path))
    for _ in range(3):
        assert act(server.client, episode_id="ep_1").status == 200
        wait_for(lambda: server.client.get("/policies").json["shadow"]["compared"] > 0)
    assert figure(server.client, "reflex_shadow_compared_total") >= 1
    assert figure(server.client, "reflex_shadow_divergence_sum", joint="panda_joint1") > 0
    server.engine.unload()
    [trace] = tmp_path.iterdir()
    with TraceReader(trace) as reader:
        kinds = Counter(record["kind"] for record in reader.documents())
    assert kinds["shadow"] >= 1
    assert kinds["request"] == 3


def test_a_shadow_of_the_same_export_does_the_same_guided_or_not(serve: Callable[..., Server]) -> None:
    server = serve(
        "calm", export_dir=str(embedded_policy()), shadow_policy=str(embedded_policy()), embodiment=""
    )
    for number in range(3):
        reply = act(server.client, REACH_HOME, episode_id="ep_1", elapsed_rows=10.0)
        wait_for(lambda: server.client.get("/policies").json["shadow"]["compared"] > number)  # noqa: B023
    assert reply.json["rtc_mode"] == "guided_identity"
    assert (
        figure(server.client, "reflex_shadow_divergence_sum") < 1e-5
    )  # what guides is read back from radians


def test_a_shadow_that_fails_is_counted_alone(serve: Callable[..., Server], export_dir: ExportDir) -> None:
    server = serve("calm", shadow_policy=str(export_dir("calm_raise")), max_consecutive_crashes=1)
    assert act(server.client, BEYOND, episode_id="ep_1").status == 200
    wait_for(lambda: server.client.get("/policies").json["shadow"]["failed"] == 1)
    assert (server.client.get("/health").status, act(server.client).status) == (200, 200)
    assert figure(server.client, "reflex_act_errors_total") == 0
