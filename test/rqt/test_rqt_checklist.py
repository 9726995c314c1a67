# SPDX-License-Identifier: Apache-2.0
"""What a chunk needs, item by item, with the topic that is missing."""

from __future__ import annotations

from typing import Any

from panel_messages import diagnosed, status

from reflex_ros.rqt.board import Board
from reflex_ros.rqt.panel_checklist import Item, checklist

TOPICS = {
    "front": "/front/image_raw",
    "state": "/joint_states",
    "instruction": "/instruction",
    "episode": "/episode",
}


def items(board: Board) -> dict[str, Item]:
    return {item.name: item for item in checklist(board.view(0.0))}


def active(ages_ms: dict[str, str], **fields: Any) -> Board:
    """An active node that has received the streams of `ages_ms`."""
    board = Board("/reflex")
    board.status(status(**fields), 0.0)
    board.diagnostics(diagnosed("connections", **TOPICS), 0.0)
    board.diagnostics(
        diagnosed("observations", **{f"{stream}_age_ms": age for stream, age in ages_ms.items()}), 0.0
    )
    return board


def test_a_node_that_is_not_received_is_the_first_thing_to_mend() -> None:
    assert checklist(Board("/reflex").view(0.0)) == (Item("node", False, "/reflex is not received"),)


def test_every_stream_has_its_topic_and_whether_it_comes() -> None:
    found = items(active({"state": "8"}, problem="camera_missing: no image from camera 'front' yet"))
    assert (found["joints"].ok, found["joints"].topic) == (True, "/joint_states")
    assert (found["camera front"].ok, found["camera front"].topic) == (False, "/front/image_raw")
    assert found["instruction"].ok is None, "not known yet whether the policy reads one"
    assert "episode" not in found


def test_an_instruction_that_is_missed_is_a_thing_to_do_and_one_that_is_there_is_shown() -> None:
    missing = items(active({"state": "8", "camera front": "9"}, problem="no_instruction: publish one"))[
        "instruction"
    ]
    assert (missing.ok, missing.topic) == (False, "/instruction")
    there = items(active({"state": "8", "camera front": "9"}, instruction="reach"))["instruction"]
    assert (there.ok, there.text) == (True, "reach")


def test_joint_names_that_differ_are_in_the_item_of_the_joints() -> None:
    found = items(active({}, problem="joint_names: no joint_1 on /joint_states"))["joints"]
    assert (found.ok, found.text) == (False, "no joint_1 on /joint_states")


def test_a_policy_that_loads_and_a_node_that_is_not_active_are_items() -> None:
    board = Board("/reflex")
    board.status(status(state="loading"), 0.0)
    assert items(board)["policy"] == Item("policy", False, "loading")
    board.status(status(state="inactive", model_version="pick@1"), 0.0)
    assert items(board)["policy"] == Item("policy", True, "pick@1")
    assert items(board)["active"].ok is False
    board.status(status(state="failed"), 0.0)
    assert items(board)["policy"].ok is False


def test_whether_controllers_take_the_commands_is_an_item() -> None:
    board = active({"state": "8"})
    assert "controllers" not in items(board)
    board.diagnostics(diagnosed("outputs", b"\x01"), 0.0)
    assert items(board)["controllers"].ok is False
