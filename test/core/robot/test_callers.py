# SPDX-License-Identifier: Apache-2.0
"""Who asks, and what is held against whom: trips and counts belong to a caller and survive a flood of others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from guarded import COLUMNS, FRANKA, HIGH, MEASURED, MIDDLE, answering, request, rows, spoiled

from reflex_core.errors import ObservationError
from reflex_core.metrics.caller_labels import NAMES_KEPT, OTHER, CallerLabels
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.callers import CALLER_CHARACTERS, caller_from, caller_of, require_robot_id, robot_of
from reflex_core.robot.limits.limits import effective_limits
from reflex_core.robot.limits.safety_config import CLIP
from reflex_core.robot.limits.trips import CallerError, Trips
from reflex_core.values import EPISODE, HOLD, PEER, POLICY, ROS, SESSION, UNKNOWN, Request, Served
from reflex_core.wedges.guard import Guard

OUTSIDE, CLEAN = rows(np.full(7, 50.0, np.float32)), rows(MEASURED)


def request_by(caller: str, episode_id: str | None = None) -> Request:
    return dataclasses.replace(request(episode_id), caller=caller)


def guard_that_trips_after(clamps: int, metrics: Metrics | None = None) -> Guard:
    limits = effective_limits(FRANKA.joint_names, FRANKA, None)
    return Guard(limits, COLUMNS, metrics or Metrics(), "franka", CLIP, clamps)


def clamp(trips: Trips, caller: str, times: int = 1) -> None:
    for _ in range(times):
        trips.count(caller, clamped=True, well=False)


def never(_: Request) -> Served:
    raise AssertionError("inference ran although the caller is tripped")


@pytest.mark.parametrize(
    ("known", "caller"),
    [
        (("arm-1", "s", "ep", "10.0.0.1"), "arm-1"),
        ((None, "s", "ep", "10.0.0.1"), f"{SESSION}s"),
        ((None, None, "ep", "10.0.0.1"), f"{EPISODE}ep"),
        ((None, None, None, "10.0.0.1"), f"{PEER}10.0.0.1"),
        (("", "", "", "::1"), f"{PEER}::1"),
        ((None, None, None, None), UNKNOWN),
        ((None, None, None, "a\nb"), f"{PEER}?"),
    ],
)
def test_a_caller_is_the_robot_it_names_else_its_session_its_episode_or_its_address(
    known: tuple[str | None, str | None, str | None, str | None], caller: str
) -> None:
    assert caller_from(*known) == caller


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("ros", "reserved-robot-id"), ("ROS", "reserved-robot-id"), (" ros ", "reserved-robot-id"),
        ("\uff32\uff2f\uff33", "reserved-robot-id"), ("warehouse-01", "reserved-robot-id"),
        ("episode:ep_1", "reserved-robot-id"), ("peer:10.0.0.1", "reserved-robot-id"),
        ("Session:1", "reserved-robot-id"), ("", "bad-robot-id"), ("  ", "bad-robot-id"),
        ("a\nb", "bad-robot-id"), ("\x00robot", "bad-robot-id"), ("x" * 257, "bad-robot-id"), ("\ud800", "bad-robot-id"),
    ],
)  # fmt: skip
def test_no_name_from_outside_is_that_of_the_robot_here_or_looks_like_something_else(
    name: str, slug: str
) -> None:
    with pytest.raises(ObservationError) as caught:
        require_robot_id(name, "warehouse-01")
    assert caught.value.slug == slug
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["arm-1", "ros2", "Roboter 7", "x" * 256, "episodes"])
def test_any_other_printable_name_is_a_robots(name: str) -> None:
    require_robot_id(name, "warehouse-01")
    assert robot_of(request_by(name)) == name


def test_an_unnamed_request_is_its_episodes_and_a_stamped_one_the_robots_of_this_process() -> None:
    assert caller_of(request("pick")) == f"{EPISODE}pick"
    assert caller_of(request(None)) == UNKNOWN
    stamped = dataclasses.replace(request("pick").observation, stamp_ns=1)
    assert caller_of(dataclasses.replace(request("pick"), observation=stamped)) == ROS
    for caller in (ROS, UNKNOWN, f"{EPISODE}pick", f"{PEER}::1", ""):
        assert robot_of(request_by(caller)) == ""


def test_a_tripped_caller_holds_and_everybody_else_is_served() -> None:
    guard = guard_that_trips_after(3)
    for _ in range(3):
        held = guard(request_by("a"), answering(OUTSIDE))
    assert (held.chunk.source, held.hold_reason) == (HOLD, "guard_tripped")
    assert guard(request_by("a"), never).hold_reason == "guard_tripped"
    for other in ("b", ROS, f"{EPISODE}a", f"{PEER}a"):
        assert guard(request_by(other), answering(CLEAN)).chunk.source == POLICY
    assert not guard.status(ROS).tripped
    assert guard.status("a").tripped
    assert guard.status().tripped_callers == ("a",)


def test_good_chunks_of_others_do_not_keep_a_caller_from_tripping() -> None:
    guard = guard_that_trips_after(10)
    for _ in range(10):
        guard(request_by("a"), answering(OUTSIDE))
        guard(request_by("b"), answering(CLEAN))
    assert guard.status("a").tripped
    assert (guard.status("b").tripped, guard.status("b").consecutive_clamps) == (False, 0)


def test_held_chunks_of_one_and_good_ones_of_another_repeated_trip_the_one() -> None:
    """Nine chunks of A that are not finite, and so held, then one good chunk of B."""
    guard = guard_that_trips_after(10)
    for _ in range(9):
        guard(request_by("a"), answering(spoiled()))
    guard(request_by("b"), answering(CLEAN))
    guard(request_by("a"), answering(spoiled()))
    assert guard.status("a").tripped


def test_a_reset_is_of_one_caller() -> None:
    guard = guard_that_trips_after(1)
    for caller in ("a", "b"):
        guard(request_by(caller), answering(OUTSIDE))
    assert guard.reset("a")
    assert guard.status().tripped_callers == ("b",)
    assert guard(request_by("a"), answering(CLEAN)).chunk.source == POLICY
    assert guard(request_by("b"), never).hold_reason == "guard_tripped"
    with pytest.raises(CallerError, match="no caller 'c' has requested") as caught:
        guard.reset("c")
    assert caught.value.slug == "unknown-caller"


def test_which_caller_a_name_means() -> None:
    trips = Trips(1)
    clamp(trips, f"{EPISODE}pick")
    clamp(trips, f"{PEER}10.0.0.1")
    assert trips.named("pick") == f"{EPISODE}pick"
    assert trips.named("10.0.0.1") == f"{PEER}10.0.0.1"
    assert trips.named(ROS) == ROS
    clamp(trips, "pick")
    assert trips.named("pick") == "pick"
    clamp(trips, f"{SESSION}pick")
    assert trips.named("pick") == "pick"
    with pytest.raises(CallerError):
        trips.named("place")


def test_a_reset_without_a_name_is_for_the_only_one_over_http_and_never_for_the_ros_robot() -> None:
    trips = Trips(1)
    assert trips.only() == ""
    clamp(trips, ROS)
    with pytest.raises(CallerError, match="'ros' is tripped") as caught:
        trips.only()
    assert caught.value.slug == "caller-needed"
    clamp(trips, "a")
    assert trips.only() == "a"
    clamp(trips, "b")
    with pytest.raises(CallerError, match="'ros', 'a', 'b' are tripped"):
        trips.only()


def test_a_flood_of_invented_callers_evicts_neither_trips_nor_the_ros_robot() -> None:
    trips = Trips(3, kept=8)
    clamp(trips, "a", 3)
    clamp(trips, ROS, 2)
    clamp(trips, "b", 2)
    for number in range(100):
        trips.count(f"clean-{number}", clamped=False, well=True)
    assert trips.standing("b").consecutive_clamps == 2, "clean strangers push out no caller who is counted"
    for number in range(100):
        clamp(trips, f"clamped-{number}")
    assert trips.reason("a")
    assert trips.standing(ROS).consecutive_clamps == 2
    assert len(trips.standings()) <= 1 + 8
    clamp(trips, ROS)
    for number in range(100):
        clamp(trips, f"tripped-{number}", 3)
    assert trips.reason("a")
    assert trips.reason(ROS)
    assert len(trips.standings()) <= 1 + 2 * 8


def test_when_too_many_are_tripped_a_stranger_is_held_at_once_and_who_is_known_is_served() -> None:
    trips = Trips(3, kept=4)
    trips.count("known", clamped=False, well=True)
    for number in range(4):
        clamp(trips, f"tripped-{number}", 3)
    assert trips.count("stranger", clamped=True, well=False).reason.startswith("too_many_tripped_callers")
    assert trips.count("stranger", clamped=False, well=True).reason == ""
    assert trips.count("known", clamped=True, well=False).reason == ""
    clamp(trips, ROS, 3)
    assert trips.reason(ROS)
    clamp(trips, "known", 2)
    assert trips.count("known", clamped=True, well=False).reason, "held, though there is no room for its trip"
    assert trips.reset("tripped-0")
    assert trips.count("known", clamped=True, well=False).began


def test_the_first_of_a_row_and_the_trip_are_distinguished() -> None:
    trips = Trips(3)
    found = [trips.count("a", clamped=clamped, well=not clamped) for clamped in (True, True, False, True)]
    assert [one.first for one in found] == [True, False, False, True]
    assert not any(one.began or one.reason for one in found)
    found = [trips.count("a", clamped=True, well=False) for _ in range(3)]
    assert [one.began for one in found] == [False, True, False]
    assert not any(one.first for one in found), "the trip has a line of its own in the log"
    assert found[-1].before == 0, "what was counted before the trip is over with it"
    assert [bool(one.reason) for one in found] == [False, True, True]


def test_a_reset_ends_the_row_of_one_that_is_only_counted() -> None:
    trips = Trips(3)
    clamp(trips, "a", 2)
    assert not trips.reset("a")
    assert trips.standing("a").consecutive_clamps == 0
    clamp(trips, "a", 2)
    assert not trips.reason("a")
    clamp(trips, "a")
    assert trips.reset("a")
    assert not trips.standing("a").tripped
    assert trips.standing("a").consecutive_clamps == 0


def test_as_many_callers_are_kept_of_each_kind_as_are_said() -> None:
    trips = Trips(3, kept=2)
    for caller in ("a", "b"):
        clamp(trips, caller)
    assert [one.caller for one in trips.standings()] == ["a", "b"]
    clamp(trips, "c")
    assert [one.caller for one in trips.standings()] == ["b", "c"]
    clamp(trips, "b", 2)
    clamp(trips, "c", 2)
    assert [one.caller for one in trips.standings() if one.tripped] == ["b", "c"]
    clamp(trips, ROS, 3)
    assert [one.caller for one in trips.standings() if one.tripped] == ["b", "c", ROS]
    for number in range(7):
        trips.count(f"clean-{number}", clamped=False, well=True)
    with pytest.raises(CallerError, match="'b', 'c', 'ros' are tripped"):
        trips.reset("clean-0")
    assert not trips.reset("clean-6")


def test_a_sentence_names_five_callers_at_most() -> None:
    trips = Trips(1)
    for number in range(6):
        clamp(trips, f"arm-{number}")
    with pytest.raises(CallerError, match="'arm-4' and 1 more are tripped"):
        trips.only()
    trips.reset("arm-5")
    with pytest.raises(CallerError, match="'arm-4' are tripped"):
        trips.only()


def test_the_speed_from_the_command_before_is_that_of_the_robot_that_names_itself() -> None:
    """Two robots of one client share an episode: each is compared with its own command, over its episodes."""
    guard = guard_that_trips_after(0)
    here, there = MIDDLE, (MIDDLE + 0.5).astype(np.float32)
    for caller, place in (("a", here), ("b", there)):
        incoming = dataclasses.replace(request("shared", state=place), caller=caller)
        guard(incoming, answering(rows(place), dt_s=3600.0))
    for caller, place in (("a", here), ("b", there)):
        for episode_id in ("shared", "next"):
            incoming = dataclasses.replace(request(episode_id, state=None), caller=caller)
            held = guard(incoming, answering(spoiled(), dt_s=3600.0))
            np.testing.assert_array_equal(held.chunk.actions, rows(place))
    assert (held.chunk.actions <= HIGH).all()


def test_the_tripped_gauge_names_callers_and_is_bounded() -> None:
    metrics = Metrics()
    guard = guard_that_trips_after(1, metrics)

    def shown(caller: str) -> float | None:
        labels = {"embodiment": "franka", "caller": caller}
        return metrics.registry.get_sample_value("reflex_guard_tripped", labels)

    assert shown(ROS) == 0
    guard(request_by("arm-1"), answering(OUTSIDE))
    assert (shown("arm-1"), shown(ROS)) == (1, 0)
    for number in range(NAMES_KEPT + 50):
        guard(request_by(f"invented-{number}"), answering(OUTSIDE))
    assert (shown(OTHER), shown("arm-1")) == (1, 1)
    text = metrics.exposition().decode()
    assert text.count("reflex_guard_tripped{") <= NAMES_KEPT + 2
    guard.reset("arm-1")
    assert shown("arm-1") is None


def test_labels_of_callers_are_bounded_for_ever_and_episodes_share_one() -> None:
    labels = CallerLabels(most=2)
    assert [labels.label(name) for name in ("a", "b", "c", "a", ROS, UNKNOWN)] == [
        "a", "b", OTHER, "a", ROS, UNKNOWN,
    ]  # fmt: skip
    for kind in (EPISODE, SESSION, PEER):
        assert labels.label(f"{kind}x") == kind[:-1]


def test_a_chunk_that_is_counted_anew_replaces_what_it_was_counted_as() -> None:
    trips = Trips(3)
    clamp(trips, "a", 2)
    clean = trips.count("a", clamped=False, well=True)
    assert (clean.before, trips.standing("a").consecutive_clamps) == (2, 0)
    counted = trips.count("a", clamped=True, well=False, before=clean.before)
    assert counted.began
    assert trips.standing("a").consecutive_clamps == 3


def test_only_the_first_clamped_chunk_of_a_row_is_the_first() -> None:
    trips = Trips(9)
    found = [trips.count("a", clamped=clamped, well=not clamped).first for clamped in (False, True, True)]
    assert found == [False, True, False]


def test_a_stranger_is_refused_only_once_as_many_are_tripped_as_are_kept() -> None:
    trips = Trips(1, kept=2)
    for number in range(2):
        assert trips.count(f"tripped-{number}", clamped=True, well=False).began
    assert len(trips.standings()) == 2
    assert trips.reason("tripped-1")
    refused = trips.count("stranger", clamped=True, well=False)
    assert refused.reason.startswith("too_many_tripped_callers: 2 are tripped")
    assert refused.first
    known = Trips(1, kept=2)
    known.count("known", clamped=False, well=True)
    clamp(known, "x")
    clamp(known, "y")
    assert known.count("known", clamped=True, well=False).began
    assert len([one for one in known.standings() if one.tripped]) == 2, "no more are kept than may be"


def test_no_tripped_caller_is_named_where_there_is_none() -> None:
    with pytest.raises(CallerError) as caught:
        Trips(1).reset("nobody")
    assert str(caught.value) == "no caller 'nobody' has requested a chunk"


def test_a_caller_is_in_one_table_only() -> None:
    """Clean, then clamped: a flood of clean ones pushes out callers that are only clean."""
    trips = Trips(3, kept=2)
    trips.count("a", clamped=False, well=True)
    clamp(trips, "a")
    assert "a" not in trips._clean


def test_the_longest_name_that_a_caller_can_have_is_printed_whole() -> None:
    longest = caller_from(None, None, "x" * 256, None)
    assert len(longest) == CALLER_CHARACTERS
    assert caller_from(None, None, None, "1" * 70) == f"{PEER}{'1' * 64}"
