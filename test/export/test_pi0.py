# SPDX-License-Identifier: Apache-2.0
"""pi0 from LeRobot's checkpoint to an answer over HTTP, with actions that are positions and with offsets from the state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from agreement import LIMIT, over_http, replayed
from lerobot_answers import LeRobot

Exported = Callable[..., Path]
Policies = Callable[[str], LeRobot]


@pytest.mark.parametrize("name", ["pi0", "pi0_relative"])
def test_a_server_gives_lerobots_own_actions(name: str, exported: Exported, lerobot: Policies) -> None:
    found = over_http(exported(name), lerobot(name))
    assert max(found.values()) <= LIMIT, found


def test_one_graph_with_the_whole_loop_gives_the_same(exported: Exported, lerobot: Policies) -> None:
    folder = exported("pi0", "--fused")
    assert [path.name for path in folder.glob("*.onnx")] == ["model.onnx"]
    found = over_http(folder, lerobot("pi0"))
    assert max(found.values()) <= LIMIT, found


@pytest.mark.parametrize("name", ["pi0", "pi0_relative"])
def test_what_was_served_is_replayed_bit_for_bit(name: str, exported: Exported, tmp_path: Path) -> None:
    summary = replayed(exported(name), tmp_path)
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (3, 0.0)


def test_every_row_of_a_batch_was_verified(exported: Exported) -> None:
    document = json.loads((exported("pi0") / "reflex_config.json").read_text(encoding="utf-8"))
    assert document["batch"] == {"verified": [1, 2, 4]}


def test_half_precision_keeps_the_flow_time(exported: Exported, lerobot: Policies) -> None:
    """Its sines would be those of another time, and the chunk 0.03 rad away, if it were rounded to float16."""
    folder = exported("pi0", "--dtype", "fp16")
    found = over_http(folder, lerobot("pi0"))
    assert max(found.values()) <= 20 * LIMIT, found
    whole, half = (
        sum(path.stat().st_size for path in export.glob("*.onnx*")) for export in (exported("pi0"), folder)
    )
    assert half < 0.7 * whole


def test_bars_of_lerobot_0_4_are_another_policy(exported: Exported, lerobot: Policies) -> None:
    """Verified against LeRobot drawing such bars; what it draws now is seen in all pictures that are not square."""
    found = over_http(exported("pi0", "--bars", "-3"), lerobot("pi0"), ((480, 640), (224, 224)))
    assert found[480, 640] > 10 * LIMIT
    assert found[224, 224] <= LIMIT
