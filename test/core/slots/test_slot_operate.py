# SPDX-License-Identifier: Apache-2.0
"""Operating two slots: split, promote, roll back, the monitor after a swap, and how episodes end."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from servers import ExportDir
from slots import Pair
from wedge_requests import Arm, answer, request

from reflex_core.errors import ObservationError, SettingError
from reflex_core.files.json_lines import json_line
from reflex_core.metrics.metrics import Metrics
from reflex_core.records.trace.notes import outcome_record
from reflex_core.reports import Fallback, GuardReport
from reflex_core.slots.changing import Operating, Swap, SwapError
from reflex_core.slots.monitor import CLAMPS, DIVERGENCE, ERRORS, Monitor, Tripwires
from reflex_core.slots.outcomes import Outcome, Outcomes
from reflex_core.slots.routing import Routing
from reflex_core.values import HOLD, ROS, Request, Served
from reflex_core.wedges.guard import guard_for
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.router import Router, Slot
from reflex_core.wedges.telemetry import Telemetry
from reflex_core.wedges.wedge import Proceed


def operating(split: int = 80, **options: object) -> tuple[Operating, Routing]:
    made = Operating(split, clock=lambda: 5.0, **options)  # type: ignore[arg-type]
    routing = Routing(made.split)
    made.attach(routing)
    return made, routing


def test_a_new_split_is_for_new_episodes() -> None:
    made, routing = operating(100)
    assert routing.decide("ep_1", "r").slot == "a"
    assert made.set_split(0, "ramp", "anna") == Swap("split", 100, 0, "b", False, "ramp", "anna", 5.0)
    assert (routing.decide("ep_1", "r").slot, routing.decide("ep_2", "r").slot) == ("a", "b")
    assert made.set_split(0) is None
    assert len(made.history) == 1


@pytest.mark.parametrize("split", [-1, 101, True, 50.0, "50", None])
def test_a_split_that_is_no_percentage_is_refused(split: object) -> None:
    with pytest.raises(SettingError, match="from 0 to 100"):
        operating()[0].set_split(split)  # type: ignore[arg-type]


@pytest.mark.parametrize(("slot", "split"), [("a", 100), ("b", 0)])
def test_promoting_sends_every_new_episode_to_the_slot(slot: str, split: int) -> None:
    made, routing = operating(50)
    assert routing.decide("ep_2", "r").slot == "a"
    made.promote(slot)
    assert made.split() == split
    assert {routing.decide(f"new-{number}", "r").slot for number in range(50)} == {slot}
    assert routing.decide("ep_2", "r").slot == "a"


def test_promoting_may_take_the_episodes_under_way_along() -> None:
    made, routing = operating(100)
    routing.decide("ep_1", "r")
    made.promote("b", running=True)
    assert routing.decide("ep_1", "r").slot == "b"


def test_a_drained_slot_or_an_unknown_one_cannot_be_promoted() -> None:
    made, _ = operating(is_out=lambda slot: slot == "b")
    with pytest.raises(SwapError, match="slot 'b' is drained"):
        made.promote("b")
    with pytest.raises(SwapError, match="no slot 'prod'"):
        made.promote("prod")
    assert made.split() == 80


def test_rolling_back_takes_every_episode_along_change_by_change() -> None:
    heard: list[Swap] = []
    made, routing = operating(100, listeners=[heard.append])
    made.set_split(60)
    made.promote("b")
    assert routing.decide("ep_1", "r").slot == "b"
    assert made.rollback("worse", "monitor") == Swap("rollback", 0, 60, "a", True, "worse", "monitor", 5.0)
    assert routing.decide("ep_1", "r").slot == "a"
    assert made.rollback().to_split == 100
    with pytest.raises(SwapError, match="nothing to roll back"):
        made.rollback()
    assert [swap.kind for swap in heard] == ["split", "promote", "rollback", "rollback"]
    assert tuple(heard) == made.history


def test_the_next_request_after_a_swap_is_answered_by_the_other_slot() -> None:
    pair = Pair()
    made = Operating(100)
    pair.split = 100
    pair.routing = Routing(made.split)
    made.attach(pair.routing)
    router = Router(pair.slots, pair.routing)
    assert router(request("ep_9"), answer).slot == "a"
    made.promote("b", running=True)
    assert router(request("ep_9"), answer).slot == "b"
    made.rollback()
    assert router(request("ep_9"), answer).slot == "a"


class Trial:
    """A monitor that rolls back real slots, on a clock that the test turns."""

    def __init__(self, **wires: float) -> None:
        self.now = 0.0
        self.operating = Operating(100)
        self.monitor = Monitor(
            lambda reason: self.operating.rollback(reason, "monitor"),
            Tripwires(**wires),  # type: ignore[arg-type]
            lambda: self.now,
        )
        self.operating.listen(self.monitor.swapped)

    def answers(self, slot: str, count: int, *, clamped: int = 0) -> None:
        for number in range(count):
            self.now += 0.1
            incoming = request()
            spread = (number + 1) * clamped // count > number * clamped // count
            made = replace(answer(incoming), slot=slot, guard=GuardReport(spread))
            self.monitor.answered(incoming, made)

    def failures(self, slot: str, count: int) -> None:
        for _ in range(count):
            self.now += 0.1
            self.monitor.failed(slot)


@pytest.fixture
def trial() -> Trial:
    made = Trial()
    made.answers("a", 100, clamped=5)
    made.operating.promote("b")
    return made


def test_a_slot_that_does_as_well_stays(trial: Trial) -> None:
    trial.answers("b", 200, clamped=12)
    assert trial.operating.split() == 0
    assert trial.monitor.watching == "b"
    trial.now += 600
    assert trial.monitor.watching is None


def test_a_slot_that_is_clamped_more_often_is_rolled_back(trial: Trial) -> None:
    trial.answers("b", 40, clamped=30)
    assert trial.operating.split() == 100
    tripped = trial.monitor.last
    assert tripped is not None
    assert (tripped.wire, tripped.slot, tripped.before) == (CLAMPS, "b", 0.05)
    assert tripped.count == 20  # as soon as there is enough to judge by
    assert trial.operating.history[-1].reason.startswith("clamp rate of slot 'b' is 0.75 over 20 answers")
    assert trial.monitor.watching is None


def test_a_slot_that_fails_is_rolled_back(trial: Trial) -> None:
    trial.answers("b", 30)
    trial.failures("b", 12)
    assert trial.operating.split() == 100
    assert trial.monitor.last is not None
    assert trial.monitor.last.wire == ERRORS


def test_answers_of_nan_are_failures(trial: Trial) -> None:
    incoming = request()
    for _ in range(40):
        trial.monitor.answered(
            incoming, replace(answer(incoming, source=HOLD), slot="b", hold_reason="non_finite")
        )
    assert trial.operating.split() == 100


def test_the_other_slots_trouble_does_not_count(trial: Trial) -> None:
    trial.failures("a", 100)
    assert trial.operating.split() == 0


def test_what_comes_after_the_window_does_not_count(trial: Trial) -> None:
    trial.now += 601
    trial.failures("b", 100)
    assert trial.operating.split() == 0


def test_a_rollback_opens_no_window_of_its_own(trial: Trial) -> None:
    trial.failures("b", 30)
    trial.failures("a", 100)
    assert [swap.kind for swap in trial.operating.history] == ["promote", "rollback"]


def test_divergence_trips_on_its_mean() -> None:
    trial = Trial()
    for _ in range(30):
        trial.monitor.diverged(0.1)
    trial.now += 1
    trial.operating.promote("b")
    for value in (math.nan, *[0.15] * 30):
        trial.monitor.diverged(value)
    assert trial.operating.split() == 0
    for _ in range(60):
        trial.monitor.diverged(0.3)
    assert trial.operating.split() == 100
    assert trial.monitor.last is not None
    assert trial.monitor.last.wire == DIVERGENCE


def test_divergence_without_a_past_needs_a_limit() -> None:
    for limit, split in ((None, 0), (0.2, 100)):
        trial = Trial(divergence_limit=limit)  # type: ignore[arg-type]
        trial.operating.promote("b")
        for _ in range(20):
            trial.monitor.diverged(0.3)
        assert trial.operating.split() == split


def test_a_trip_with_nothing_to_roll_back_is_survived() -> None:
    trial = Trial()
    trial.operating.promote("b")
    trial.operating.rollback()
    trial.monitor.swapped(Swap("promote", 100, 0, "b", False, "", "", 0.0))
    trial.failures("b", 30)
    assert trial.monitor.last is not None


def drove(outcomes: Outcomes, episode: str, slot: str) -> None:
    incoming = request(episode)
    outcomes.answered(incoming, replace(answer(incoming), slot=slot))


def test_an_outcome_knows_the_slot_that_drove_its_episode() -> None:
    heard: list[tuple[Outcome, bool]] = []
    outcomes = Outcomes([lambda *outcome: heard.append(outcome)])
    drove(outcomes, "ep_1", "b")
    outcome = outcomes.report("ep_1", True, 0.5, "x" * 600)
    assert outcome == Outcome("ep_1", True, "b", 0.5, "x" * 500)
    assert outcomes.report("never answered", False).slot == ""
    assert (outcomes.find("ep_1"), heard[0]) == (outcome, (outcome, True))
    assert outcomes.tally() == {"b": (1, 1), "": (0, 1)}


def test_an_episode_that_two_slots_drove_is_nobodys() -> None:
    outcomes = Outcomes()
    for slot in ("a", "b", "a"):
        drove(outcomes, "ep_1", slot)
    assert outcomes.report("ep_1", True).slot == ""


def test_saying_it_twice_says_nothing_new() -> None:
    heard: list[bool] = []
    outcomes = Outcomes([lambda _, new: heard.append(new)])
    for success in (True, True, False, False):
        outcomes.report("ep_1", success)
    assert heard == [True, False, True, False]


def test_the_last_report_of_an_episode_holds_and_the_oldest_episode_is_forgotten() -> None:
    outcomes = Outcomes(most_episodes=2)
    for name, success in (("1", True), ("2", True), ("1", False), ("3", True)):
        drove(outcomes, name, "a")
        outcomes.report(name, success)
    assert outcomes.tally() == {"a": (1, 2)}
    assert outcomes.find("2") is None


@pytest.mark.parametrize(
    ("episode", "success", "score", "why"),
    [
        ("", True, None, "1 to 256 printable"),
        (" ", True, None, "not blanks alone"),
        ("a\0b", True, None, "printable"),
        ("x" * 257, True, None, "got 257"),
        ("ep", 1, None, "true or false, got 1"),
        ("ep", True, math.nan, "finite"),
    ],
)
def test_a_report_that_says_nothing_is_the_callers_mistake(
    episode: str, success: object, score: float | None, why: str
) -> None:
    with pytest.raises(ObservationError, match=why):
        Outcomes().report(episode, success, score)  # type: ignore[arg-type]


def test_an_outcome_is_a_record_of_its_own() -> None:
    record = json.loads(
        json_line(outcome_record(Outcome("ép", False, "a", None, "fell"), "2026-01-02T03:04:05.678Z"))
    )
    assert record == {
        "kind": "outcome", "schema_version": 1, "timestamp": "2026-01-02T03:04:05.678Z", "episode_id": "ép",
        "success": False, "slot": "a", "score": None, "note": "fell",
    }  # fmt: skip


def test_answers_over_the_deadline_count_as_errors(trial: Trial) -> None:
    """A slot that hangs never fails, but no caller has anything of it."""
    incoming = request()
    for _ in range(20):
        late = replace(
            answer(incoming, source=HOLD), slot="b", hold_reason="deadline", fallback=Fallback(True)
        )
        trial.monitor.answered(incoming, late)
    assert trial.monitor.last is not None
    assert trial.monitor.last.wire == ERRORS


def test_promoting_a_slot_that_has_all_episodes_moves_those_under_way_and_is_no_step_to_go_back(
    trial: Trial,
) -> None:
    trial.operating.set_split(0)
    moved = trial.operating.promote("b", running=True)
    assert moved is not None
    assert (moved.gains, moved.from_split, moved.to_split) == ("b", 0, 0)
    assert trial.monitor.watching == "b"
    assert trial.operating.rollback().to_split != 0


def test_holds_of_the_guard_count_as_clamped(trial: Trial) -> None:
    incoming = request()
    for _ in range(20):
        held = replace(answer(incoming, source=HOLD), slot="b", hold_reason="guard_tripped")
        trial.monitor.answered(incoming, held)
    assert trial.monitor.last is not None
    assert trial.monitor.last.wire == CLAMPS


def test_real_policies_one_that_leaves_the_joint_ranges_is_rolled_back_by_itself(
    export_dir: ExportDir,
) -> None:
    arms = {"a": Arm(export_dir("calm")), "b": Arm(export_dir("wide"))}
    made = Operating(100)
    monitor = Monitor(made.rollback)
    made.listen(monitor.swapped)
    routing = Routing(made.split)
    made.attach(routing)
    slots = {name: Slot(arm.middleware_chain(guard=_through)) for name, arm in arms.items()}
    router = Router(slots, routing, monitor.failed)
    binding = arms["a"].policy.binding
    guard = guard_for(
        binding.embodiment, binding.hold_columns, Metrics(), None, binding.action_names, binding.dt_s
    )
    telemetry = Telemetry("franka", {"a": "one", "b": "two"}, Metrics(), [monitor.answered])
    act = middleware_chain({"telemetry": telemetry, "guard": guard, "router": router})
    for number in range(40):
        assert act(arms["a"].request(f"before-{number}", stamp_s=number)).slot == "a"
    assert made.promote("b") is not None
    answers = [act(arms["b"].request(f"after-{number}", stamp_s=40.0 + number)) for number in range(30)]
    assert answers[0].slot == "b"
    assert [swap.kind for swap in made.history] == ["promote", "rollback"]
    assert monitor.last is not None
    assert (monitor.last.wire, monitor.last.slot) == (CLAMPS, "b")
    assert guard.reset(ROS)  # it had tripped meanwhile, and only a person who looked may say that all is well
    assert act(arms["a"].request("then", stamp_s=80.0)).slot == "a"


def _through(request: Request, proceed: Proceed) -> Served:
    return proceed(request)
