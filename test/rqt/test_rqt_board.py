# SPDX-License-Identifier: Apache-2.0
"""What the panel remembers of what a node says."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from panel_messages import JOINTS, chunk, diagnosed, status
from reflex_ros.msg import ActionChunk

from reflex_ros.rqt.board import EVENTS_KEPT, SECONDS_KEPT, SILENT_AFTER_S, Board, wanted_of
from reflex_ros.rqt.panel_view import Picture


def board() -> Board:
    return Board("/cell/reflex")


def test_a_node_that_was_never_heard_has_no_state() -> None:
    view = board().view(100.0)
    assert (view.node, view.state, view.heard) == ("/cell/reflex", "no answer", False)
    assert view.chunk is None
    assert view.split is None


def test_the_newest_status_is_shown() -> None:
    found = board()
    found.status(status(state="warming"), 1.0)
    found.status(status(stopped=True, guard_tripped=True, slo_violated=True, instruction="reach"), 2.0)
    view = found.view(2.5)
    figures = view.figures
    assert (view.state, view.heard, figures.stopped, figures.guard_tripped, figures.slo_violated) == (
        "ready",
        *[True] * 4,
    )
    assert (figures.p50_ms, figures.p99_ms) == (20.0, 40.0)
    assert (figures.instruction, figures.errors) == ("reach", 0)


def test_the_hold_reason_counts_only_while_the_robot_holds() -> None:
    found = board()
    found.status(status(holding=True, hold_reason="deadline"), 0.0)
    assert found.view(0.0).figures.hold_reason == "deadline"
    found.status(status(holding=False, hold_reason="deadline"), 0.0)
    assert found.view(0.0).figures.hold_reason == ""


def test_a_node_that_falls_silent_has_no_state_any_more() -> None:
    found = board()
    found.status(status(), 10.0)
    found.diagnostics(diagnosed("guard"), 10.0)
    late = found.view(10.0 + SILENT_AFTER_S + 0.1)
    assert (late.heard, late.state) == (False, "no answer")
    assert [concern.level for concern in late.concerns] == [3], "what it said before is stale"
    found.diagnostics(diagnosed("guard"), 20.0)
    assert found.view(20.0).heard, "any sign of life counts"


@pytest.mark.parametrize("horizon", [10, 7])
def test_a_chunk_is_a_sign_of_life_even_one_that_cannot_be_drawn(horizon: int) -> None:
    found, came = board(), chunk(10)
    came.horizon = horizon
    found.chunk(came, 20.0)
    assert (found.view(20.0).heard, found.view(20.0).state) == (True, "no status")
    assert not found.view(20.0 + SILENT_AFTER_S + 0.1).heard
    found.status(status(), 30.0)
    found.chunk(came, 40.0)
    assert (found.view(40.0).heard, found.view(40.0).state) == (True, "ready")


def test_a_chunk_is_rows_by_joint_and_knows_where_it_is() -> None:
    found = board()
    found.chunk(chunk(10, start_index=2), 5.0)
    shown = found.view(5.0).chunk
    assert shown is not None
    assert shown.names == tuple(JOINTS)
    assert shown.rows.shape == (10, 3)
    assert shown.rows[9, 2] == pytest.approx(1.0)
    assert shown.row_at(5.0) == pytest.approx(2.0)
    assert shown.row_at(5.1) == pytest.approx(4.0)
    assert shown.row_at(99.0) == pytest.approx(9.0), "it ends at its last row"


@pytest.mark.parametrize("fields", [{"horizon": 7}, {"action_dim": 4}, {"names": ["one"]}])
def test_a_chunk_that_contradicts_itself_is_said_and_not_drawn(fields: dict[str, object]) -> None:
    found, broken = board(), chunk(10)
    for name, value in fields.items():
        setattr(broken, name, value)
    found.chunk(broken, 0.0)
    view = found.view(0.0)
    assert view.chunk is None
    assert not view.notice_ok
    assert "not drawn" in view.notice


def test_latencies_are_kept_with_where_they_came_from() -> None:
    found = board()
    for at, source in enumerate((ActionChunk.SOURCE_POLICY, ActionChunk.SOURCE_LAST_KNOWN_GOOD)):
        found.chunk(chunk(source=source, latency_ms=30.0 + at), float(at))
    assert [(s.at_s, s.mean_ms, s.odd) for s in found.view(2.0).seconds] == [
        (0, 30.0, ""),
        (1, 31.0, "last known good"),
    ]


def test_the_chunks_of_a_second_are_one_entry_with_its_fastest_and_slowest() -> None:
    found = board()
    for at_s, latency_ms in ((4.0, 30.0), (4.3, 10.0), (4.9, 50.0), (5.0, 20.0)):
        found.chunk(chunk(latency_ms=latency_ms), at_s)
    first, second = found.view(5.0).seconds
    assert (first.at_s, first.count, first.least_ms, first.most_ms, first.mean_ms) == (4, 3, 10.0, 50.0, 30.0)
    assert (second.at_s, second.count) == (5, 1)


def test_a_hold_without_inference_is_a_chunk_but_no_latency() -> None:
    found = board()
    found.chunk(chunk(1, source=ActionChunk.SOURCE_HOLD, latency_ms=0.0), 0.0)
    view = found.view(0.0)
    assert view.chunk is not None
    assert view.chunk.source == "hold"
    assert (view.seconds, view.slots) == ((), ())


def test_memory_is_bounded() -> None:
    found = board()
    for number in range(SECONDS_KEPT + EVENTS_KEPT):
        found.chunk(chunk(2, guard_violations=[f"joint{number} above max: 1 > 0"]), float(number))
    view = found.view(0.0)
    assert (len(view.seconds), len(view.events)) == (SECONDS_KEPT, EVENTS_KEPT)


def test_violations_come_newest_first_and_repetitions_are_counted() -> None:
    found = board()
    found.chunk(chunk(guard_violations=["elbow above max: 1.2 > 1"], chunk_id=4), 1.0)
    found.chunk(chunk(guard_violations=["elbow above max: 1.3 > 1"], chunk_id=5), 2.0)
    found.chunk(chunk(guard_violations=["wrist velocity: 3 > 2 rad/s"], chunk_id=6), 3.0)
    newest, before = found.view(3.0).events
    assert (newest.line, newest.chunk_id, newest.count) == ("wrist velocity: 3 > 2 rad/s", 6, 1)
    assert (before.line, before.chunk_id, before.count, before.at_s) == (
        "elbow above max: 1.3 > 1",
        5,
        2,
        2.0,
    )


def test_each_slot_has_its_own_figures() -> None:
    found = board()
    for slot, latency_ms in (("b", 50.0), ("a", 10.0), ("a", 20.0), ("a", 30.0)):
        found.chunk(chunk(policy_slot=slot, model_version=f"model-{slot}", latency_ms=latency_ms), 0.0)
    slots = found.view(0.0).slots
    assert [(s.name, s.model_version, s.chunks, s.median_ms) for s in slots] == [
        ("a", "model-a", 3, 20.0),
        ("b", "model-b", 1, 50.0),
    ]


def test_the_limits_come_from_the_guards_diagnostic() -> None:
    found = board()
    found.diagnostics(diagnosed("guard", elbow_range="-2.9 to 2.9 rad", mode="clip"), 0.0)
    assert found.view(0.0).ranges == {"elbow": (-2.9, 2.9)}
    found.diagnostics(diagnosed("timing", elbow_range="0 to 1"), 0.0)
    assert found.view(0.0).ranges == {"elbow": (-2.9, 2.9)}, "no other concern sets them"


def test_another_node_and_another_robot_are_passed_over() -> None:
    found = board()
    found.status(status(robot_id="arm7"), 0.0)
    other = diagnosed("guard")
    other.status[0].name = "motors: guard"
    found.diagnostics(other, 50.0)
    found.diagnostics(diagnosed("guard", robot="arm8"), 50.0)
    view = found.view(50.0)
    assert (view.concerns, view.heard) == ((), False)
    found.diagnostics(diagnosed("guard", b"\x02"), 50.0)
    assert [(each.name, each.level, each.message) for each in found.view(50.0).concerns] == [
        ("guard", 2, "guard says")
    ]


def test_deadline_and_objective_are_lines_only_when_they_are_set() -> None:
    found = board()
    found.parameters({"deadline_ms": 0.0, "slo": ""})
    assert (found.view(0.0).deadline_ms, found.view(0.0).slo_ms) == (None, None)
    found.parameters({"deadline_ms": 150.0, "slo": "p99=120ms"})
    view = found.view(0.0)
    assert (view.deadline_ms, view.slo, view.slo_ms) == (150.0, "p99=120ms", 120.0)
    found.parameters({"deadline_ms": 150.0, "slo": "fast"})
    assert found.view(0.0).slo_ms is None


def test_there_is_a_split_only_where_there_are_two_policies() -> None:
    found = board()
    found.status(status(split_percent=30), 0.0)
    assert found.view(0.0).split is None
    found.parameters({"policy_b": ""})
    assert found.view(0.0).split is None
    found.parameters({"policy_b": "/exports/new"})
    assert found.view(0.0).split == 30
    found.status(status(split_percent=0), 0.0)
    assert found.view(0.0).split == 0, "as it is now, whatever changed it"


def test_guidance_and_cache_are_shown_where_there_is_something_to_show() -> None:
    found = board()
    found.status(status(), 0.0)
    assert found.view(0.0).figures.guided == 0
    figures = {"rtc_mode": "prefix", "rtc_guided_total": 3, "cache_hits_total": 4, "cache_misses_total": 1}
    found.status(status(**figures), 0.0)
    shown = found.view(0.0).figures
    assert (shown.guided, shown.cache_hits, shown.cache_misses) == (3, 4, 1)


def test_a_view_does_not_change_while_the_board_goes_on() -> None:
    found = board()
    found.chunk(chunk(), 0.0)
    before = found.view(0.0)
    found.chunk(chunk(guard_violations=["elbow above max: 2 > 1"]), 1.0)
    assert (len(before.seconds), len(before.events)) == (1, 0)


def test_two_threads_may_write_and_read_at_once() -> None:
    found, stop = board(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            found.status(status(), 0.0)
            found.chunk(chunk(guard_violations=["elbow above max: 2 > 1"]), 0.0)
            found.diagnostics(diagnosed("guard"), 0.0)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            view = found.view(0.0)
            assert sum(slot.chunks for slot in view.slots) >= sum(second.count for second in view.seconds)
            assert view.chunk is None or np.isfinite(view.chunk.rows).all()
    finally:
        stop.set()
        writer.join()


def test_a_violation_is_kept_in_words_with_what_to_do() -> None:
    found = board()
    found.diagnostics(diagnosed("guard", elbow_range="-1 to 1 rad"), 0.0)
    found.chunk(chunk(guard_violations=["elbow above max: 1.25 > 1"]), 1.0)
    [event] = found.view(1.0).events
    assert "elbow" in event.text
    assert "0.25 rad" in event.text
    assert "upper limit" in event.text
    assert event.advice


def test_two_joints_that_take_turns_are_two_events_that_count() -> None:
    found = board()
    for number in range(5):
        lines = ["elbow above max: 1.2 > 1", "wrist velocity: 3 > 2 rad/s"]
        found.chunk(chunk(guard_violations=lines, chunk_id=number), float(number))
    assert [(event.line, event.count) for event in found.view(5.0).events] == [(line, 5) for line in lines]


def test_the_first_line_of_a_chunk_is_the_newest_event() -> None:
    found = board()
    found.chunk(
        chunk(guard_violations=["guard_tripped: too often: holding position", "elbow above max: 2 > 1"]), 1.0
    )
    assert [event.line.partition(":")[0] for event in found.view(1.0).events] == [
        "guard_tripped",
        "elbow above max",
    ]


def test_what_was_wanted_of_a_joint_is_read_from_the_violations() -> None:
    lines = [
        "elbow above max: 1.25 > 1",
        "wrist below min: -3e-1 < 0 per second",
        "wrist velocity: 3 > 2 rad/s",
    ]
    assert wanted_of(lines) == {"elbow": 1.25, "wrist": -0.3}
    assert wanted_of(["elbow above max: inf > 1", "non_finite_action: 3 values"]) == {}


def test_the_topics_are_those_that_the_node_subscribes_to_now() -> None:
    found = board()
    found.status(status(), 0.0)
    streams = {"front": "/front/image_raw", "state": "/joint_states", "instruction": "/instruction"}
    both = diagnosed("policy")
    both.status += diagnosed("connections", **streams).status
    found.diagnostics(both, 0.0)
    assert found.view(0.0).topics == streams
    assert found.view(0.0).cameras == {"front": "/front/image_raw"}
    found.diagnostics(diagnosed("policy"), 1.0)
    assert found.view(1.0).topics == {}, "it is not active any more"
    assert found.view(1.0).concern("connections") is None


def test_the_newest_picture_of_each_camera_is_kept() -> None:
    found, pixels = board(), np.zeros((2, 2, 3), np.uint8)
    for camera, at_s in (("wrist", 1.0), ("front", 2.0), ("wrist", 3.0)):
        found.picture(Picture(camera, pixels, at_s))
    assert [(each.camera, each.at_s) for each in found.view(3.0).pictures] == [("front", 2.0), ("wrist", 3.0)]
