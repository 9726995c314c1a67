# SPDX-License-Identifier: Apache-2.0
"""Routing: which slot an episode gets, and that it keeps it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from recordings import make_request, served
from repository import ROOT

from reflex_core.reports import RoutingReport
from reflex_core.slots import routing
from reflex_core.slots.routing import A, B, Routing, bucket, slot_of
from reflex_core.slots.routing_headers import header_text, routing_headers

VECTORS = {
    "ep_1": 55, "ep_2": 34, "ep_xyz": 77, "ep_abc": 50, "req_abc": 24, "req_42": 20, "a": 50, "0": 40, "": 52,
    "épisode-1": 96, "x" * 200: 44,
}  # fmt: skip


class Dial:
    """A split that the test turns."""

    def __init__(self, split: int = 80) -> None:
        self.split = split

    def __call__(self) -> int:
        return self.split


@pytest.fixture
def dial() -> Dial:
    return Dial()


@pytest.mark.parametrize(("key", "number"), VECTORS.items())
def test_a_key_has_the_bucket_that_others_compute(key: str, number: int) -> None:
    assert bucket(key) == number


def test_another_process_finds_the_same_buckets() -> None:
    program = (
        "import json,sys;from reflex_core.slots.routing import bucket;"
        "print(json.dumps([bucket(k) for k in json.load(sys.stdin)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, input=json.dumps(list(VECTORS)), text=True,
        capture_output=True, check=True, timeout=60, env={"PYTHONHASHSEED": "12345"},
    )  # fmt: skip
    assert json.loads(done.stdout) == list(VECTORS.values())


def test_split_0_sends_all_to_b_and_100_all_to_a() -> None:
    assert {slot_of(number, 0) for number in range(100)} == {B}
    assert {slot_of(number, 100) for number in range(100)} == {A}
    assert (slot_of(bucket("ep_2"), 50), slot_of(bucket("ep_abc"), 50)) == (A, B)


def test_ten_thousand_episodes_split_80_to_20(dial: Dial) -> None:
    found = Routing(dial)
    to_a = sum(found.decide(f"arm7-{number}", "r").slot == A for number in range(10_000))
    assert abs(to_a - 8000) < 4 * (10_000 * 0.8 * 0.2) ** 0.5


def test_a_decision_says_how_it_was_made(dial: Dial) -> None:
    found = Routing(dial)
    assert found.decide("ep_xyz", "req_1") == RoutingReport(A, "ep_xyz", False, False, 77, 80)
    assert found.decide("ep_xyz", "req_2") == RoutingReport(A, "ep_xyz", False, True, 77, 80)


def test_an_episode_under_way_keeps_its_slot_when_the_split_changes(dial: Dial) -> None:
    found = Routing(dial)
    found.decide("ep_xyz", "r")
    dial.split = 0
    assert found.decide("ep_xyz", "r") == RoutingReport(A, "ep_xyz", False, True, 77, 0)
    assert found.decide("ep_2", "r").slot == B


def test_what_is_expected_of_an_episode_is_what_is_then_decided_and_remembers_nothing(dial: Dial) -> None:
    routing_ = Routing(dial)
    expected = routing_.expected("ep_1", "r-1")
    assert len(routing_) == 0
    assert routing_.decide("ep_1", "r-1") == expected
    routing_.move("ep_1", B)
    assert routing_.expected("ep_1", "r-2").slot == B
    assert routing_.expected(None, "req_42") == routing_.decide(None, "req_42")


def test_after_forgetting_every_episode_is_decided_anew(dial: Dial) -> None:
    found = Routing(dial)
    found.decide("ep_xyz", "r")
    dial.split = 0
    found.forget()
    assert found.decide("ep_xyz", "r") == RoutingReport(B, "ep_xyz", False, False, 77, 0)


def test_a_moved_episode_stays_and_is_not_called_cached(dial: Dial) -> None:
    found = Routing(dial)
    found.decide("ep_xyz", "r")
    found.move("ep_xyz", B)
    assert found.decide("ep_xyz", "r") == RoutingReport(B, "ep_xyz", False, False, 77, 80)


def test_memory_is_bounded_and_the_oldest_goes_first(dial: Dial) -> None:
    found = Routing(dial, most_episodes=3)
    for name in ("1", "2", "3", "1", "4"):
        found.decide(name, "r")
    assert len(found) == 3
    assert [name for name in "1234" if found.slot(name)] == ["1", "3", "4"]


def test_room_for_no_episode_is_refused(dial: Dial) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Routing(dial, most_episodes=0)


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_an_episode_the_request_id_decides_and_nothing_is_kept(
    dial: Dial, nothing: str | None
) -> None:
    found = Routing(dial)
    assert found.decide(nothing, "req_abc") == RoutingReport(A, "req_abc", True, False, 24, 80)
    assert found.decide(nothing, "req_abc").cached is False
    assert len(found) == 0


def test_a_missing_episode_is_warned_of_once_per_process(
    dial: Dial, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "_first_degraded", routing._Once())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            Routing(dial).decide(None, "req_abc\n" + "x" * 100)
    [line] = [record.getMessage() for record in caplog.records]
    shown = "req_abc\\n" + "x" * 56
    assert line == f"policy_router.degraded_mode request_id='{shown}': no episode_id provided"


def test_threads_agree_on_every_episode(dial: Dial) -> None:
    found = Routing(dial, most_episodes=50)
    seen: list[set[tuple[str, str]]] = [set() for _ in range(4)]

    def work(mine: set[tuple[str, str]]) -> None:
        for number in range(2000):
            name = f"ep_{number % 200}"
            mine.add((name, found.decide(name, "r").slot))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert len(seen[0]) == 200
    assert len(found) == 50


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("ep_arm7_1712", "ep_arm7_1712"),
        ("épisode 1", "%C3%A9pisode%201"),
        ("a\r\nSet-Cookie: x", "a%0D%0ASet-Cookie:%20x"),
        ("100%", "100%25"),
        (" ab ", "%20ab%20"),
        ("  ", "%20%20"),
        ("", ""),
        ("\ud800", "%ED%A0%80"),
        ("\x7f\t~\"\\", "%7F%09~\"\\"),
        ("x" * 200, "x" * 128),
    ],
)  # fmt: skip
def test_any_key_fits_a_header(key: str, text: str) -> None:
    assert header_text(key) == text
    assert all(" " <= character <= "~" for character in header_text(key))


def test_a_routed_answer_has_headers_and_another_has_none() -> None:
    plain = served(make_request())
    assert routing_headers(plain) == {}
    routed = replace(plain, slot=B, routing=RoutingReport(B, "ep_xyz"))
    expected = {
        "X-Reflex-Policy-Slot": "b",
        "X-Reflex-Model-Version": plain.model_version,
        "X-Reflex-Routing-Key": "ep_xyz",
    }
    assert routing_headers(routed) == expected
    alone = replace(routed, routing=RoutingReport(B, "r-1", degraded=True))
    assert routing_headers(alone)["X-Reflex-Routing-Degraded"] == "true"
