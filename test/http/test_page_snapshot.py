# SPDX-License-Identifier: Apache-2.0
"""What the page remembers and says: events of the guard, the histogram, the big letters, small pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from asking import AT_REST, BEYOND
from http_client import picture
from servers import MakeEngine
from wedge_requests import answer, request

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_core.images.thumbnail import thumbnail
from reflex_core.reports import GuardReport
from reflex_core.values import HOLD, ROS, Frame, Observation
from reflex_ros.node.diagnostics import Finding
from reflex_ros.sidecar.csrf import FOREIGN_ORIGIN, from_elsewhere, is_own_name, refusal
from reflex_ros.sidecar.history import EVENTS, LATENCIES, SECONDS, RequestHistory
from reflex_ros.sidecar.latency_document import BARS, nice_top
from reflex_ros.sidecar.next_steps import STEPS
from reflex_ros.sidecar.operator_words import BAD, GOOD, LEVELS, LOST, STOP, WAIT
from reflex_ros.sidecar.operator_words import HOLD as HELD
from reflex_ros.sidecar.page_snapshot import Snapshots
from reflex_ros.sidecar.robot_access import Robot, RobotSnapshot
from reflex_ros.sidecar.status_summary import status_summary
from reflex_ros.sidecar.thumbnails import LONGEST_SIDE, thumbnails

ACTIVE = RobotSnapshot("active", chunks=1)


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine("calm", embodiment="franka")


def act(engine: Engine, state: Any = AT_REST, **more: Any) -> None:
    pixels = picture()
    frame = Frame(pixels.tobytes(), "rgb8", *pixels.shape[:2])
    observation = Observation({"camera": frame}, np.asarray(state, np.float32), "reach")
    engine.act(engine.request(observation, **more))


def trip(engine: Engine, caller: str) -> None:
    """Ten chunks that begin too far from where the robot is."""
    for number in range(10):
        act(engine, BEYOND, episode_id=f"ep_{number}", caller=caller)
    assert engine.loaded is not None
    assert engine.loaded.guard.status(caller).tripped


def clamped(line: str = "joint1 velocity: 3 > 2 rad/s", **changes: Any) -> Any:
    served = replace(answer(request()), guard=GuardReport(True, 1, (line,)))
    return replace(served, **changes)


def document(
    engine: Engine, history: RequestHistory, snapshot: RobotSnapshot | None = None, *, has_key: bool = True
) -> dict[str, Any]:
    robot = Robot(str, str, lambda: snapshot) if snapshot is not None else None
    return dict(json.loads(Snapshots(engine, history, robot, has_key=has_key, only_stop=False).state()))


def test_the_same_finding_in_a_row_is_one_event() -> None:
    history = RequestHistory()
    for value in (3, 4, 5):
        history(request(), clamped(f"joint1 velocity: {value} > 2 rad/s"))
    history(request(), clamped("joint2 velocity: 9 > 2 rad/s"))
    history(request(), clamped("joint2 velocity: 9 > 2 rad/s", hold_reason="guard_tripped"))
    first, second, third = history.snapshot().events
    assert (first.times, first.violations) == (3, ("joint1 velocity: 5 > 2 rad/s",))
    assert first.last_s >= first.first_s
    assert (second.times, third.hold_reason) == (1, "guard_tripped")


def test_what_is_remembered_is_bounded() -> None:
    history = RequestHistory()
    for number in range(LATENCIES + 10):
        history(request(), clamped(f"joint{number} velocity: 3 > 2 rad/s"))
    seen = history.snapshot()
    assert (len(seen.latencies_ms), len(seen.finished_ns), len(seen.events)) == (LATENCIES, LATENCIES, EVENTS)
    assert seen.counts["answers"] == seen.counts["clamped"] == LATENCIES + 10


def test_a_calm_answer_is_no_event() -> None:
    history = RequestHistory()
    history(request(), answer(request()))
    assert history.snapshot().events == ()


@pytest.mark.parametrize(
    ("value", "top"),
    [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (4.9, 5.0), (51.0, 100.0), (100.0, 100.0), (1201.0, 2000.0)],
)
def test_the_scale_is_round(value: float, top: float) -> None:
    assert nice_top(value) == top


def test_no_latency_falls_out_of_the_histogram(engine: Engine) -> None:
    history = RequestHistory()
    for latency_ms in [10.0] * 500 + [90_000.0]:
        history(request(), replace(answer(request()), latency_ms=latency_ms))
    latency = document(engine, history)["latency"]
    assert len(latency["bars"]) == BARS
    assert sum(latency["bars"]) == latency["count"] == 501
    assert latency["bars"][-1] == 1
    assert latency["max_ms"] == 90_000.0
    assert latency["top_ms"] < 100.0, "one that is far out does not flatten the others"


def test_the_latency_of_every_second_is_shown_and_older_ones_are_forgotten(engine: Engine) -> None:
    history = RequestHistory()
    for latency_ms in (10.0, 30.0):
        history(request(), replace(answer(request()), latency_ms=latency_ms, hold_reason="stale"))
    seconds = document(engine, history)["latency"]["seconds"]
    assert sum(len(second) == 4 for second in seconds) == len(seconds) in (1, 2)
    assert max(second[2] for second in seconds) == 30.0
    assert sum(second[3] for second in seconds) == 2
    if len(seconds) == 1:
        assert seconds[0][1] == 20.0
    for at_s in range(SECONDS + 5):
        history._in_second(answer(request()), 10**7 + at_s)
    assert len(history.snapshot().seconds) == SECONDS
    history._in_second(answer(request()), 10**7)  # of a thread that was late
    assert history.snapshot().seconds[-1].count == 2


def test_events_of_the_guard_come_in_words(engine: Engine) -> None:
    history = RequestHistory()
    history(request(), clamped("panda_joint2 above max: 1.81 > 1.7628"))
    (event,) = document(engine, history)["guard"]["events"]
    assert event["words"][0]["joint"] == "panda_joint2"
    assert "0.047 rad (2.7°) above its upper limit (1.763 rad)" in event["words"][0]["text"]


def test_deadline_and_objective_are_always_inside_the_histogram(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", embodiment="franka", deadline_ms=700.0, slo="p95=900ms", slo_mode="log_only")
    latency = document(engine, RequestHistory())["latency"]
    assert (latency["deadline_ms"], latency["slo"]["threshold_ms"]) == (700.0, 900.0)
    assert latency["top_ms"] >= 900.0


def test_numbers_that_json_does_not_know_become_null(engine: Engine) -> None:
    history = RequestHistory()
    act(engine)
    engine.listen(history)
    act(engine)
    seen = history.snapshot()
    assert seen.answer is not None
    served = seen.answer.served
    actions = served.chunk.actions.copy()
    actions[0, 0], actions[1, 0] = np.nan, np.inf
    history(seen.answer.request, replace(served, chunk=replace(served.chunk, actions=actions)))
    assert document(engine, history)["chunk"]["joints"][0]["rows"][:2] == [None, None]


def test_what_the_model_wanted_is_shown_only_where_it_was_changed(engine: Engine) -> None:
    history = RequestHistory()
    engine.listen(history)
    act(engine)
    assert document(engine, history)["chunk"]["joints"][0]["raw"] is None
    act(engine, [0.02, *AT_REST[1:]], episode_id="other")
    found = document(engine, history)
    assert found["chunk"]["source"] in ("policy", HOLD)
    assert len(found["chunk"]["joints"]) == 7


def test_settings_name_no_folder_of_this_machine(engine: Engine) -> None:
    rows = {row["name"]: row for row in document(engine, RequestHistory())["settings"]}
    assert rows["export_dir"] == {"name": "export_dir", "value": "calm", "live": False}
    assert rows["deadline_ms"]["live"] is True
    assert "api_key_file" not in rows


def test_pictures_come_once_per_inference(engine: Engine) -> None:
    history = RequestHistory()
    engine.listen(history)
    snapshots = Snapshots(engine, history, None, has_key=True, only_stop=False)
    assert snapshots.pictures() is None
    act(engine)
    assert [frame["camera"] for frame in json.loads(snapshots.pictures() or b"")["frames"]] == ["camera"]
    assert snapshots.pictures() is None
    act(engine)
    assert snapshots.pictures() is not None


@pytest.mark.parametrize("encoding", ["jpeg", "png", "rgb8", "mono8"])
def test_every_kind_of_frame_becomes_small(encoding: str) -> None:
    pixels = picture(960, 1280, (180, 180, 180))
    data = {
        "jpeg": lambda: simplejpeg.encode_jpeg(pixels),
        "png": lambda: cv2.imencode(".png", pixels)[1].tobytes(),
        "rgb8": pixels.tobytes,
        "mono8": pixels[:, :, 0].tobytes,
    }[encoding]()
    small = simplejpeg.decode_jpeg(thumbnail(Frame(data, encoding, 960, 1280), LONGEST_SIDE))
    assert small.shape == (360, LONGEST_SIDE, 3)
    assert abs(float(small.mean()) - 180) < 3


def test_a_small_frame_is_not_blown_up_and_a_long_one_keeps_a_row() -> None:
    assert simplejpeg.decode_jpeg(
        thumbnail(Frame(picture(20, 30).tobytes(), "rgb8", 20, 30), LONGEST_SIDE)
    ).shape == (
        20,
        30,
        3,
    )
    assert simplejpeg.decode_jpeg(
        thumbnail(Frame(picture(1, 900).tobytes(), "rgb8", 1, 900), LONGEST_SIDE)
    ).shape[:2] == (
        1,
        LONGEST_SIDE,
    )


def test_a_frame_that_cannot_be_shown_leaves_the_others_alone() -> None:
    def refuse(_: Frame) -> Any:
        raise RuntimeError("the decoder broke")

    good = Frame(picture().tobytes(), "rgb8", 32, 32)
    shown = thumbnails(
        {"torn": Frame(b"\xff\xd8torn", "jpeg"), "odd": replace(good, decoder=refuse), "good": good}
    )
    assert [("problem" in one, "jpeg" in one) for one in shown] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_the_letters_say_ready(engine: Engine) -> None:
    assert (status_summary(engine, None).level, status_summary(engine, None).word) == (GOOD, "READY")
    assert status_summary(engine, ACTIVE).word == "READY"


def test_the_letters_follow_loading(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", ready=False, embodiment="franka")
    assert (status_summary(engine, None).level, status_summary(engine, None).word) == (WAIT, "WAITING")
    assert status_summary(engine, None).sentence == "No policy is loaded yet."
    engine.load()
    assert status_summary(engine, None).todo == "Activate the node."
    refused = status_summary(engine, replace(ACTIVE, refusal="a robot needs an embodiment"))
    assert (refused.level, refused.word, refused.sentence) == (BAD, "FAILED", "a robot needs an embodiment")


def test_the_letters_say_why_it_failed(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", ready=False, embodiment="no-such-robot")
    with pytest.raises(ReflexError):
        engine.load()
    found = status_summary(engine, None)
    assert (found.level, found.word) == (BAD, "FAILED")
    assert "no-such-robot" in found.sentence


def test_without_a_key_no_sentence_names_a_file(make_engine: MakeEngine, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    engine = make_engine("calm", ready=False, embodiment="franka")
    with pytest.raises(ReflexError, match=gone):
        engine.load(replace(engine.settings, export_dir=gone))
    snapshot = replace(
        ACTIVE,
        refusal=f"{gone}/limits.json: no such file",
        problem="not-ready",
        problem_text=f"the policy is not serving: {engine.reason}",
        findings=(Finding("policy", b"\x02", engine.reason, {}),),
    )
    assert json.dumps(document(engine, RequestHistory(), snapshot)).count(gone) == 4, (
        "who has the key reads everything"
    )
    found = document(engine, RequestHistory(), snapshot, has_key=False)
    assert gone not in json.dumps(found)
    assert found["summary"]["sentence"] == "configuration refused, see the log"
    assert found["robot"]["refusal"] == "refused, see the log"
    assert found["robot"]["problem_text"] == "the policy is not serving: configuration refused, see the log"


def test_a_refusal_of_the_node_is_in_the_log_alone_where_there_is_no_key(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", ready=False, embodiment="franka")
    snapshot = replace(ACTIVE, refusal="/home/me/limits.json: no such file")
    assert document(engine, RequestHistory(), snapshot)["summary"]["sentence"] == snapshot.refusal
    hidden = document(engine, RequestHistory(), snapshot, has_key=False)["summary"]
    assert (hidden["word"], hidden["sentence"]) == ("FAILED", "refused, see the log")


@pytest.mark.parametrize(
    ("snapshot", "word", "sentence", "todo"),
    [
        (replace(ACTIVE, stopped=True, hold_reason="stopped"), "STOPPED", "until Resume", "Press Resume"),
        (
            replace(ACTIVE, stopped=True, awaits_goal=True, hold_reason="goal_ended"),
            "WAITING",
            "until a goal",
            "~/run_policy",
        ),
        (
            replace(
                ACTIVE, chunks=4, hold_reason="stale", problem="stale", problem_text="camera is 900 ms old"
            ),
            "HOLDING",
            "Camera is 900 ms old.",
            "the cable",
        ),
        (replace(ACTIVE, hold_reason="guard_tripped"), "HOLDING", "Guard tripped.", "reset the guard"),
        (replace(ACTIVE, hold_reason="brand_new"), "HOLDING", "Brand new.", "the log"),
        (
            replace(
                ACTIVE,
                chunks=0,
                problem="camera_missing",
                problem_text="no image yet",
                hold_reason="camera_missing",
            ),
            "WAITING",
            "No image yet.",
            "the camera's driver",
        ),
        (
            replace(ACTIVE, chunks=4, problem="stale", problem_text="camera is 400 ms old"),
            "WAITING",
            "Camera is 400 ms old.",
            "the cable",
        ),
        (replace(ACTIVE, problem="deadline", problem_text="too slow"), "READY", "Too slow.", "deadline_ms"),
    ],
)
def test_the_letters_say_what_holds_the_robot(
    engine: Engine, snapshot: RobotSnapshot, word: str, sentence: str, todo: str
) -> None:
    found = status_summary(engine, snapshot)
    assert (found.level, found.word) == (LEVELS[word], word)
    assert sentence in found.sentence
    assert todo in found.todo


def test_every_word_has_one_colour_and_those_of_trouble_are_none_of_ready() -> None:
    assert LEVELS == {
        "READY": GOOD, "WAITING": WAIT, "HOLDING": HELD, "STOPPED": STOP, "TRIPPED": BAD, "FAILED": BAD,
        "NO CONNECTION": LOST,
    }  # fmt: skip


def test_a_robot_that_holds_is_ready_in_no_sentence(engine: Engine) -> None:
    """Ready and in trouble at once is what no one can act on."""
    for slug in STEPS:
        for reason in ("", slug):
            snapshot = replace(ACTIVE, chunks=9, problem=slug, problem_text="why", hold_reason=reason)
            found = status_summary(engine, snapshot)
            assert found.todo
            assert (found.word == "READY") == (slug == "deadline" and not reason)


def test_a_dry_run_says_when_it_moves_the_robot(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", embodiment="franka", dry_run=True)
    still, moving = (status_summary(engine, replace(ACTIVE, first_motion=moves)) for moves in (False, True))
    assert [one.notes for one in (still, moving)] == [("DRY RUN",), ("FIRST MOTION",)]
    assert still.sentence.startswith("No robot is commanded")
    assert moving.sentence == "The first motion moves the robot; Stop ends it."


def test_a_tripped_guard_goes_before_a_stop(engine: Engine) -> None:
    trip(engine, ROS)
    found = status_summary(engine, replace(ACTIVE, stopped=True))
    assert (found.level, found.word) == (BAD, "TRIPPED")


def test_a_tripped_stranger_is_named_and_the_robot_is_not_said_to_hold(engine: Engine) -> None:
    trip(engine, "stranger")
    found = status_summary(engine, ACTIVE)
    assert (found.level, found.word) == (GOOD, "READY")
    assert found.notes == ("HELD: stranger",)
    shown = document(engine, RequestHistory(), ACTIVE)["guard"]
    assert (shown["tripped"], shown["consecutive_clamps"]) == (False, 0)
    assert (shown["tripped_callers"], shown["reset_caller"]) == (["stranger"], "stranger")
    trip(engine, ROS)
    shown = document(engine, RequestHistory(), ACTIVE)["guard"]
    assert (shown["tripped"], shown["tripped_callers"], shown["reset_caller"]) == (True, ["stranger"], ROS)


def test_where_no_robot_is_driven_the_letters_name_who_is_held(engine: Engine) -> None:
    trip(engine, "stranger")
    found = status_summary(engine, None)
    assert (found.level, found.word) == (BAD, "TRIPPED")
    assert found.sentence.startswith("Held: stranger: 10 chunks in a row")
    assert document(engine, RequestHistory())["guard"]["tripped"] is True


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8000", True), ("localhost", True), ("[::1]:8000", True), ("192.168.0.7:8000", True),
        ("robot.example", False), ("127.0.0.1.evil.example", False), ("", False), ("[", False),
    ],
)  # fmt: skip
def test_only_addresses_and_localhost_are_own_names(host: str, own: bool) -> None:
    assert is_own_name(host) is own


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"Host": "robot.example"}, False),
        ({"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000"}, False),
        ({"Origin": "http://127.0.0.1:9000", "Host": "127.0.0.1:8000"}, True),
        ({"Origin": "http://evil.example", "Host": "127.0.0.1:8000"}, True),
        ({"Origin": "http://evil.example", "Host": "evil.example"}, True),
        ({"Origin": "null", "Host": "127.0.0.1:8000"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "none"}, False),
    ],
)
def test_whose_request_it_is(headers: dict[str, str], foreign: bool) -> None:
    assert from_elsewhere(headers) is foreign


BROWSER = {"Host": "192.168.0.7:8000", "User-Agent": "Mozilla/5.0"}


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Host": "192.168.0.7:8000", "User-Agent": "curl/8"}, False),
        (BROWSER, True),
        (BROWSER | {"Sec-Fetch-Site": "same-origin"}, False),
        (BROWSER | {"Sec-Fetch-Site": "same-site"}, True),
        (BROWSER | {"X-Reflex-Page": "1"}, False),
        (BROWSER | {"X-Reflex-Page": "1", "Origin": "http://192.168.0.7:9000"}, True),
    ],
)
def test_a_browser_that_does_not_say_who_asks_gets_no_place(headers: dict[str, str], refused: bool) -> None:
    found = refusal("GET", "/events", headers, alone=False)
    assert found == (("foreign-origin", FOREIGN_ORIGIN) if refused else None)
