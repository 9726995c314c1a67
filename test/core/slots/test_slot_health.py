# SPDX-License-Identifier: Apache-2.0
"""Healing: a slot that is out comes back without any request having to try it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from servers import ExportDir
from slots import COOLDOWN_S, EPISODE_OF, Pair, until
from wedge_requests import Arm, answer

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.circuit_breaker import CLOSED, OPEN
from reflex_core.errors import InferenceError
from reflex_core.slots.health import DRAIN_A, HEALTHY, Prober
from reflex_core.slots.routing import Routing
from reflex_core.values import Observation, Request, Served
from reflex_core.wedges.breaker import Breaker
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.router import Router, Slot

CANARY = Observation({}, np.zeros(7, np.float32), "warm up")


@pytest.fixture
def pair() -> Pair:
    return Pair()


def prober(pair: Pair, slot: str = "a", **options: float) -> Prober:
    return Prober(slot, pair.breakers[slot], pair.slots[slot].act, CANARY, **options)


def test_a_repaired_slot_heals_with_its_canary(pair: Pair) -> None:
    pair.break_slot("a")
    healing = prober(pair)
    assert not healing.check()  # the cooldown runs
    assert healing.probes == 0
    pair.now += COOLDOWN_S
    pair.models["a"].error = None
    assert healing.check()
    assert pair.router.verdict == HEALTHY
    probe = pair.models["a"].requests[-1]
    assert (probe.observation, probe.request_id, probe.episode_id) == (CANARY, "canary-a-0", None)
    assert pair.served(EPISODE_OF["a"]).slot == "a"


def test_a_slot_that_is_still_broken_stays_out_for_another_cooldown(pair: Pair) -> None:
    pair.break_slot("a")
    healing = prober(pair)
    pair.now += COOLDOWN_S
    assert not healing.check()
    assert pair.breakers["a"].state == OPEN
    assert not healing.check()
    assert healing.probes == 1
    pair.now += COOLDOWN_S
    assert not healing.check()
    assert healing.probes == 2
    assert pair.router.verdict == DRAIN_A


def test_a_healthy_slot_is_left_alone(pair: Pair) -> None:
    healing = prober(pair)
    assert not healing.check()
    assert pair.models["a"].requests == []


def test_the_thread_heals_both_slots_without_a_request(pair: Pair) -> None:
    probers = [prober(pair, slot, interval_s=0.01) for slot in ("a", "b")]
    for slot in ("a", "b"):
        pair.break_slot(slot)
    before = {slot: len(model.requests) for slot, model in pair.models.items()}
    for healing in probers:
        healing.start()
    pair.models["a"].error = pair.models["b"].error = None
    pair.now += COOLDOWN_S
    until(lambda: pair.router.verdict == HEALTHY)
    for healing in probers:
        healing.close()
    assert {slot: len(model.requests) - before[slot] for slot, model in pair.models.items()} == {
        "a": 1,
        "b": 1,
    }


def hanging(entered: threading.Event) -> Callable[[Request], Served]:
    """A model that computes until it is cancelled."""

    def act(request: Request) -> Served:
        assert isinstance(request.cancellation, Cancellation)
        let_go = threading.Event()
        with request.cancellation.calling(let_go.set):
            entered.set()
            let_go.wait()
        request.cancellation.check()
        return answer(request)

    return act


def test_a_probe_that_hangs_is_cancelled(pair: Pair) -> None:
    pair.break_slot("a")
    pair.now += COOLDOWN_S
    act = partial(pair.breakers["a"], proceed=hanging(threading.Event()))
    assert not Prober("a", pair.breakers["a"], act, CANARY, timeout_s=0.01).check()
    assert pair.breakers["a"].state != CLOSED


def test_closing_ends_a_probe_that_hangs(pair: Pair) -> None:
    pair.break_slot("a")
    pair.now += COOLDOWN_S
    entered = threading.Event()
    act = partial(pair.breakers["a"], proceed=hanging(entered))
    healing = Prober("a", pair.breakers["a"], act, CANARY, interval_s=0.01)
    healing.start()
    assert entered.wait(10)
    healing.close(10)
    assert not healing._thread.is_alive()
    healing.close()


def test_a_prober_that_never_started_can_be_closed(pair: Pair) -> None:
    prober(pair).close()


def test_one_policy_alone_heals_too(export_dir: ExportDir) -> None:
    arm = Arm(export_dir("failing_raise"))
    now = [1000.0]
    breaker = Breaker(2, COOLDOWN_S, "prod", clock=lambda: now[0])
    act = arm.middleware_chain(breaker=breaker)
    for _ in range(2):
        with pytest.raises(InferenceError):
            act(arm.request(joint1=1.5))
    assert breaker.state == OPEN
    now[0] += COOLDOWN_S
    assert Prober("prod", breaker, act, arm.policy.canary()).check()
    assert breaker.state == CLOSED


def test_two_real_policies_drain_and_heal(export_dir: ExportDir) -> None:
    now = [1000.0]
    arms = {"a": Arm(export_dir("failing_nan")), "b": Arm(export_dir("mono_pi0_7"))}
    breakers = {name: Breaker(2, COOLDOWN_S, name, clock=lambda: now[0]) for name in arms}
    slots = {
        name: Slot(
            arm.middleware_chain(guard=breakers[name]), breakers[name]
        )  # the breaker instead of the guard
        for name, arm in arms.items()
    }
    router = Router(slots, Routing(lambda: 50))
    act = middleware_chain({"router": router})
    for _ in range(2):
        assert not np.isfinite(act(arms["a"].request(EPISODE_OF["a"], joint1=1.5)).chunk.actions).all()
    assert router.verdict == DRAIN_A
    drained = act(arms["b"].request(EPISODE_OF["a"], joint1=1.5))
    assert (drained.slot, bool(np.isfinite(drained.chunk.actions).all())) == ("b", True)
    now[0] += COOLDOWN_S
    assert Prober("a", breakers["a"], slots["a"].act, arms["a"].policy.canary()).check()
    assert router.verdict == HEALTHY
