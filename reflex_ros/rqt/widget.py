# SPDX-License-Identifier: Apache-2.0
"""The panel: draws the board's view ten times a second, in the Qt thread, and calls the client for clicks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from reflex_core.values import TELEOP
from reflex_ros.rqt.board import View
from reflex_ros.rqt.controls import PercentSlider, Twice
from reflex_ros.rqt.plots import BLUE, GREEN, GREY, ORANGE, RED, ChunkPlot, LatencyPlot
from reflex_ros.rqt.qt import QtCore, QtWidgets

REFRESH_MS = 100
STATE_COLOURS = {"ready": GREEN, "failed": RED, "degraded": RED, "no answer": GREY}
LEVEL_COLOURS = {0: GREEN, 1: ORANGE, 2: RED, 3: GREY}
ONE_POLICY = "One policy is served: start the node with policy_a and policy_b to share episodes between two."
TWO_POLICIES = "Percent of the new episodes that slot a gets."
BLEND = "How much of the policy's motion is let through: 0 leaves the robot where it is."


class Robot(Protocol):
    """The client's methods that the panel calls."""

    def stop(self) -> None:
        """Hold until `resume`."""

    def resume(self) -> None:
        """Undo `stop`."""

    def reset_guard(self) -> None:
        """Take a tripped guard back into service."""

    def set_split(self, percent: int) -> None:
        """Give slot a `percent` of the new episodes."""

    def set_blend(self, percent: int) -> None:
        """Let `percent` of the policy's motion through."""


class Panel(QtWidgets.QWidget):
    """look: the newest view; robot: what the buttons act on; choose: called with the name of another node."""

    def __init__(
        self,
        look: Callable[[float], View],
        robot: Robot,
        choose: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.setObjectName("ReflexPanel")
        self.setWindowTitle("Reflex")
        self._look, self._robot, self._choose, self._clock = look, robot, choose, clock
        self._make()
        self._timer = QtCore.QTimer(self)
        self._timer.timeout.connect(self.refresh)
        self._timer.start(REFRESH_MS)
        self.refresh()

    def use(self, look: Callable[[float], View], robot: Robot) -> None:
        """Watch another node from now on."""
        self._look, self._robot = look, robot
        for button in (self._resume, self._reset):
            button.allow(False)  # the first press was meant for the other robot
        self.refresh()

    def end(self) -> None:
        """Stop refreshing."""
        self._timer.stop()

    def _make(self) -> None:
        outer = QtWidgets.QVBoxLayout(self)
        outer.addLayout(self._make_head())
        self.banner = _label(word_wrap=True)
        outer.addWidget(self.banner)
        self.tasks = _label(word_wrap=True)
        outer.addWidget(self.tasks)
        body = QtWidgets.QSplitter(QtCore.Qt.Horizontal)
        body.addWidget(self._make_left())
        body.addWidget(self._make_right())
        body.setSizes([560, 520])
        outer.addWidget(body, 1)
        self.notice = _label()
        outer.addWidget(self.notice)

    def _make_head(self) -> Any:
        head = QtWidgets.QHBoxLayout()
        self.node = QtWidgets.QComboBox()
        self.node.setEditable(True)
        self.node.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
        self.node.setFocusPolicy(QtCore.Qt.ClickFocus)  # what is being typed in is not refreshed
        self.node.setMinimumWidth(170)
        self.node.setToolTip("The policy node: all that publish a status are in the list.")
        self.node.activated.connect(lambda _: self._choose(self.node.currentText()))
        self.node.lineEdit().returnPressed.connect(lambda: self._choose(self.node.currentText()))
        self.state = _label()
        self.state.setAlignment(QtCore.Qt.AlignCenter)
        self.state.setMinimumWidth(110)
        self.stop = _button("Stop", "The robot holds until Resume.")
        self.stop.clicked.connect(lambda _: self._robot.stop())
        self.stop.setStyleSheet(
            f"QPushButton {{ background: {RED}; color: white; font-weight: bold; padding: 6px 22px; border-radius: 4px }}"
        )
        self.resume = _button("Resume", "Go on from a fresh observation. Press twice.")
        self._resume = Twice(self.resume, lambda: self._robot.resume())
        self.reset = _button("Reset guard", "See what the policy does first. Press twice.")
        self._reset = Twice(self.reset, lambda: self._robot.reset_guard())
        for widget in (self.node, self.state):
            head.addWidget(widget)
        head.addStretch(1)
        for widget in (self.reset, self.resume, self.stop):
            head.addWidget(widget)
        return head

    def _make_left(self) -> Any:
        left = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(left)
        column.setContentsMargins(0, 0, 6, 0)
        self.latency = LatencyPlot()
        column.addWidget(self.latency, 3)
        column.addWidget(self._make_slots())
        self.incidents_title = _label("<b>guard violations</b>")
        column.addWidget(self.incidents_title)
        self.incidents = QtWidgets.QListWidget()
        self.incidents.setMinimumHeight(70)
        column.addWidget(self.incidents, 2)
        return left

    def _make_slots(self) -> Any:
        box = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(box)
        grid.setContentsMargins(0, 4, 0, 4)
        self.slots = _label()
        self.split = PercentSlider(lambda percent: self._robot.set_split(percent))
        self.split.valueChanged.connect(self._split_moved)
        self.blend = PercentSlider(lambda percent: self._robot.set_blend(percent))
        self.blend.setToolTip(BLEND)
        self.control = _label()
        self.share = _label()
        self.share.setMinimumWidth(120)
        grid.addWidget(self.slots, 0, 0, 1, 3)
        grid.addWidget(_label("<b>split</b>"), 1, 0)
        grid.addWidget(self.split, 1, 1)
        grid.addWidget(self.share, 1, 2)
        grid.addWidget(_label("<b>policy's motion</b>"), 2, 0)
        grid.addWidget(self.blend, 2, 1)
        grid.addWidget(self.control, 2, 2)
        return box

    def _make_right(self) -> Any:
        right = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(right)
        column.setContentsMargins(6, 0, 0, 0)
        self.facts = _label(word_wrap=True)
        column.addWidget(self.facts)
        self.chunk = ChunkPlot()
        area = QtWidgets.QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QtWidgets.QFrame.NoFrame)
        area.setWidget(self.chunk)
        column.addWidget(area, 1)
        return right

    def refresh(self) -> None:
        """Show the newest view; for the Qt thread."""
        now_s = self._clock()
        view = self._look(now_s)
        self._show_nodes(view)
        colour = STATE_COLOURS.get(view.state, BLUE)
        _set(self.state, view.state)
        self.state.setStyleSheet(
            f"background: {colour}; color: white; font-weight: bold; padding: 6px 12px; border-radius: 4px"
        )
        self._show_banner(view)
        _set(self.tasks, "&nbsp;&nbsp; ".join(_task(task.concern, task.level) for task in view.tasks))
        self.tasks.setToolTip("\n".join(f"{task.concern}: {task.message}" for task in view.tasks))
        _set(self.facts, _table(view.facts or {}))
        self._resume.allow(view.heard and view.stopped)
        self._reset.allow(view.heard and view.guard_tripped)
        self.latency.show_view(view, now_s)
        self.chunk.show_view(view, now_s)
        self._show_slots(view)
        self._show_control(view)
        self._show_incidents(view, now_s)
        _set(
            self.notice,
            f'<span style="color: {GREY if view.notice_ok else RED}">{_plain(view.notice)}</span>',
        )

    def _show_nodes(self, view: View) -> None:
        wanted = sorted({view.node, *view.nodes})
        shown = [self.node.itemText(index) for index in range(self.node.count())]
        editing = self.node.lineEdit().hasFocus() or self.node.view().isVisible()
        if wanted == shown or editing:
            return
        self.node.clear()
        self.node.addItems(wanted)
        self.node.setCurrentText(view.node)

    def _show_banner(self, view: View) -> None:
        text, colour = _trouble(view)
        self.banner.setVisible(bool(text))
        _set(self.banner, text)
        self.banner.setStyleSheet(
            f"background: {colour}; color: white; padding: 6px 10px; border-radius: 4px; font-weight: bold"
        )

    def _show_slots(self, view: View) -> None:
        lines = [
            f"<b>slot {slot.name}</b> &nbsp; {_plain(slot.model_version) or 'policy'} &nbsp; {slot.chunks} chunks,"
            f" median {slot.median_ms:.1f} ms"
            for slot in view.slots
        ]
        _set(self.slots, "<br>".join(lines) or "<b>slots</b> &nbsp; no chunk yet")
        self.split.setEnabled(view.heard and view.split is not None)
        self.split.setToolTip(ONE_POLICY if view.split is None else TWO_POLICIES)
        if view.split is None:
            _set(self.share, "one policy")
            return
        self.split.follow(view.split)
        percent = self.split.value()
        _set(self.share, f"a {percent} % · b {100 - percent} %")

    def _split_moved(self, percent: int) -> None:
        _set(self.share, f"a {percent} % · b {100 - percent} %")

    def _show_control(self, view: View) -> None:
        self.blend.setEnabled(view.heard and view.blend is not None)
        if view.blend is not None:
            self.blend.follow(view.blend)
        _set(self.control, f"{view.share} %, {_plain(view.control)} commands" if view.control else "")

    def _show_incidents(self, view: View, now_s: float) -> None:
        lines = [
            f"{now_s - incident.at_s:5.0f} s ago   chunk {incident.chunk_id}   {incident.text}"
            + (f"   ({incident.count} times)" if incident.count > 1 else "")
            for incident in view.incidents
        ]
        lines = lines or ["none seen by this panel"]
        if [self.incidents.item(row).text() for row in range(self.incidents.count())] == lines:
            return
        self.incidents.clear()
        self.incidents.addItems(lines)


def _trouble(view: View) -> tuple[str, str]:
    """Return the most severe condition, and its colour."""
    if not view.heard:
        return f"{_plain(view.node)} says nothing: it is not running, or in another ROS domain", GREY
    if view.guard_tripped:
        return "The guard tripped and the robot holds. See what the policy does, then reset the guard.", RED
    if view.stopped:
        return "Stopped: the robot holds until Resume.", ORANGE
    if view.control == TELEOP:
        return "A person commands the robot; the policy goes on watching.", BLUE
    if view.hold_reason:
        return f"The robot holds: {_plain(view.hold_reason)}", ORANGE
    if view.verdict.startswith("drain-"):
        return f"Slot {_plain(view.verdict[6:])} fails: all episodes go to the other policy.", ORANGE
    if view.slo_violated:
        return f"The latency objective {_plain(view.slo)} is missed.", ORANGE
    return "", GREY


def _label(text: str = "", *, word_wrap: bool = False) -> Any:
    label = QtWidgets.QLabel(text)
    label.setWordWrap(word_wrap)
    return label


def _set(label: Any, text: str) -> None:
    """Set a text only where it changed: setting one lays the whole panel out anew."""
    if label.text() != text:
        label.setText(text)


def _button(text: str, tip: str) -> Any:
    button = QtWidgets.QPushButton(text)
    button.setToolTip(tip)
    return button


def _task(concern: str, level: int) -> str:
    return f'<span style="color: {LEVEL_COLOURS.get(level, GREY)}">●</span>&nbsp;{_plain(concern).replace(" ", "&nbsp;")}'


def _table(facts: Any) -> str:
    rows = [
        f'<tr><td style="color: {GREY}; padding-right: 10px">{_plain(name)}</td><td>{_plain(value)}</td></tr>'
        for name, value in facts.items()
        if value
    ]
    return "<table>" + "".join(rows) + "</table>"


def _plain(text: str) -> str:
    """Return text from a topic with HTML escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
