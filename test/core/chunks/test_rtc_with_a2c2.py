# SPDX-License-Identifier: Apache-2.0
"""What guides after the correction head has changed a chunk: what the robot executes, not what the network said."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from guarded import answering, ramp
from guarded import request as request_of
from heads import constant, correction_of, observation

from reflex_core.chunks.rtc import GUIDED, Rtc, executed_rows, rows_from
from reflex_core.export.export import open_export
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import PLAIN
from reflex_core.reports import A2C2Report, GuardReport
from reflex_core.robot.presets import load_embodiment
from reflex_core.values import Floats, Request, Served
from reflex_core.wedges.a2c2 import A2C2
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.predict import Predict

DT_S, START_NS = 0.05, 1_700_000_000_000_000_000
ELAPSED, DELAY, ADDED_RAD = 10, 4, 0.2
APPLIED = A2C2Report(True, "applied", 0.5)
SKIPPED = A2C2Report(False, "low_latency")


@pytest.fixture(scope="module")
def reach() -> Policy:
    path = embedded_policy()
    return load_policy(open_export(path), load_embodiment(path / "embodiment.json"), "cpu", 1)


def make_request(policy: Policy, rows: int, now_ns: int) -> Request:
    seen = replace(policy.canary(), stamp_ns=START_NS + round(rows * DT_S * 1e9))
    return Request(seen, now_ns, f"at-{rows}", "pick", rows + 1)


def second_chunk(
    policy: Policy, added: Floats, a2c2: A2C2Report, report: GuardReport
) -> tuple[Floats, Served]:
    """(the first chunk of an episode as the network made it, the second one after the first was changed by `added`)."""
    now_ns = time.monotonic_ns()
    rtc = Rtc(policy.contract, policy.binding, lambda: now_ns)
    act = middleware_chain({"policy": Predict(policy, "prod", lambda: 0, lambda _: PLAIN, None, rtc)})
    request = make_request(policy, 0, now_ns)
    served = act(request)
    changed = replace(served.chunk, actions=served.chunk.actions + added)
    rtc.delivered(request, replace(served, chunk=changed, a2c2=a2c2, guard=report))
    rtc.consumed("pick", DELAY)
    return served.raw_actions, act(make_request(policy, ELAPSED, now_ns))


def continues(new: Served, actions: Floats) -> bool:
    """The rows that are executed before the new chunk is there are those of `actions`."""
    return bool(np.abs(new.chunk.actions[:DELAY] - actions[ELAPSED : ELAPSED + DELAY]).max() < 0.01)


def test_a_corrected_chunk_guides_as_it_is_executed(reach: Policy) -> None:
    added = np.full((50, 7), ADDED_RAD, np.float32)
    raw, new = second_chunk(reach, added, APPLIED, GuardReport())
    assert new.rtc.mode == GUIDED
    assert continues(new, raw + added)
    assert not continues(new, raw)


def test_rows_corrected_after_they_were_answered_guide_as_they_are_executed(reach: Policy) -> None:
    """Each time anew from the network's own rows, and only those of the chunk that is executed."""
    now_ns = time.monotonic_ns()
    rtc = Rtc(reach.contract, reach.binding, lambda: now_ns)
    act = middleware_chain({"policy": Predict(reach, "prod", lambda: 0, lambda _: PLAIN, None, rtc)})
    request = make_request(reach, 0, now_ns)
    served = act(request)
    rtc.delivered(request, served)
    rtc.consumed("pick", DELAY)
    executed = served.chunk.actions + np.float32(ADDED_RAD)
    rtc.corrected("pick", "at-1000", served.chunk.actions - np.float32(ADDED_RAD))
    rtc.corrected("other", "at-0", served.chunk.actions)
    rtc.corrected("pick", "at-0", executed + np.float32(1.0))
    rtc.corrected("pick", "at-0", executed)
    new = act(make_request(reach, ELAPSED, now_ns))
    assert continues(new, executed)
    np.testing.assert_array_equal(rows_from([list(row) for row in new.rtc.executed]), executed)


@pytest.mark.parametrize(
    "recorded", [None, [], "rows", [[1.0], ["x"]], [1.0, 2.0], [[float("nan")]], [[1.0], [1.0, 2.0]]]
)
def test_rows_in_a_trace_that_are_none_are_taken_for_none(recorded: object) -> None:
    assert rows_from(recorded) is None


def test_a_chunk_that_the_head_left_alone_guides_as_the_network_made_it(reach: Policy) -> None:
    nothing = np.zeros((50, 7), np.float32)
    raw, left_alone = second_chunk(reach, nothing, SKIPPED, GuardReport())
    _, without_a_head = second_chunk(reach, nothing, A2C2Report(), GuardReport())
    assert continues(left_alone, raw)
    assert left_alone.chunk.actions.tobytes() == without_a_head.chunk.actions.tobytes()


def test_corrections_come_back_in_the_networks_own_units(reach: Policy) -> None:
    assert reach.binding.action_statistics is not None
    rows = np.zeros((50, reach.contract.width), np.float32)
    raw, added = ramp(), np.arange(7, dtype=np.float32) / 10
    corrected = executed_rows(rows, raw + added, raw, reach.binding)
    expected = np.zeros((50, 7), np.float32)
    expected[: len(raw)] = added / reach.binding.action_statistics.scale
    np.testing.assert_allclose(corrected[:, reach.binding.columns], expected, atol=1e-5)
    assert not rows.any()


def test_the_head_goes_by_the_clock_that_it_was_given(tmp_path: Path) -> None:
    """A simulation that does not run in real time measures its own latency."""
    now_ns = 1_000
    wedge = A2C2(correction_of(constant(tmp_path / "head.npz", 0.3)), clock_ns=lambda: now_ns)
    request = replace(request_of(received_ns=now_ns - 200_000_000), observation=observation())
    reasons = [wedge(request, answering(ramp())).a2c2.reason for _ in range(5)]
    assert reasons == ["cold_start"] * 4 + ["applied"]
    soon = replace(request, received_ns=now_ns)
    quick = A2C2(correction_of(constant(tmp_path / "head.npz", 0.3)), clock_ns=lambda: now_ns)
    assert [quick(soon, answering(ramp())).a2c2.reason for _ in range(5)][-1] == "low_latency"
