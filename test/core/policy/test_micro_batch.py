# SPDX-License-Identifier: Apache-2.0
"""Which waiting requests share a run of the network, and what becomes of them when one of them is bad."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from batches import BAD, WILD, Scene, arrays_of, noise_of
from http_client import Background, wait_for
from layout_policies import observation
from onnx import helper, numpy_helper
from servers import ExportDir, MakeEngine

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError, ConfigurationError, InferenceError
from reflex_core.export.binding import bind
from reflex_core.export.export import open_export
from reflex_core.policy.flow_matching import network
from reflex_core.policy.layouts import load_placed
from reflex_core.policy.load import load_policy
from reflex_core.policy.micro_batch import FEWEST_REQUESTS, Waiting, sizes_up_to
from reflex_core.policy.onnx_policy import OnnxPolicy
from reflex_core.policy.providers import CPU, LoadOptions, Placement
from reflex_core.policy.sampler import PLAIN, Sampling

ROBOTS = 8


def chunk_of(found: Any) -> float:
    """The number that the network of the scene was waiting with, read from the answer."""
    assert not isinstance(found, Exception), found
    assert found.normalised.shape == (1, 3, 2)
    return float(found.normalised[0, 0, 0]) - 0.5


def test_those_that_wait_share_one_run_and_each_gets_its_own_chunk() -> None:
    scene = Scene().verified()
    with scene.turns.turn():
        waiting = [scene.ask(float(number)) for number in range(ROBOTS)]
    found = [one.result() for one in waiting]
    assert [chunk_of(one) for one in found] == list(range(ROBOTS))
    assert scene.made == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]
    assert {one.batch for one in found} == {ROBOTS}


def test_only_checked_sizes_are_run_and_none_waits_for_more() -> None:
    scene = Scene().verified()
    with scene.turns.turn():
        waiting = [scene.ask(float(number)) for number in range(7)]
    assert [chunk_of(one.result()) for one in waiting] == list(range(7))
    assert [len(run) for run in scene.made] == [4, 2, 1]
    assert sizes_up_to(6) == (2, 4, 6)


def test_one_robot_alone_runs_alone() -> None:
    scene = Scene().verified()
    with scene.turns.turn():
        waiting = scene.ask(3.0)
    assert (chunk_of(waiting.result()), scene.made) == (3.0, [[3.0]])


def test_nothing_is_batched_before_it_was_checked() -> None:
    scene = Scene()
    with scene.turns.turn():
        waiting = [scene.ask(float(number)) for number in range(4)]
    assert [chunk_of(one.result()) for one in waiting] == list(range(4))
    assert [len(run) for run in scene.made] == [1, 1, 1, 1]


def test_a_batch_only_grows_while_it_keeps_the_deadlines_in_it() -> None:
    scene = Scene().verified()
    scene.now_ms = 1000.0
    with scene.turns.turn():
        # 2 take 12 ms, 4 take 16
        waiting = [scene.ask(0.0, deadline_ms=1013.0), *(scene.ask(float(number)) for number in (1, 2, 3))]
    assert [chunk_of(one.result()) for one in waiting] == [0.0, 1.0, 2.0, 3.0]
    assert scene.made == [[0.0, 1.0], [2.0, 3.0]]
    assert scene.reasons.alone_for["deadline"] == 1


def test_who_would_be_later_behind_the_others_than_in_their_batch_goes_with_them() -> None:
    scene = Scene().verified()
    scene.now_ms = 1000.0
    with scene.turns.turn():
        waiting = [
            scene.ask(0.0),
            scene.ask(1.0, deadline_ms=1001.0),
        ]  # one after another: 20 ms, together 12
    assert [chunk_of(one.result()) for one in waiting] == [0.0, 1.0]
    assert scene.made == [[0.0, 1.0]]


def test_one_slow_run_does_not_keep_batches_small_for_ever() -> None:
    scene = Scene().verified()
    scene.batches._took_s[2] = 0.030
    tries = 0
    while scene.made[-1:] != [[0.0, 1.0]] and tries < 100:
        tries += 1
        with scene.turns.turn():
            waiting = [scene.ask(0.0, deadline_ms=20.0), scene.ask(1.0, deadline_ms=20.0)]
        for one in waiting:
            one.result()
    assert 5 < tries < 100


@pytest.mark.parametrize("other", [{"steps": 3}, {"width": 3}, {"why": "guided"}])
def test_who_may_not_share_a_run_has_one_of_its_own_and_is_not_overtaken(other: dict[str, Any]) -> None:
    scene = Scene().verified()
    with scene.turns.turn():
        waiting = [scene.ask(0.0), scene.ask(1.0), scene.ask(2.0, **other), scene.ask(3.0), scene.ask(4.0)]
    assert [chunk_of(one.result()) for one in waiting] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert scene.made == [[0.0, 1.0], [2.0], [3.0, 4.0]]
    reasons = {"guided": 1, "differs": 1} if "why" in other else {"differs": 2}
    assert scene.reasons.alone_for == reasons


def test_one_that_fails_a_batch_fails_alone() -> None:
    scene = Scene().verified()
    with scene.turns.turn():
        waiting = [scene.ask(number) for number in (0.0, BAD, 2.0, 3.0)]
    good, bad = [waiting[place].result() for place in (0, 2, 3)], waiting[1].result()
    assert [chunk_of(one) for one in good] == [0.0, 2.0, 3.0]
    assert isinstance(bad, InferenceError)
    assert scene.made == [[0.0, BAD, 2.0, 3.0], [0.0], [BAD], [2.0], [3.0]]
    assert scene.reasons.alone_for["failed"] == 4


def test_nan_in_one_row_reaches_no_other() -> None:
    scene = Scene().verified()
    with scene.turns.turn():
        waiting = [scene.ask(number) for number in (0.0, WILD)]
    assert chunk_of(waiting[0].result()) == 0.0
    assert np.isnan(waiting[1].result().normalised).all()
    assert scene.reasons.alone_for["not_finite"] == 2


def test_after_a_failure_none_is_batched_for_a_while() -> None:
    scene = Scene().verified()
    for expected in (1, 1, 2):
        with scene.turns.turn():
            waiting = [scene.ask(BAD if scene.now_ms == 0.0 else 0.0), scene.ask(1.0)]
        for one in waiting:
            one.result()
        assert len(scene.made[-1]) == expected
        scene.now_ms += 600.0
    assert scene.reasons.alone_for["after_failure"] == 1


def test_requests_of_a_failed_batch_run_alone_however_long_that_takes() -> None:
    scene = Scene().verified()

    def pass_time(_: Cancellation | None) -> None:
        scene.now_ms += 2000.0

    scene.during = pass_time
    with scene.turns.turn():
        waiting = [scene.ask(number) for number in (BAD, 1.0, 2.0)]
    assert isinstance(waiting[0].result(), InferenceError)
    assert [chunk_of(one.result()) for one in waiting[1:]] == [1.0, 2.0]
    assert scene.made == [[BAD, 1.0], [BAD], [1.0], [2.0]]


def test_a_cancelled_one_leaves_and_the_batch_goes_on() -> None:
    scene = Scene().verified()
    cancelled = Cancellation()
    found: list[Any] = []

    def cancel(_: Cancellation | None) -> None:
        cancelled.cancel()
        found.append(waiting[1].result())  # while the batch still runs

    scene.during = cancel
    with scene.turns.turn():
        waiting = [scene.ask(0.0), scene.ask(1.0, cancellation=cancelled), scene.ask(2.0), scene.ask(3.0)]
    assert [chunk_of(waiting[place].result()) for place in (0, 2, 3)] == [0.0, 2.0, 3.0]
    assert isinstance(found[0], CancelledError)
    assert scene.made == [[0.0, 1.0, 2.0, 3.0]]


def test_who_was_cancelled_while_waiting_is_not_taken_along() -> None:
    scene = Scene().verified()
    cancelled = Cancellation()
    with scene.turns.turn():
        waiting = [scene.ask(0.0), scene.ask(1.0, cancellation=cancelled), scene.ask(2.0)]
        cancelled.cancel()
        assert isinstance(waiting[1].result(), CancelledError)
    assert [chunk_of(waiting[place].result()) for place in (0, 2)] == [0.0, 2.0]
    assert scene.made == [[0.0, 2.0]]
    assert not scene.batches._waiting
    # one whose thread has not woken yet
    late, first = (Waiting(arrays_of(1.0), noise_of(), PLAIN, cancelled, key="same") for _ in range(2))
    scene.batches._waiting.append(late)
    assert scene.batches._group(first) == [first]


def test_a_batch_whose_requests_are_all_cancelled_is_terminated() -> None:
    scene = Scene().verified()
    cancellations = [Cancellation(), Cancellation()]
    states: list[bool] = []

    def cancel(cancellation: Cancellation | None) -> None:
        assert cancellation is not None
        for one in cancellations:
            one.cancel()
            states.append(cancellation.cancelled)

    scene.during = cancel
    with scene.turns.turn():
        waiting = [scene.ask(float(number), cancellation=one) for number, one in enumerate(cancellations)]
    assert all(isinstance(one.result(), CancelledError) for one in waiting)
    assert (states, scene.made) == ([False, True], [[0.0, 1.0]])


def test_batches_over_the_tolerance_are_never_run() -> None:
    scene = Scene(error=3e-4)
    (note,) = scene.batches.verify(lambda number: (arrays_of(float(number) / 8), noise_of()))
    assert "differs from single runs by 3.0e-04 of the largest number, 0.0001 may be" in note
    assert (scene.batches.state.sizes, scene.reasons.alone_for["over_tolerance"]) == ((), 1)
    scene.made.clear()
    with scene.turns.turn():
        waiting = [scene.ask(0.0), scene.ask(1.0)]
    assert [chunk_of(one.result()) for one in waiting] == [0.0, 1.0]
    assert scene.made == [[0.0], [1.0]]


def test_sizes_that_save_no_time_are_not_run() -> None:
    scene = Scene(costs_ms={1: 10.0, 2: 17.0, 4: 31.0, 8: 70.0}).verified()
    assert scene.batches.state.sizes == (4,)
    with scene.turns.turn():
        waiting = [scene.ask(float(number)) for number in range(7)]
    assert [chunk_of(one.result()) for one in waiting] == list(range(7))
    assert [len(run) for run in scene.made] == [4, 1, 1, 1]


def test_batching_is_off_where_no_size_saves_time() -> None:
    scene = Scene(costs_ms={1: 10.0, 2: 19.0, 4: 38.0, 8: 76.0})
    (note,) = scene.batches.verify(lambda number: (arrays_of(float(number)), noise_of()))
    assert "is off: no batch takes less than 80% of its single runs' time (1: 10.00 ms, 2: 19.00 ms" in note
    assert scene.reasons.alone_for["no_gain"] == 1


def policy_of(path: Path, max_batch: int = ROBOTS) -> OnnxPolicy:
    policy = load_policy(open_export(path), None, "cpu", 1, (), LoadOptions(max_batch=max_batch))
    assert isinstance(policy, OnnxPolicy)
    return policy


@pytest.mark.parametrize("name", ["batched", "batched_per_step"])
def test_a_batch_of_real_sessions_gives_each_its_single_run(name: str, export_dir: ExportDir) -> None:
    plain, batched = policy_of(export_dir(name), 1), policy_of(export_dir(name))
    assert (plain.verify_batches(), plain.batching) == ((), None)
    assert batched.verify_batches() == ()
    assert batched.batching is not None
    assert batched.batching.sizes == (2, 4, 8)
    seen = [observation(plain, colour=20 * number, shift=0.001 * number) for number in range(ROBOTS)]
    with batched._fifo_lock.turn():
        waiting = [
            Background(lambda one=one, number=number: batched.predict(one, number))  # type: ignore[misc]
            for number, one in enumerate(seen)
        ]
        wait_for(lambda: len(batched._fifo_lock._waiting) == ROBOTS)
    for number, one in enumerate(waiting):
        made, single = one.result(), plain.predict(seen[number], number)
        assert (made.batch_size, single.batch_size) == (ROBOTS, 1)
        np.testing.assert_allclose(made.normalised, single.normalised, rtol=0, atol=1e-4)
        np.testing.assert_allclose(made.actions, single.actions, rtol=0, atol=1e-4)
        assert (made.denoise_steps, made.tokens_cut) == (single.denoise_steps, single.tokens_cut)
        assert set(made.stages_ms) == set(single.stages_ms)


@pytest.mark.parametrize("name", ["batched", "batched_per_step"])
def test_what_batches_are_checked_with_differs_in_every_input(name: str, export_dir: ExportDir) -> None:
    policy = policy_of(export_dir(name))
    rows = [policy._trial_inputs(number) for number in range(FEWEST_REQUESTS)]
    for key in rows[0][0].keys() - {"mask_base"}:  # one camera has to be there
        assert len({arrays[key].tobytes() for arrays, _ in rows}) > 1, key
    assert len({noise.tobytes() for _, noise in rows}) == FEWEST_REQUESTS


def test_every_row_is_compared_with_several_requests_in_it() -> None:
    scene = Scene()
    scene.batches.verify(lambda number: (arrays_of(float(number)), noise_of()))
    assert [run for run in scene.made if len(run) == 4] == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]


def test_graphs_that_give_one_chunk_for_a_batch_are_not_batched() -> None:
    scene = Scene()
    run = scene.batches._run
    scene.batches._run = lambda *given: replace(made := run(*given), normalised=made.normalised[:1])
    (note,) = scene.batches.verify(lambda number: (arrays_of(float(number)), noise_of()))
    assert "a batch of 2 fails: a run of 2 requests gave 1 chunks" in note


def test_a_deadline_that_is_missed_anyway_keeps_no_batch_small() -> None:
    scene = Scene().verified()
    scene.now_ms = 1000.0
    with scene.turns.turn():
        waiting = [scene.ask(0.0, deadline_ms=1005.0), scene.ask(1.0)]  # one run takes 10 ms
    assert [chunk_of(one.result()) for one in waiting] == [0.0, 1.0]
    assert scene.made == [[0.0, 1.0]]


def test_the_time_in_the_queue_ends_when_the_batch_begins(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("batched"))
    assert policy.verify_batches() == ()
    with policy._fifo_lock.turn():
        waiting = [Background(lambda: policy.predict(policy.canary(), 1)) for _ in range(2)]
        wait_for(lambda: len(policy._fifo_lock._waiting) == 2)
    one, other = (each.result().stages_ms for each in waiting)
    assert one["expert_denoise_ms"] == other["expert_denoise_ms"] > 0.0  # the same run
    assert min(one["queue_ms"], other["queue_ms"]) > 0.0


def test_one_after_another_is_bit_for_bit_what_it_was(export_dir: ExportDir) -> None:
    plain, batched = policy_of(export_dir("batched"), 1), policy_of(export_dir("batched"))
    assert batched.verify_batches() == ()
    for number in range(3):
        seen = observation(plain, colour=30 * number)
        np.testing.assert_array_equal(
            batched.predict(seen, number).actions, plain.predict(seen, number).actions
        )


def test_rows_that_influence_each_other_switch_batching_off(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("batched_mixing"))
    (note,) = policy.verify_batches()
    assert "a batch of 2 differs from single runs" in note
    assert policy.batching is not None
    assert policy.batching.sizes == ()


@pytest.mark.parametrize("mask", ["lang_masks", "mask_wrist_l"])
def test_a_graph_that_reads_the_first_rows_mask_for_all_is_found_out(
    mask: str, export_copy: ExportDir
) -> None:
    path = export_copy("batched")
    model = onnx.load(path / "model.onnx")
    for node in model.graph.node:
        node.input[:] = ["shared" if name == mask else name for name in node.input]
    constants = {"begin": [0], "end": [1], "axis": [0]}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([False]), "no"))
    first = [
        helper.make_node("Slice", [mask, *constants], ["first_row"]),
        helper.make_node("And", [mask, "no"], ["nothing"]),
        helper.make_node("Or", ["nothing", "first_row"], ["shared"]),
    ]
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*first, *kept])
    onnx.save(model, path / "model.onnx")
    for max_batch in (2, ROBOTS):
        (note,) = policy_of(path, max_batch).verify_batches()
        assert "a batch of 2 differs from single runs" in note


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mono_pi0", r"the input 'img_base' of model\.onnx has shape \(1, 3, 32, 32\)"),
        ("decomposed", r"the input 'img_base' of vlm_prefix\.onnx has shape"),
    ],
)
def test_a_fixed_batch_axis_is_refused_when_batches_are_asked_for(
    name: str, words: str, export_dir: ExportDir
) -> None:
    with pytest.raises(
        ConfigurationError, match="--max-batch 8 needs graphs with a dynamic batch axis, and " + words
    ):
        policy_of(export_dir(name))
    assert policy_of(export_dir(name), 1).batching is None


def test_captured_graphs_are_refused_when_batches_are_asked_for(export_dir: ExportDir) -> None:
    export = open_export(export_dir("batched"))
    layout = load_placed(network, export, Placement((CPU,), static=True))
    with pytest.raises(ConfigurationError, match="--max-batch 2 and --cuda-graphs exclude each other"):
        OnnxPolicy(export, layout, bind(export, layout.contract, None), LoadOptions(max_batch=2))


def test_fewer_steps_are_no_reason_to_run_alone_and_early_stop_is(export_dir: ExportDir) -> None:
    policy = policy_of(export_dir("batched_per_step"), 2)
    assert policy.verify_batches() == ()
    seen = policy.canary()
    watched = replace(Sampling(4), watch=lambda *_: None)
    found = []
    for sampling in (Sampling(4), watched):
        with policy._fifo_lock.turn():
            waiting = [
                Background(lambda sampling=sampling: policy.predict(seen, 1, sampling))  # type: ignore[misc]
                for _ in range(2)
            ]
            wait_for(lambda: len(policy._fifo_lock._waiting) == 2)
        found += [(one.result().batch_size, one.result().denoise_steps) for one in waiting]
    assert found == [(2, 4), (2, 4), (1, 4), (1, 4)]


def test_the_engine_checks_at_warm_up_and_says_what_it_found(make_engine: MakeEngine, caplog: Any) -> None:
    engine = make_engine("batched_mixing", max_batch=4)
    described = engine.description()["batching"]
    assert (described["max_batch"], described["sizes"]) == (4, ())
    assert "differs from single runs" in described["off"]
    assert "--max-batch 4 is off: a batch of 2 differs" in caplog.text
    assert 'reason="over_tolerance"} 1.0' in engine.metrics.exposition().decode()


def test_it_is_off_unless_asked_for(make_engine: MakeEngine) -> None:
    engine = make_engine("batched")
    assert engine.description()["batching"] is None
