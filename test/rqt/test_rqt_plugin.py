# SPDX-License-Identifier: Apache-2.0
"""The plugin as rqt meets it: its manifest, its life, its settings. Without rqt, on a real policy node."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import offscreen
import pytest
from catkin_pkg.package import parse_package
from repository import ROOT
from ros_world import World, world
from servers import ExportDir

from reflex_ros.rqt import window
from reflex_ros.rqt.plugin import DEFAULT_NODE, ReflexPlugin


class Context:
    """What rqt hands to a plugin."""

    def __init__(self, number: int = 1) -> None:
        self._number = number
        self.widgets: list[Any] = []

    def serial_number(self) -> int:
        return self._number

    def add_widget(self, widget: Any) -> None:
        self.widgets.append(widget)


class Kept:
    """Settings of a plugin in a perspective."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def set_value(self, key: str, value: Any) -> None:
        self.values[key] = value

    def value(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir) -> Iterator[World]:
    with world(export_dir=str(export_dir("calm")), embodiment="franka", robot_id="arm7") as found:
        found.activate()
        found.robot.next_chunk()
        yield found


@pytest.fixture
def domain(scene: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin finds its domain where every program does: in the environment."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(scene.robot.spinner.context.get_domain_id()))


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def plugin(domain: None, context: Context) -> Iterator[ReflexPlugin]:
    offscreen.application()
    found = ReflexPlugin(context)
    yield found
    found.shutdown_plugin()


def test_the_manifest_names_a_class_that_can_be_imported() -> None:
    package = parse_package(str(ROOT / "package.xml"))
    [export] = [export for export in package.exports if export.tagname == "rqt_gui"]
    manifest = ROOT / export.attributes["plugin"].replace("${prefix}/", "")
    [found] = ElementTree.parse(manifest).getroot().iter("class")
    assert found.attrib["base_class_type"] == "rqt_gui_py::Plugin"
    module, name = found.attrib["type"].rsplit(".", 1)
    assert getattr(importlib.import_module(module), name) is ReflexPlugin
    assert found.findtext("qtgui/label")


def test_the_manifest_is_installed() -> None:
    assert re.search(r"install\(FILES plugin.xml DESTINATION share", (ROOT / "CMakeLists.txt").read_text())


def test_it_adds_one_panel_that_comes_alive(plugin: ReflexPlugin, context: Context) -> None:
    [panel] = context.widgets
    offscreen.until(lambda: panel.banner.word.text() == "READY", "the panel shows the node's state")
    offscreen.until(lambda: "arm7" in panel.banner.facts.text(), "and which robot it is")
    assert panel.windowTitle() == "Reflex"


def test_stop_on_the_panel_stops_the_robot(scene: World, plugin: ReflexPlugin, context: Context) -> None:
    [panel] = context.widgets
    offscreen.until(lambda: panel.banner.word.text() == "READY", "the node is heard")
    panel.banner.stop.click()
    offscreen.until(lambda: scene.robot.status.stopped, "the robot is stopped")
    offscreen.until(panel.banner.resume.isEnabled, "resume can be clicked")
    panel.banner.resume.click()
    offscreen.until(lambda: "press again" in panel.banner.resume.text(), "it asks for a second press")
    panel.banner.resume.click()
    offscreen.until(lambda: not scene.robot.status.stopped, "it goes on")


def test_a_second_panel_has_a_title_of_its_own(domain: None) -> None:
    offscreen.application()
    second = ReflexPlugin(Context(2))
    assert second.panel.windowTitle() == "Reflex (2)"
    second.shutdown_plugin()


def test_another_node_can_be_watched_and_the_first_is_let_go(plugin: ReflexPlugin, context: Context) -> None:
    first = plugin._client
    plugin.watch("elsewhere/reflex ")
    assert plugin.node == "/elsewhere/reflex"
    assert not first._thread.is_alive()
    [panel] = context.widgets
    offscreen.until(
        lambda: "received from /elsewhere/reflex" in panel.banner.sentence.text(), "the panel says so"
    )
    plugin.watch(DEFAULT_NODE)
    offscreen.until(lambda: panel.banner.word.text() == "READY", "back again")


def test_a_name_of_nothing_changes_nothing(plugin: ReflexPlugin) -> None:
    client = plugin._client
    for name in ("", " ", "/", DEFAULT_NODE, "reflex"):
        plugin.watch(name)
    assert plugin._client is client


def test_the_perspective_remembers_the_node(plugin: ReflexPlugin) -> None:
    kept = Kept()
    plugin.watch("/left/reflex")
    plugin.save_settings(Kept(), kept)
    plugin.watch("/reflex")
    plugin.restore_settings(Kept(), kept)
    assert plugin.node == "/left/reflex"
    plugin.restore_settings(Kept(), Kept())
    assert plugin.node == DEFAULT_NODE, "a perspective that says nothing"


def test_a_panel_that_is_closed_leaves_no_thread(domain: None) -> None:
    offscreen.application()
    before = set(threading.enumerate())
    plugin = ReflexPlugin(Context())
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["reflex panel"]
    plugin.shutdown_plugin()
    assert set(threading.enumerate()) - before == set()
    assert not plugin.panel._timer.isActive()


def test_a_name_that_ros_cannot_take_is_said_and_the_old_node_stays(plugin: ReflexPlugin) -> None:
    plugin.watch("/not a name!")
    assert plugin.node == DEFAULT_NODE
    assert "not a name!" in plugin._client.board.view(0.0).notice


def test_a_picture_can_be_taken_without_rqt(domain: None, tmp_path: Path) -> None:
    from reflex_ros.rqt.qt import QtGui

    picture = tmp_path / "panel.png"
    assert window.main(["--picture", str(picture), "--after", "0.2"]) == 0
    image = QtGui.QImage(str(picture))
    assert (image.width(), image.height()) >= window.SIZE


def test_a_picture_that_cannot_be_written_is_a_failure(
    domain: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert window.main(["--picture", str(tmp_path / "nowhere" / "panel.png"), "--after", "0"]) == 1
    assert "cannot write" in capsys.readouterr().err


def groups(document: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split("/"):
        document = document["groups"][name]
    return {key: ast.literal_eval(entry["repr"]) for key, entry in document["keys"].items()}


def test_the_perspective_opens_the_panel_beside_rqts_own_tools() -> None:
    document = json.loads((ROOT / "config" / "reflex.perspective").read_text(encoding="utf-8"))
    running = groups(document, "pluginmanager")["running-plugins"]
    assert set(running) == {
        "reflex_ros/Reflex", "rqt_plot/Plot", "rqt_robot_monitor/RobotMonitor", "rqt_reconfigure/Param",
    }  # fmt: skip
    assert groups(document, "pluginmanager/plugin__reflex_ros__Reflex__1/plugin")["node"] == DEFAULT_NODE


def test_what_the_perspective_plots_is_published() -> None:
    from reflex_ros.msg import ServeStatus

    document = json.loads((ROOT / "config" / "reflex.perspective").read_text(encoding="utf-8"))
    topics = groups(document, "pluginmanager/plugin__rqt_plot__Plot__1/plugin")["topics"]
    fields = ServeStatus.get_fields_and_field_types()
    assert topics
    for topic in topics:
        prefix, name = topic.rsplit("/", 1)
        assert prefix == "/reflex/status"
        assert fields[name] in ("double", "uint64", "uint32")


def test_without_qt_one_sentence_says_what_is_missing_and_the_rest_works() -> None:
    script = (
        "import sys\n"
        "for name in ('PyQt5', 'python_qt_binding'): sys.modules[name] = None\n"
        "import reflex_ros.rqt, reflex_ros.rqt.board, reflex_ros.rqt.scale, reflex_ros.rqt.panel_checklist, reflex_ros.rqt.panel_theme\n"
        "from reflex_ros.rqt.window import main\n"
        "sys.exit(main([]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "reflex panel: the reflex panel needs Qt: apt install python3-python-qt-binding (rqt brings it), or pip"
        " install PyQt5"
    ]
