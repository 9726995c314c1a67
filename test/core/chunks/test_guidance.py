# SPDX-License-Identifier: Apache-2.0
"""What guides a denoise loop: the mask, the rows, the steps; and which exports are guided how."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import ExportDir

from reflex_core.chunks.guidance import Guidance, shifted, soft_mask
from reflex_core.chunks.rtc import GUIDED, OFF, guided_columns
from reflex_core.errors import ExportError
from reflex_core.export.export import open_export
from reflex_core.export.flow import Adaptive, Flow
from reflex_core.files.share import embedded_policy
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import Sampling, euler, start_noise
from reflex_core.robot.presets import load_preset
from reflex_core.values import Floats

SHAPE = (1, 50, 7)


def test_the_soft_mask_is_the_paper_s() -> None:
    weights = soft_mask(5, 25, 50)
    share = (25 - np.arange(5, 25)) / (25 - 5 + 1)
    np.testing.assert_allclose(weights[5:25], share * (np.exp(share) - 1) / (np.e - 1), rtol=1e-6)
    assert (weights[:5] == 1).all()
    assert (weights[25:] == 0).all()
    assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize(("delay", "end"), [(0, 0), (5, 5), (50, 50), (0, 50), (1, 1)])
def test_the_soft_mask_knows_no_row_beyond_the_tail(delay: int, end: int) -> None:
    weights = soft_mask(delay, end, 50)
    assert (weights[end:] == 0).all()
    assert (weights[: min(delay, end)] == 1).all()


def test_rows_are_moved_to_where_the_next_chunk_has_them() -> None:
    rows = np.arange(10, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(shifted(rows, 3.0), rows[3:])
    np.testing.assert_allclose(shifted(rows, 3.25)[:, 0], np.arange(3.25, 9))
    np.testing.assert_array_equal(shifted(rows, 0.15 / 0.05), rows[3:])  # 2.9999999999999996 in floats
    assert len(shifted(rows, 10.0)) == len(shifted(rows, 40.5)) == 0


@pytest.mark.parametrize("flow", [Flow(), Flow(0.0, 1.0, -1, 10), Flow(1000.0, 0.0, 1, 7), Flow(steps=2)])
@pytest.mark.parametrize("adaptive", [None, Adaptive(10.0, 2)])
def test_a_guided_straight_flow_ends_on_the_target_where_it_weighs_one(
    flow: Flow, adaptive: Adaptive | None
) -> None:
    goal, target = np.full(SHAPE, 2.0, np.float32), np.full(SHAPE, -1.0, np.float32)
    span = flow.sign * (flow.end - flow.start)
    weights = np.zeros(SHAPE, np.float32)
    weights[:, :5] = 1

    def straight(x: Floats, t: float) -> Floats:
        return (goal - x) / np.float32(flow.sign * (flow.end - t))

    guidance = Guidance(target, weights, 5, max_weight=float(flow.steps))
    noise = start_noise(1, SHAPE)
    actions, steps = euler(straight, noise, flow, Sampling(adaptive=adaptive, guidance=guidance))
    free, _ = euler(straight, noise, flow)
    np.testing.assert_allclose(actions[:, 5:], free[:, 5:], atol=1e-5 * abs(span))
    # each step leaves a share of the difference: what is left after the last one is small, not nothing
    assert np.abs(actions[:, :5] - target[:, :5]).max() < 3 / flow.steps
    assert adaptive is None or steps >= min(3, flow.steps)


def test_guidance_without_weight_changes_no_bit() -> None:
    reach = load_policy(open_export(embedded_policy()), None, "cpu", 1)
    nothing = Guidance(np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32), 4, 10.0)
    plain = reach.predict(reach.canary(), 3)
    assert (
        reach.predict(reach.canary(), 3, Sampling(guidance=nothing)).actions.tobytes()
        == plain.actions.tobytes()
    )


def test_a_gripper_and_padding_are_not_guided(export_dir: ExportDir) -> None:
    franka = load_preset("franka")
    policy = load_policy(open_export(export_dir("decomposed_per_step")), None, "cpu", 1)
    assert guided_columns(policy.binding, 32).tolist() == [1.0] * 7 + [0.0] * 25
    assert franka.gripper is not None
    gripper = replace(franka.gripper, component_idx=2)
    fitted = replace(
        policy.binding,
        embodiment=replace(franka, gripper=gripper),
        columns=policy.binding.columns[::-1].copy(),
    )
    weights = guided_columns(fitted, 32)
    assert weights[:7].tolist() == [1, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("name", ["mono_pi0_7", "decomposed", "mono_smolvla"])
def test_a_loop_inside_the_graph_is_served_without_and_says_so(export_dir: ExportDir, name: str) -> None:
    policy = load_policy(open_export(export_dir(name)), None, "cpu", 1)
    rtc = policy.rtc()
    assert rtc.mode == OFF
    assert "fused" in rtc.note


def with_config(path: Path, **changes: object) -> Path:
    file = path / "reflex_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


def test_one_step_unknown_rate_and_the_export_s_own_word_switch_it_off(export_copy: ExportDir) -> None:
    path = export_copy("decomposed_per_step")
    unknown = load_policy(open_export(path), None, "cpu", 1).rtc()
    with_config(path, frequency_hz=20.0)
    assert load_policy(open_export(path), None, "cpu", 1).rtc().mode == GUIDED
    with_config(path, rtc={"mode": "off"})
    blocked = load_policy(open_export(path), None, "cpu", 1).rtc()
    with_config(path, rtc={}, num_denoising_steps=1)
    one = load_policy(open_export(path), None, "cpu", 1).rtc()
    assert [rtc.mode for rtc in (unknown, blocked, one)] == [OFF] * 3
    assert ["rate" in unknown.note, "block" in blocked.note, "one step" in one.note] == [True] * 3


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"mode": "guided_vjp"}, "rtc.mode"),
        ({"mode": "prefix"}, "rtc.max_delay"),
        ({"mode": "prefix", "max_delay": 4, "clean_time": "now"}, "rtc.clean_time"),
        ({"mode": "prefix", "max_delay": 4}, "10 numbers, one per row"),
        ({"max_guidance_weight": -1}, "rtc.max_guidance_weight"),
        ({"blend_rows": 0}, "rtc.blend_rows"),
    ],
)
def test_what_an_export_describes_wrongly_is_refused(
    export_copy: ExportDir, block: dict[str, Any], says: str
) -> None:
    path = with_config(export_copy("decomposed_per_step"), rtc=block)
    with pytest.raises(ExportError, match=says):
        load_policy(open_export(path), None, "cpu", 1)
