# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: what may guide, whose chunk guides whom, and what it does to real chunks."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import FLOAT, Graph, velocity
from wedge_requests import answer

from benchmarks import rtc_border
from reflex_core.chunks.rtc import DELAYS_KEPT, EPISODES_KEPT, GUIDED, PREFIX, Rtc
from reflex_core.export.export import open_export
from reflex_core.export.flow import Adaptive
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import PLAIN, Sampling, start_noise
from reflex_core.reports import Fallback
from reflex_core.robot.presets import load_embodiment
from reflex_core.values import CLOUD, HOLD, LAST_KNOWN_GOOD, Frame, Request, Served
from reflex_core.wedges.predict import Predict

DT_S = 0.05
START_NS = 1_700_000_000_000_000_000
SHAPE = (1, 50, 7)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def reach() -> Policy:
    path = embedded_policy()
    return load_policy(open_export(path), load_embodiment(path / "embodiment.json"), "cpu", 1)


def unreachable(request: Request) -> Served:
    """The network is the innermost wedge."""
    raise AssertionError(request.request_id)


class Robot:
    """One policy with real-time chunking, asked by episode and time; every answer is delivered unless said otherwise.

    Its answers take no time at all: `delay` says how many rows were over when the robot had them.
    """

    def __init__(self, policy: Policy, sampling: Sampling = PLAIN) -> None:
        self.policy, self.now_ns = policy, time.monotonic_ns()
        self.rtc = Rtc(policy.contract, policy.binding, lambda: self.now_ns)
        self.predict = Predict(policy, "prod", lambda: 0, lambda _: sampling, None, self.rtc)

    def request(self, episode: str | None, rows: float, seed: int = 1, **changes: Any) -> Request:
        """An observation `rows` control periods after some start; brightness follows the seed."""
        plain = self.policy.canary()
        frames = {
            name: Frame(np.full_like(one.data, 60 + seed % 7 * 20), "rgb8", one.height, one.width)
            for name, one in plain.frames.items()
        }
        seen = replace(plain, frames=frames, stamp_ns=START_NS + round(rows * DT_S * 1e9))
        seen = replace(
            seen, **{key: changes.pop(key) for key in list(changes) if key in ("instruction", "stamp_ns")}
        )
        made = Request(seen, self.now_ns, f"request-{next(_numbers)}", episode, seed)
        return replace(made, **changes)

    def ask(
        self,
        episode: str | None,
        rows: float,
        seed: int = 1,
        *,
        delay: int = 1,
        deliver: bool = True,
        **changes: Any,
    ) -> Served:
        request = self.request(episode, rows, seed, **changes)
        served = self.predict(request, unreachable)
        if deliver:
            self.rtc.delivered(request, served)
            self.rtc.consumed(episode, delay)
        return served


def test_the_first_chunk_of_an_episode_is_not_guided(reach: Policy) -> None:
    robot = Robot(reach)
    served = robot.ask("pick", 0)
    alone = reach.predict(robot.request("pick", 0).observation, 1)
    assert (served.rtc.mode, served.rtc.delay, served.rtc.previous) == ("", 0, "")
    assert served.chunk.actions.tobytes() == alone.actions.tobytes()
    assert robot.rtc.counts == {"first": 1, "guided": 0}


@pytest.mark.parametrize(("elapsed", "delay"), [(10, 1), (25, 6), (20, 12)])
def test_a_guided_chunk_goes_on_where_the_old_one_was_going(reach: Policy, elapsed: int, delay: int) -> None:
    robot = Robot(reach)
    old = robot.ask("pick", 0, seed=1, delay=delay)
    new = robot.ask("pick", elapsed, seed=2)
    bare = reach.predict(robot.request("pick", elapsed, seed=2).observation, 2).actions
    assert (new.rtc.mode, new.rtc.delay, new.rtc.previous) == (GUIDED, delay, old.request_id)
    assert new.rtc.elapsed_rows == pytest.approx(elapsed)
    tail = old.chunk.actions[elapsed:]
    ours, theirs = new.chunk.actions, bare
    assert np.abs(ours[:delay] - tail[:delay]).max() < 0.02
    assert np.abs(ours[:delay] - tail[:delay]).max() < 0.2 * np.abs(theirs[:delay] - tail[:delay]).max()
    assert np.abs(ours[: len(tail)] - tail).mean() < np.abs(theirs[: len(tail)] - tail).mean()


def test_same_seed_and_same_previous_chunk_give_the_same_bytes_and_a_record_rebuilds_them(
    reach: Policy,
) -> None:
    first, second = Robot(reach), Robot(reach)
    for robot in (first, second):
        robot.ask("pick", 0)
    new, again = first.ask("pick", 20.5, seed=2), second.ask("pick", 20.5, seed=2)
    assert new.chunk.actions.tobytes() == again.chunk.actions.tobytes()
    before = reach.predict(first.request("pick", 0).observation, 1).normalised
    guidance = reach.rtc().again(before, new.rtc.elapsed_rows, new.rtc.delay)
    replayed = reach.predict(first.request("pick", 20.5, seed=2).observation, 2, Sampling(guidance=guidance))
    assert replayed.actions.tobytes() == new.chunk.actions.tobytes()


def test_interleaved_episodes_get_what_they_would_get_alone(reach: Policy) -> None:
    together = Robot(reach)
    mixed: dict[str, list[bytes]] = {name: [] for name in "abcd"}
    for number in range(3):
        for index, name in enumerate(mixed):
            served = together.ask(name, 10 * number + index, seed=10 * index + number)
            mixed[name].append(served.chunk.actions.tobytes())
    for index, name in enumerate(mixed):
        alone = Robot(reach)
        answers = [alone.ask(name, 10 * number + index, seed=10 * index + number) for number in range(3)]
        assert [one.chunk.actions.tobytes() for one in answers] == mixed[name]
        assert [bool(one.rtc.mode) for one in answers] == [False, True, True]


def test_requests_without_an_episode_share_nothing(reach: Policy) -> None:
    robot = Robot(reach)
    assert [robot.ask(None, rows).rtc.mode for rows in (0, 10, 20)] == ["", "", ""]
    assert robot.rtc.counts == {}


@pytest.mark.parametrize(
    ("rows", "changes", "why"),
    [
        (50, {}, "stale"),
        (500, {}, "stale"),
        (-3, {}, "stale"),  # from before it
        (10, {"max_steps": 5}, "degraded"),
        (10, {"instruction": "reach the red block"}, "instruction"),
    ],
)
def test_a_chunk_that_does_not_apply_guides_nothing(
    reach: Policy, rows: int, changes: dict[str, Any], why: str
) -> None:
    robot = Robot(reach)
    robot.ask("pick", 0)
    assert robot.ask("pick", rows, 2, **changes).rtc.mode == ""
    assert robot.rtc.counts[why] == 1


def test_without_stamps_only_a_caller_who_counts_rows_is_guided(reach: Policy) -> None:
    """The wall clock says nothing of a simulator that stands still while it waits."""
    robot = Robot(reach)
    robot.ask("pick", 0, stamp_ns=0)
    assert robot.ask("pick", 20, stamp_ns=0).rtc.mode == ""
    assert robot.rtc.counts["unknown_rows"] == 1
    counted = robot.ask("pick", 40, stamp_ns=0, elapsed_rows=12.0)
    assert (counted.rtc.mode, counted.rtc.elapsed_rows) == (GUIDED, 12.0)


def test_a_chunk_that_was_never_delivered_does_not_guide(reach: Policy) -> None:
    robot = Robot(reach)
    robot.ask("pick", 0, deliver=False)
    assert robot.ask("pick", 10, deliver=False).rtc.mode == ""
    old = robot.ask("pick", 12)
    robot.ask("pick", 14, deliver=False)  # the deadline gave it up
    assert robot.ask("pick", 16).rtc.previous == old.request_id


@pytest.mark.parametrize(
    ("source", "of", "guides"),
    [
        (HOLD, "", False),
        (CLOUD, "", False),
        (LAST_KNOWN_GOOD, "the running chunk", True),
        (LAST_KNOWN_GOOD, "a late answer", False),  # the robot follows what was never delivered itself
    ],
)
def test_what_stood_in_for_a_chunk_decides_whether_the_one_before_still_runs(
    reach: Policy, source: str, of: str, guides: bool
) -> None:
    robot = Robot(reach)
    running = robot.ask("pick", 0)
    late = robot.request("pick", 10, 2)
    robot.predict(late, unreachable)
    standing_in_for = running.request_id if of == "the running chunk" else of
    robot.rtc.delivered(
        late, replace(answer(late, source=source), fallback=Fallback(request_id=standing_in_for))
    )
    assert bool(robot.ask("pick", 12).rtc.mode) == guides


def test_a_chunk_of_another_policy_ends_the_one_before(reach: Policy) -> None:
    """The robot follows that one: back with this policy, within a horizon, the old one must not pull it back."""
    robot = Robot(reach)
    robot.ask("pick", 0)
    elsewhere = robot.request("pick", 10, 2)
    robot.rtc.delivered(elsewhere, replace(answer(elsewhere), slot="b"))
    assert robot.ask("pick", 20).rtc.mode == ""
    assert robot.rtc.counts["first"] == 2


def test_a_tripped_guard_s_hold_does_not_guide(reach: Policy) -> None:
    robot = Robot(reach)
    robot.ask("pick", 0)
    request = robot.request("pick", 10, 2)
    served = replace(robot.predict(request, unreachable), hold_reason="guard_tripped")
    robot.rtc.delivered(request, served)
    assert robot.ask("pick", 12).rtc.mode == ""


def test_what_is_forgotten_does_not_guide_and_its_delay_says_nothing(reach: Policy) -> None:
    """One answer that came too late to be used must not hold the next ten to the old chunk."""
    robot = Robot(reach)
    robot.ask("pick", 0, delay=3)
    robot.ask("pick", 4, delay=20)
    robot.rtc.forget("pick")
    robot.rtc.forget("pick")
    assert robot.ask("pick", 10).rtc.mode == ""
    assert robot.ask("pick", 20).rtc.delay == 3


def test_beyond_half_a_horizon_of_delay_the_robot_goes_by_what_it_sees(reach: Policy) -> None:
    robot = Robot(reach)
    robot.ask("pick", 0, delay=26)
    assert robot.ask("pick", 2).rtc.mode == ""
    assert robot.rtc.counts["delay"] == 1


def test_a_simulators_clock_counts_its_own_delay(reach: Policy) -> None:
    """The answer took twenty rows of our time, and one of the robot's: the interface says so."""
    robot = Robot(reach)
    request = robot.request("pick", 0, received_ns=robot.now_ns - round(20 * DT_S * 1e9))
    robot.rtc.delivered(request, robot.predict(request, unreachable))
    robot.rtc.consumed("pick", 1)
    assert robot.ask("pick", 2).rtc.delay == 1


def test_a_caller_who_never_got_the_newest_answer_is_not_guided_by_it(reach: Policy) -> None:
    robot = Robot(reach)
    first, lost = (robot.ask("pick", rows, stamp_ns=0, elapsed_rows=rows) for rows in (0.0, 5.0))
    assert (
        robot.ask("pick", 0, stamp_ns=0, elapsed_rows=9.0, previous_request_id=first.request_id).rtc.mode
        == ""
    )
    assert robot.rtc.counts["other_chunk"] == 1
    assert lost.rtc.previous == first.request_id


def test_what_the_guard_changed_guides_as_it_was_executed(reach: Policy) -> None:
    robot = Robot(reach)
    request = robot.request("pick", 0)
    served = robot.predict(request, unreachable)
    clamped = replace(served, chunk=replace(served.chunk, actions=served.chunk.actions + np.float32(0.2)))
    robot.rtc.delivered(request, clamped)
    guided = robot.ask("pick", 10, delay=1)
    np.testing.assert_allclose(guided.chunk.actions[0], clamped.chunk.actions[10], atol=0.02)


def test_a_late_answer_to_an_older_observation_does_not_replace_a_newer_one(reach: Policy) -> None:
    robot = Robot(reach)
    older = robot.request("pick", 0, received_ns=robot.now_ns - 1)
    served = robot.predict(older, unreachable)
    newer = robot.ask("pick", 10)
    robot.rtc.delivered(older, served)
    assert robot.ask("pick", 20).rtc.previous == newer.request_id


def test_the_delay_is_the_slowest_of_the_newest_answers(reach: Policy) -> None:
    robot = Robot(reach)
    robot.ask("pick", 0, delay=12)
    for number in range(1, DELAYS_KEPT + 1):
        assert robot.ask("pick", 2 * number).rtc.delay == 12
    assert robot.ask("pick", 2 * DELAYS_KEPT + 2).rtc.delay == 1


def test_an_answer_s_own_latency_counts_from_its_observation(reach: Policy) -> None:
    robot = Robot(reach)
    request = robot.request("pick", 0, received_ns=robot.now_ns - round(7.5 * DT_S * 1e9))
    robot.rtc.delivered(request, robot.predict(request, unreachable))
    assert robot.ask("pick", 20).rtc.delay == 8


def test_episodes_are_forgotten_oldest_first(reach: Policy) -> None:
    robot = Robot(reach)
    rows = np.zeros(SHAPE, np.float32)
    for number in range(EPISODES_KEPT + 1):
        request = robot.request(f"episode-{number}", 0)
        robot.rtc.produced(request, rows)
        robot.rtc.delivered(request, answer(request))
    assert robot.rtc.guidance_for(robot.request("episode-0", 10)).why == "first"
    assert robot.rtc.guidance_for(robot.request("episode-1", 10)).guidance is not None


def test_nan_never_guides(reach: Policy) -> None:
    robot = Robot(reach)
    request = robot.request("pick", 0)
    robot.rtc.produced(request, np.full(SHAPE, np.nan, np.float32))
    robot.rtc.delivered(request, answer(request))
    assert robot.ask("pick", 10).rtc.mode == ""


def test_the_gripper_s_column_is_as_without_guidance(reach: Policy) -> None:
    robot = Robot(reach)
    robot.ask("pick", 0)
    carried = robot.rtc.guidance_for(robot.request("pick", 10, 2))
    assert carried.guidance is not None
    without = replace(
        carried.guidance, weights=carried.guidance.weights * np.array([1] * 6 + [0], np.float32)
    )
    slope, x = np.ones(SHAPE, np.float32), start_noise(1, SHAPE)
    guided = without.guided(x, slope, 0.5, 0.1, -1.0)
    assert (guided[..., 6] == slope[..., 6]).all()
    assert (guided[0, 0, :6] != slope[0, 0, :6]).all()


def test_convergence_is_judged_on_the_guided_velocity_after_three_steps(reach: Policy) -> None:
    robot = Robot(reach, Sampling(adaptive=Adaptive(10.0, 2)))
    assert robot.ask("pick", 0).inference.denoise_steps == 2
    old = robot.ask("pick", 10, 1)
    new = robot.ask("pick", 20, 2)
    assert new.inference.denoise_steps == 3
    assert np.abs(new.chunk.actions[0] - old.chunk.actions[10]).max() < 0.02


@pytest.fixture
def trained(tmp_path: Path) -> Policy:
    """An expert with one time per row: rows that are shown without noise pull the mean of the others to theirs."""
    graph = Graph(seed=3)
    x = graph.input("noisy_actions", FLOAT, [1, 10, 7])
    time_of_row = graph.input("timestep", FLOAT, [1, 10])
    shown = graph.op("Sub", graph.constant(1.0), graph.shaped(time_of_row, 1, 10, 1))
    goal = graph.op(
        "Mul",
        graph.op("ReduceMean", graph.op("Mul", x, shown), graph.constant([1], np.int64)),
        graph.constant(2.0),
    )
    graph.output(velocity(graph, x, graph.constant(0.0), goal), "velocity", FLOAT, [1, 10, 7])
    graph.save(tmp_path / "expert_stack.onnx")
    onnx.checker.check_model(str(tmp_path / "expert_stack.onnx"))
    config = {
        "model_id": "test/trained", "action_chunk_size": 10, "action_dim": 7, "expert": {"action_dim": 7},
        "num_denoising_steps": 10, "frequency_hz": 20.0, "rtc": {"mode": PREFIX, "max_delay": 4, "clean_time": 0.0},
    }  # fmt: skip
    (tmp_path / "reflex_config.json").write_text(json.dumps(config))
    return load_policy(open_export(tmp_path), None, "cpu", 1)


def test_an_export_trained_for_it_is_shown_the_rows_that_will_be_executed(trained: Policy) -> None:
    robot = Robot(trained)
    old = robot.ask("pick", 0, seed=1, delay=3)
    new = robot.ask("pick", 4, seed=2)
    assert (new.rtc.mode, new.rtc.delay) == (PREFIX, 3)
    np.testing.assert_array_equal(new.chunk.actions[:3], old.chunk.actions[4:7])
    bare = trained.predict(robot.request("pick", 4, 2).observation, 2).actions
    assert (np.abs(new.chunk.actions[3:] - bare[3:]) > 1e-6).any()


@pytest.mark.parametrize(("named", "elapsed"), [("", 5.0), ("the fallback", 5.0), ("the chunk", 3.0)])
def test_rows_that_are_counted_of_a_fallback_are_those_of_the_chunk_that_it_goes_on_with(
    trained: Policy, named: str, elapsed: float
) -> None:
    """Its row 0 is row 2 of that chunk: three rows later the robot is at row 5, and is not led back to row 3."""
    robot = Robot(trained)
    old = robot.ask("pick", 0, seed=1, delay=3, stamp_ns=0)
    late = robot.request("pick", 0, 2, stamp_ns=0, elapsed_rows=2.0)
    robot.predict(late, unreachable)
    tail = answer(late, old.chunk.actions[2:], source=LAST_KNOWN_GOOD)
    robot.rtc.delivered(late, replace(tail, fallback=Fallback(request_id=old.request_id)))
    of = {"": "", "the fallback": late.request_id, "the chunk": old.request_id}[named]
    new = robot.ask("pick", 0, seed=3, stamp_ns=0, elapsed_rows=3.0, previous_request_id=of)
    assert (new.rtc.previous, new.rtc.elapsed_rows) == (old.request_id, elapsed)
    first = int(elapsed)
    np.testing.assert_array_equal(new.chunk.actions[:3], old.chunk.actions[first : first + 3])


def test_a_delay_beyond_what_it_was_trained_for_guides_nothing(trained: Policy) -> None:
    robot = Robot(trained)
    robot.ask("pick", 0, delay=5)
    assert robot.ask("pick", 4).rtc.mode == ""
    assert robot.rtc.counts["delay"] == 1


def test_the_benchmark_counts_borders_with_and_without(tmp_path: Path) -> None:
    output = tmp_path / "rtc.json"
    assert rtc_border.main(["--episodes", "1", "--delays", "4", "--output", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert len(rows) == 6
    for plain, guided in zip(rows[::2], rows[1::2], strict=True):
        assert plain["guided"] == 0 < guided["guided"] == guided["borders"]
        assert guided["jump p50"] < plain["jump p50"]
