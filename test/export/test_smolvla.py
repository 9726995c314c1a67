# SPDX-License-Identifier: Apache-2.0
"""SmolVLA from LeRobot's checkpoint to an answer over HTTP: two cameras and an empty one, mean and standard deviation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agreement import LIMIT, described_otherwise, over_http, replayed
from lerobot_answers import LeRobot

Exported = Callable[..., Path]
Policies = Callable[[str], LeRobot]
LARGE, SQUARE = (480, 640), (224, 224)


def test_a_server_gives_lerobots_own_actions(exported: Exported, lerobot: Policies) -> None:
    found = over_http(exported("smolvla"), lerobot("smolvla"))
    assert max(found.values()) <= LIMIT, found


def test_bars_in_the_middle_are_seen_in_pictures_that_are_not_square(
    exported: Exported, lerobot: Policies, tmp_path: Path
) -> None:
    def centred(document: dict[str, Any]) -> None:
        for slot in document["images"]:
            slot["resize"] = "letterbox"

    found = described_otherwise(
        exported("smolvla"), tmp_path / "copy", centred, lerobot("smolvla"), (LARGE, SQUARE)
    )
    assert found[LARGE] > 100 * LIMIT
    assert found[SQUARE] <= LIMIT  # where it cannot be seen


def test_what_was_served_is_replayed_bit_for_bit(exported: Exported, tmp_path: Path) -> None:
    summary = replayed(exported("smolvla"), tmp_path)
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (3, 0.0)


def test_every_row_of_a_batch_was_verified(exported: Exported) -> None:
    document = json.loads((exported("smolvla") / "reflex_config.json").read_text(encoding="utf-8"))
    assert document["batch"] == {"verified": [1, 2, 4]}


def test_one_graph_with_the_whole_loop_gives_the_same(exported: Exported, lerobot: Policies) -> None:
    folder = exported("smolvla", "--fused")
    assert [path.name for path in folder.glob("*.onnx")] == ["model.onnx"]
    found = over_http(folder, lerobot("smolvla"))
    assert max(found.values()) <= LIMIT, found
