# SPDX-License-Identifier: Apache-2.0
"""pi0.5 from LeRobot's checkpoint to an answer over HTTP: the state is in the prompt, statistics are quantiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from agreement import LIMIT, over_http, replayed
from lerobot_answers import LeRobot

Exported = Callable[..., Path]
Policies = Callable[[str], LeRobot]
NAMES = ["pi05", "pi05_relative"]


@pytest.mark.parametrize("name", NAMES)
def test_a_server_gives_lerobots_own_actions(name: str, exported: Exported, lerobot: Policies) -> None:
    found = over_http(exported(name), lerobot(name))
    assert max(found.values()) <= LIMIT, found


@pytest.mark.parametrize("name", NAMES)
def test_what_was_served_is_replayed_bit_for_bit(name: str, exported: Exported, tmp_path: Path) -> None:
    summary = replayed(exported(name), tmp_path)
    assert (summary["n_diffed"], summary["max_abs_diff"]) == (3, 0.0)


def test_the_state_enters_through_the_prompt_alone(exported: Exported) -> None:
    document = json.loads((exported("pi05") / "reflex_config.json").read_text(encoding="utf-8"))
    assert document["state"]["enters"] == "prompt"
    assert "input" not in document["state"]
    assert document["batch"] == {"verified": [1, 2, 4]}
