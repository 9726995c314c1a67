# SPDX-License-Identifier: Apache-2.0
"""X-VLA from LeRobot's checkpoint to an answer over HTTP: three views of which one is blank, a domain, a table of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from agreement import LIMIT, over_http, replayed
from lerobot_answers import LeRobot

Exported = Callable[..., Path]
Policies = Callable[[str], LeRobot]


def test_a_server_gives_lerobots_own_actions(exported: Exported, lerobot: Policies) -> None:
    found = over_http(exported("xvla"), lerobot("xvla"))
    assert max(found.values()) <= LIMIT, found


def test_one_graph_with_the_whole_loop_gives_the_same(exported: Exported, lerobot: Policies) -> None:
    folder = exported("xvla", "--fused")
    assert [path.name for path in folder.glob("*.onnx")] == ["model.onnx"]
    found = over_http(folder, lerobot("xvla"))
    assert max(found.values()) <= LIMIT, found


def test_one_graph_in_half_precision_is_close(exported: Exported, lerobot: Policies) -> None:
    folder = exported("xvla", "--fused", "--dtype", "fp16")
    assert [path.name for path in folder.glob("*.onnx")] == ["model.onnx"]
    found = over_http(folder, lerobot("xvla"))
    assert LIMIT < max(found.values()) <= 2e-2, found
    whole, half = ((export / "model.onnx").stat().st_size for export in (exported("xvla", "--fused"), folder))
    assert half < 0.7 * whole


def test_what_was_served_is_replayed_bit_for_bit(exported: Exported, tmp_path: Path) -> None:
    summary = replayed(exported("xvla"), tmp_path)
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (3, 0.0)


def test_its_domain_is_a_constant_and_its_sampler_a_table(exported: Exported) -> None:
    document = json.loads((exported("xvla") / "reflex_config.json").read_text(encoding="utf-8"))
    assert document["constants"] == {"domain_id": [0]}
    assert len(document["sampler"]["rows"]) == document["num_denoising_steps"] == 10
    assert document["batch"] == {"verified": [1, 2, 4]}
