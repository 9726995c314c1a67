# SPDX-License-Identifier: Apache-2.0
"""The left-over of a chunk of offsets, steps or velocities leads to the same positions, wherever the robot is by now."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from wedge_requests import answer, request

from reflex_core.chunks.guidance import shifted
from reflex_core.chunks.last_good import LastGood
from reflex_core.chunks.rtc import Rtc, executed_rows, rebased
from reflex_core.export.export import open_export
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.recorded_guidance import RecordedGuidance
from reflex_core.policy.sampler import PLAIN
from reflex_core.values import Floats, Request, Served
from reflex_core.wedges.predict import Predict

MODES = ["absolute", "relative", "delta", "velocity"]
SCALES = {"absolute": 1.0, "relative": 0.1, "delta": 0.01, "velocity": 0.2}
DT_NS = 50_000_000


@pytest.fixture(scope="module", params=MODES)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """The embedded policy as if it had been trained in a mode, its first joint apart."""
    path = tmp_path_factory.mktemp("modes") / "reach"
    shutil.copytree(embedded_policy(), path)
    file = path / "reflex_config.json"
    space = {"columns": list(range(1, 7)), "mode": request.param, "scale": SCALES[request.param]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"action_space": [space]}))
    return load_policy(open_export(path), None, "cpu", 1)


def chunk(policy: Policy) -> Floats:
    return (
        np.random.default_rng(3)
        .normal(size=(policy.contract.horizon, policy.contract.width))
        .astype(np.float32)
    )


def base(policy: Policy, state: Floats) -> Floats | None:
    return None if policy.binding.relative is None else policy.binding.relative.base(state)


def moved(state: Floats | None, by: float) -> Floats:
    assert state is not None
    return (state + np.float32(by)).astype(np.float32)


@pytest.mark.parametrize("elapsed", [0.0, 0.4, 1.0, 10.0, 20.5, 48.0])
def test_the_left_over_leads_to_the_same_positions(policy: Policy, elapsed: float) -> None:
    rows, here = chunk(policy), policy.canary().state
    assert here is not None
    there = moved(here, 0.3)
    tail = rebased(
        shifted(rows, elapsed), rows, elapsed, base(policy, here), base(policy, there), policy.binding
    )
    padded = np.zeros_like(rows)
    padded[: len(tail)] = tail
    old, new = policy.positions(rows[None], here), policy.positions(padded[None], there)
    np.testing.assert_allclose(new[: len(tail)], shifted(old, elapsed), atol=2e-5)


def test_what_guard_and_correction_changed_is_part_of_what_is_executed(policy: Policy) -> None:
    rows, here = chunk(policy), policy.canary().state
    assert here is not None
    raw = policy.positions(rows[None], here)
    limited = np.clip(raw, -0.5, 0.5)
    changed = executed_rows(rows, limited, raw, policy.binding)
    np.testing.assert_allclose(policy.positions(changed[None], here), limited, atol=2e-5)


def make_request(policy: Policy, number: int, rows: float, shift: float) -> Request:
    plain = policy.canary()
    seen = replace(plain, state=moved(plain.state, shift), stamp_ns=10**18 + int(rows * DT_NS))
    return Request(seen, 1, f"request-{number}", "episode", number)


def answered(policy: Policy, rtc: Rtc, incoming: Request) -> Served:
    served = Predict(policy, "prod", lambda: 0, lambda _: PLAIN, None, rtc)(incoming, _unreachable)
    rtc.delivered(incoming, served)
    rtc.consumed("episode", 4)
    return served


def _unreachable(incoming: Request) -> Served:
    raise AssertionError(incoming.request_id)


def test_a_guided_chunk_goes_on_where_the_old_one_led(policy: Policy) -> None:
    rtc = Rtc(policy.contract, policy.binding)
    old = answered(policy, rtc, make_request(policy, 1, 0, 0.0))
    new = answered(policy, rtc, make_request(policy, 2, 10, 0.2))
    assert new.rtc.mode
    assert np.abs(new.chunk.actions[:4] - old.chunk.actions[10:14]).max() < 0.05


def test_what_guided_an_answer_is_found_again_from_chunks_in_physical_units(policy: Policy) -> None:
    rtc, guides = Rtc(policy.contract, policy.binding), RecordedGuidance(policy)
    first, second = make_request(policy, 1, 0, 0.0), make_request(policy, 2, 10.5, 0.2)
    old = answered(policy, rtc, first)
    carried = rtc.guidance_for(second)
    assert carried.guidance is not None
    key = ("episode", first.request_id)
    guides.keep(key, old.raw_actions, old.chunk.actions, first.observation.state)
    again = guides.guidance(key, carried.elapsed_rows, carried.guidance.delay, second.observation.state)
    assert again is not None
    theirs, ours = (
        policy.positions(one.target, second.observation.state)[:30] for one in (carried.guidance, again)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_last_good_chunk_is_kept_as_the_positions_that_were_served(policy: Policy) -> None:
    known, first = LastGood(), request("pick", stamp_s=0.0)
    state = policy.canary().state
    assert state is not None
    positions = policy.positions(chunk(policy)[None], state)
    served = answer(first)
    known.remember(first, replace(served, chunk=replace(served.chunk, actions=positions)))
    later: Any = known.find(request("pick", stamp_s=0.5))
    assert later.served.chunk.actions.tobytes() == positions.tobytes()
