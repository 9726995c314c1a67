# SPDX-License-Identifier: Apache-2.0
"""The Foxglove layout: whole in itself, and every topic and field in it is in a real bag or on a real node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from bags import bags, messages
from repository import ROOT
from ros_world import wait_for, world
from servers import ExportDir

LAYOUT = json.loads((ROOT / "dashboards" / "foxglove.json").read_text(encoding="utf-8"))
PANELS: dict[str, dict[str, Any]] = LAYOUT["configById"]
ONLY_LIVE, ONLY_IN_BAGS = {"/rosout"}, {"/reflex/trace"}
TAKES = {
    "Image": "sensor_msgs/msg/Image",
    "DiagnosticSummary": "diagnostic_msgs/msg/DiagnosticArray",
    "DiagnosticStatusPanel": "diagnostic_msgs/msg/DiagnosticArray",
    "RosOut": "rcl_interfaces/msg/Log",
}


def kind(panel: str) -> str:
    return panel.split("!", maxsplit=1)[0]


def leaves(layout: Any) -> Iterator[str]:
    """Panels in the order in which they lie, those in tabs too."""
    if isinstance(layout, str):
        yield layout
        for tab in PANELS[layout].get("tabs", []):
            yield from leaves(tab["layout"])
        return
    assert layout["direction"] in {"row", "column"}
    assert 0 < layout["splitPercentage"] < 100
    yield from leaves(layout["first"])
    yield from leaves(layout["second"])


def paths(panel: str) -> list[str]:
    """The message paths that a panel draws or prints."""
    config = PANELS[panel]
    found = [entry["value"] for entry in config.get("paths", [])]
    return (
        found
        + [config[key] for key in ("topicPath", "topicToRender") if key in config]
        + [config[key]["imageTopic"] for key in ("imageMode",) if key in config]
    )


def topic_of(path: str) -> str:
    return path.split(".", maxsplit=1)[0]


def value_at(message: Any, path: str) -> Any:
    """What Foxglove reads: fields by name, [3] an element, [:] all of them (here the first)."""
    for field, index in re.findall(r"\.(\w+)(?:\[(\d+|:)\])?", path):
        message = getattr(message, field)
        if index:
            assert len(message), path
            message = message[0 if index == ":" else int(index)]
    return message


ALL_PATHS = [(panel, path) for panel in PANELS for path in paths(panel)]


def test_the_layout_has_each_panel_once_and_nothing_else() -> None:
    assert set(LAYOUT) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    laid = list(leaves(LAYOUT["layout"]))
    assert len(set(laid)) == len(laid)
    assert set(laid) == set(PANELS)


def test_it_has_what_a_person_looks_for() -> None:
    kinds = {kind(panel) for panel in PANELS}
    assert kinds >= {"Image", "Plot", "StateTransitions", "DiagnosticSummary", "RawMessages", "RosOut"}
    drawn = {path for panel, path in ALL_PATHS if kind(panel) == "Plot"}
    assert {"/reflex/status.latency_ms", "/reflex/joint_trajectory.points[:].positions[0]"} <= drawn


def test_a_plotted_path_is_enabled_and_named() -> None:
    """Foxglove draws nothing for a path that does not say `enabled`."""
    for panel, config in PANELS.items():
        if kind(panel) == "Plot":
            assert all(entry["enabled"] and entry["label"] for entry in config["paths"])


@dataclass(frozen=True)
class Seen:
    """kinds: the type of every topic of the running node. bag: the first message of every topic of its bag."""

    kinds: dict[str, list[str]]
    bag: dict[str, Any]


@pytest.fixture(scope="module")
def seen(export_dir: ExportDir, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    directory = tmp_path_factory.mktemp("foxglove")
    export = str(export_dir("mono_pi0_7"))
    with world(export_dir=export, embodiment="franka", record_bag=str(directory)) as scene:
        scene.activate()
        scene.robot.begin("ep-1")
        scene.robot.next_chunk()
        wait_for(lambda: scene.robot.diagnostics and scene.robot.statuses, "status and diagnostics")
        kinds = dict(scene.server.node.get_topic_names_and_types())
    [path] = bags(directory)
    found: dict[str, Any] = {}
    for topic, _, message in messages(path):
        if topic != "/reflex/joint_trajectory" or len(message.points) > 1:
            found.setdefault(topic, message)
    return Seen(kinds, found)


def test_every_topic_is_live_and_in_the_bag_but_log_and_trace(seen: Seen) -> None:
    topics = {topic_of(path) for _, path in ALL_PATHS}
    assert topics - set(seen.kinds) == ONLY_IN_BAGS
    assert topics - set(seen.bag) == ONLY_LIVE


def test_every_field_is_in_the_messages_of_the_bag_and_can_be_drawn(seen: Seen) -> None:
    for panel, path in ALL_PATHS:
        if topic_of(path) in ONLY_LIVE:
            continue
        value = value_at(seen.bag[topic_of(path)], path)
        if kind(panel) == "Plot":
            assert isinstance(float(value), float), path


def test_every_panel_takes_the_type_of_its_topic(seen: Seen) -> None:
    for panel, path in ALL_PATHS:
        if kind(panel) in TAKES:
            assert seen.kinds[topic_of(path)] == [TAKES[kind(panel)]], panel
