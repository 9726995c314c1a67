# SPDX-License-Identifier: Apache-2.0
"""The router wedge: every episode in its slot, unless that slot is out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from slots import EPISODE_OF, Pair
from wedge_requests import request

from reflex_core.concurrency.circuit_breaker import CLOSED, OPEN
from reflex_core.errors import CancelledError, InferenceError, NotReadyError, ObservationError
from reflex_core.slots.health import DEGRADED, DRAIN_A, DRAIN_B, HEALTHY, verdict
from reflex_core.slots.routing import SLOTS, other
from reflex_core.wedges.router import Router, Slot


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize(
    ("a_out", "b_out", "expected"),
    [
        (False, False, HEALTHY), (True, False, DRAIN_A), (False, True, DRAIN_B), (True, True, DEGRADED),
    ],
)  # fmt: skip
def test_the_verdict_is_that_of_the_table(a_out: bool, b_out: bool, expected: str) -> None:
    assert verdict(a_out, b_out) == expected


@pytest.mark.parametrize("slot", SLOTS)
def test_an_answer_says_which_slot_gave_it_and_why(pair: Pair, slot: str) -> None:
    episode = EPISODE_OF[slot]
    first, second = pair.served(episode), pair.served(episode)
    assert (first.slot, first.model_version) == (slot, f"{slot}@0")
    assert first.routing.document() == {
        "slot": slot, "routing_key": episode, "degraded": False, "cached": False,
        "bucket": 34 if slot == "a" else 55, "split": 50, "crash_verdict": HEALTHY,
    }  # fmt: skip
    assert second.routing == replace(first.routing, cached=True)


def test_without_an_episode_the_request_id_routes(pair: Pair) -> None:
    incoming = request(None)
    routing = pair.act(incoming).routing
    assert (routing.routing_key, routing.degraded, routing.cached) == (incoming.request_id, True, False)


@pytest.mark.parametrize("out", SLOTS)
def test_a_slot_that_is_out_hands_its_episodes_to_the_other(pair: Pair, out: str) -> None:
    stays, goes = EPISODE_OF[other(out)], EPISODE_OF[out]
    assert pair.served(goes).slot == out
    pair.break_slot(out)
    before = len(pair.models[out].requests)
    drained = pair.served(goes)
    assert (drained.slot, drained.model_version) == (other(out), f"{other(out)}@0")
    assert (drained.routing.cached, drained.routing.crash_verdict) == (False, f"drain-{out}")
    assert pair.served(stays).slot == other(out)
    assert pair.served(None).slot == other(out)
    assert len(pair.models[out].requests) == before


def test_even_after_the_cooldown_no_request_is_the_probe(pair: Pair) -> None:
    pair.break_slot("a")
    pair.now += 1000
    before = len(pair.models["a"].requests)
    assert pair.served(EPISODE_OF["a"]).slot == "b"
    assert len(pair.models["a"].requests) == before


def test_an_episode_that_had_to_move_does_not_move_back(pair: Pair) -> None:
    pair.served(EPISODE_OF["a"])
    pair.break_slot("a")
    pair.served(EPISODE_OF["a"])
    pair.breakers["a"].reset()
    pair.models["a"].error = None
    assert pair.served(EPISODE_OF["a"]).slot == "b"
    assert pair.served("ep_new-2").slot == pair.routing.slot("ep_new-2")
    assert pair.served("0").slot == "a"


def test_both_slots_out_is_degraded(pair: Pair) -> None:
    for slot in SLOTS:
        pair.break_slot(slot)
    assert pair.router.verdict == DEGRADED
    with pytest.raises(NotReadyError, match="both policy slots") as caught:
        pair.served(EPISODE_OF["a"])
    error = caught.value
    assert (error.state, error.slug, error.retry_after_s) == ("degraded", "server-degraded", 60.0)


def test_a_failure_reaches_its_caller_and_is_reported_with_its_slot(pair: Pair) -> None:
    pair.models["b"].error = InferenceError("broken")
    with pytest.raises(InferenceError, match="broken"):
        pair.served(EPISODE_OF["b"])
    assert pair.failures == ["b"]
    assert pair.served(EPISODE_OF["a"]).slot == "a"


@pytest.mark.parametrize("error", [ObservationError("no camera"), CancelledError("late")])
def test_what_is_not_the_models_fault_is_not_reported(pair: Pair, error: Exception) -> None:
    pair.models["a"].error = error
    with pytest.raises(type(error)):
        pair.served(EPISODE_OF["a"])
    assert pair.failures == []


def test_a_breaker_that_opens_under_a_request_sends_it_to_the_other(pair: Pair) -> None:
    class Opening:
        """Closed when it is looked at first, open when the request gets there."""

        state, probe_due = CLOSED, False

        def __call__(self, _: object) -> None:
            self.state = OPEN
            raise NotReadyError("degraded", "slot a failed", "server-degraded")

    breaker = Opening()
    router = Router({"a": Slot(breaker, breaker), "b": pair.slots["b"]}, pair.routing)
    served = router(request(EPISODE_OF["a"]), lambda _: pytest.fail("nothing is inside"))
    assert (served.slot, served.routing.crash_verdict, served.routing.cached) == ("b", DRAIN_A, False)


def test_not_ready_for_another_reason_is_passed_on(pair: Pair) -> None:
    pair.models["a"].error = NotReadyError("loading")
    with pytest.raises(NotReadyError, match="loading"):
        pair.served(EPISODE_OF["a"])
    assert pair.models["b"].requests == []


def test_a_slot_without_a_breaker_is_never_out(pair: Pair) -> None:
    router = Router({name: Slot(pair.models[name]) for name in SLOTS}, pair.routing)
    assert router.verdict == HEALTHY


@pytest.mark.parametrize("names", [("a",), ("a", "prod"), ("a", "b", "c")])
def test_other_slots_than_a_and_b_are_refused(pair: Pair, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="slots a and b"):
        Router(dict.fromkeys(names, pair.slots["a"]), pair.routing)
