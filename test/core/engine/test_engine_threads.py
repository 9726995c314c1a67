# SPDX-License-Identifier: Apache-2.0
"""Requests from many threads, during unloads and reloads, and what twenty reloads cost in memory."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from servers import MakeEngine

from reflex_core.engine.engine import Engine
from reflex_core.errors import NotReadyError, ObservationError
from reflex_core.values import Observation, Request, Served


def make_request(engine: Engine, *, seed: int | None = 1) -> Request:
    assert engine.loaded is not None
    canary = engine.loaded.policy.canary()
    return engine.request(
        dataclasses.replace(canary, instruction="reach the cube"),
        seed=seed,
    )


def test_bad_observations_do_not_disturb_the_next_request(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", embodiment="franka")
    for _ in range(20):
        with pytest.raises(ObservationError):
            engine.act(engine.request(Observation({}, np.zeros(7, np.float32), "reach")))
    assert np.isfinite(engine.act(make_request(engine)).chunk.actions).all()
    assert (
        engine.metrics.registry.get_sample_value("reflex_act_errors_total", {"slug": "missing-image"}) == 20
    )


def test_sixteen_threads_are_all_answered(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", embodiment="franka")
    expected = {
        seed: engine.act(make_request(engine, seed=seed)).chunk.actions.tobytes() for seed in range(16)
    }
    wrong: list[object] = []

    def caller(seed: int) -> None:
        for _ in range(10):
            try:
                if engine.act(make_request(engine, seed=seed)).chunk.actions.tobytes() != expected[seed]:
                    wrong.append(seed)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_unloading_while_a_request_is_in_flight_does_not_break_it(make_engine: MakeEngine) -> None:
    engine = make_engine("slow", embodiment="franka")
    requests = [make_request(engine) for _ in range(3)]
    answers: list[Served] = []
    gauge = {"embodiment": "franka", "policy_slot": "prod"}

    threads = [
        threading.Thread(target=lambda asks=request: answers.append(engine.act(asks))) for request in requests
    ]
    for thread in threads:
        thread.start()
    limit = time.monotonic() + 30
    while engine.metrics.registry.get_sample_value("reflex_in_flight_requests", gauge) != 3:
        assert time.monotonic() < limit
        time.sleep(0.001)
    engine.unload()
    assert answers == []  # all three were still inside
    for thread in threads:
        thread.join(60)
    assert len(answers) == 3
    assert engine.state == "initializing"


def test_requests_during_reloads_are_answered_or_refused_but_never_broken(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", embodiment="franka")
    request = make_request(engine)
    expected = engine.act(request).chunk.actions.tobytes()
    done, answered, wrong = threading.Event(), [0], []

    def caller() -> None:
        while not done.is_set():
            try:
                if engine.act(request).chunk.actions.tobytes() != expected:
                    wrong.append("another chunk")
                answered[0] += 1
            except NotReadyError:
                done.wait(0.001)
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        engine.load()
        engine.warm_up()
    done.set()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert answered[0] > 0


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_memory_does_not_grow_over_twenty_reloads(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7_224", embodiment="franka")

    def reload() -> None:
        engine.unload()
        engine.load()
        engine.warm_up()
        engine.act(make_request(engine))

    for _ in range(5):
        reload()
    gc.collect()
    before = resident_mib()
    for _ in range(20):
        reload()
    gc.collect()
    assert resident_mib() - before < 15
