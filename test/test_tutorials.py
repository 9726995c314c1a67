# SPDX-License-Identifier: Apache-2.0
"""The tutorials, followed to the letter."""

from __future__ import annotations

from pathlib import Path

from tutorial import blocks, reader


def test_from_trace_to_fix(tmp_path: Path) -> None:
    with reader(tmp_path) as somebody:
        somebody.follow(blocks("from_trace_to_fix"))
    assert len(list((tmp_path / "datasets" / "grasp").glob("episode_*.npz"))) == 1
    assert (tmp_path / "pictures" / "record-000000.png").is_file()
