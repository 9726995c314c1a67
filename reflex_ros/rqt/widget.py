# SPDX-License-Identifier: Apache-2.0
"""The panel: draws the board's view ten times a second, in the Qt thread, and calls the client for what is pressed."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

from reflex_ros.rqt.camera_view import CameraView
from reflex_ros.rqt.chunk_plot import ChunkPlot
from reflex_ros.rqt.details import Details
from reflex_ros.rqt.episode_controls import EpisodeControls
from reflex_ros.rqt.labels import label, plain, set_text
from reflex_ros.rqt.latency_plot import LatencyPlot
from reflex_ros.rqt.operator_banner import Banner
from reflex_ros.rqt.operator_state import operator_state
from reflex_ros.rqt.panel_checklist import Item, checklist
from reflex_ros.rqt.panel_theme import widget_theme
from reflex_ros.rqt.panel_view import View
from reflex_ros.rqt.qt import QtCore, QtWidgets
from reflex_ros.sidecar.operator_words import FAILED, WAITING

REFRESH_MS = 100
NODE = "The policy node that this panel shows. Every node that publishes a status is in the list; another name can be typed."


class Robot(Protocol):
    """The client's methods that the panel calls."""

    def stop(self) -> None:
        """Hold until `resume`."""

    def resume(self) -> None:
        """Undo `stop`."""

    def reset_guard(self) -> None:
        """Take a tripped guard back into service."""

    def reset_breaker(self) -> None:
        """Close the circuit breakers."""

    def instruct(self, text: str) -> None:
        """Give the robot another instruction."""

    def begin_episode(self) -> None:
        """Begin a new episode."""

    def end_episode(self, success: bool) -> None:
        """Report how the running episode ended."""

    def set_split(self, percent: int) -> None:
        """Give slot a `percent` of the new episodes."""

    def set_blend(self, percent: int) -> None:
        """Let `percent` of the policy's motion through."""

    def show_cameras(self, shown: bool) -> None:
        """Receive the cameras' pictures from now on, or none."""


class Panel(QtWidgets.QWidget):
    """look: the newest view; robot: what the buttons act on; choose: called with the name of another node."""

    def __init__(
        self,
        look: Callable[[float], View],
        robot: Robot,
        choose: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.setObjectName("ReflexPanel")
        self.setWindowTitle("Reflex")
        self._look, self._robot, self._choose = look, robot, choose
        self._clock, self._wall_s = clock, wall_s
        self._make()
        self._timer = QtCore.QTimer(self)
        self._timer.timeout.connect(self.refresh)
        self._timer.start(REFRESH_MS)
        self.refresh()

    def use(self, look: Callable[[float], View], robot: Robot) -> None:
        """Watch another node from now on."""
        self._look, self._robot = look, robot
        robot.show_cameras(self.isVisible())
        self.banner.forget_presses()
        self.refresh()

    def end(self) -> None:
        """Stop refreshing."""
        self._timer.stop()
        self._robot.show_cameras(False)

    def showEvent(self, event: Any) -> None:  # noqa: N802  (Qt calls it so)
        """Receive pictures while the panel can be seen."""
        super().showEvent(event)
        self._robot.show_cameras(True)

    def hideEvent(self, event: Any) -> None:  # noqa: N802  (Qt calls it so)
        """Receive none while it cannot."""
        super().hideEvent(event)
        self._robot.show_cameras(False)

    def _make(self) -> None:
        outer = QtWidgets.QVBoxLayout(self)
        outer.setContentsMargins(8, 6, 8, 8)
        outer.addLayout(self._make_head())
        self.banner = Banner(lambda: self._robot)
        outer.addWidget(self.banner)
        body = QtWidgets.QSplitter(QtCore.Qt.Horizontal)
        body.addWidget(self._make_left())
        body.addWidget(self._make_right())
        body.setSizes([560, 640])
        body.setChildrenCollapsible(False)
        outer.addWidget(body, 1)
        order = [
            self.banner.stop, self.banner.resume, self.banner.reset, self.banner.reset_breaker, self.episode.text, self.episode.send,
            self.episode.begin, self.episode.success, self.episode.failure, self.details,
        ]  # fmt: skip
        for before, after in pairwise(order):
            QtWidgets.QWidget.setTabOrder(before, after)

    def _make_head(self) -> Any:
        head = QtWidgets.QHBoxLayout()
        self.node = QtWidgets.QComboBox()
        self.node.setEditable(True)
        self.node.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
        self.node.setFocusPolicy(QtCore.Qt.ClickFocus)  # what is being typed in is not refreshed
        self.node.setMinimumWidth(180)
        self.node.setAccessibleName("policy node")
        self.node.setToolTip(NODE)
        self.node.activated.connect(lambda _: self._choose(self.node.currentText()))
        self.node.lineEdit().returnPressed.connect(lambda: self._choose(self.node.currentText()))
        heading = label("Node")
        heading.setBuddy(self.node)
        self.notice = label()
        self.notice.setAccessibleName("result of the newest action")
        self.notice.setTextInteractionFlags(QtCore.Qt.TextSelectableByMouse)
        head.addWidget(heading)
        head.addWidget(self.node)
        head.addSpacing(10)
        head.addWidget(self.notice, 1)
        return head

    def _make_left(self) -> Any:
        left = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(left)
        column.setContentsMargins(0, 4, 6, 0)
        self.camera, self.latency = CameraView(), LatencyPlot(self._wall_s)
        self.episode = EpisodeControls(lambda: self._robot)
        column.addWidget(self.camera, 5)
        column.addWidget(self.episode)
        column.addWidget(self.latency, 2)
        return left

    def _make_right(self) -> Any:
        right = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(right)
        column.setContentsMargins(6, 4, 0, 0)
        self.chunk = ChunkPlot()
        area = QtWidgets.QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QtWidgets.QFrame.NoFrame)
        area.setFocusPolicy(QtCore.Qt.NoFocus)
        area.setWidget(self.chunk)
        self.checklist = label(word_wrap=True)
        self.checklist.setAlignment(QtCore.Qt.AlignTop)
        self.checklist.setAccessibleName("checklist")
        flags = QtCore.Qt.TextSelectableByMouse | QtCore.Qt.TextSelectableByKeyboard
        self.checklist.setTextInteractionFlags(flags)
        self.front = QtWidgets.QStackedWidget()
        self.front.addWidget(area)
        self.front.addWidget(self.checklist)
        self.details = Details(lambda: self._robot, self._wall_s)
        column.addWidget(self.front, 3)
        column.addWidget(self.details, 2)
        return right

    def refresh(self) -> None:
        """Show the newest view; for the Qt thread."""
        now_s = self._clock()
        view = self._look(now_s)
        self._show_nodes(view)
        self.banner.show_view(view)
        self.camera.show_view(view, now_s)
        self.episode.show_view(view)
        self.latency.show_view(view, now_s)
        self._show_front(view, now_s)
        self.details.show_view(view, now_s)
        theme = widget_theme(self)
        colour = theme.soft if view.notice_ok else theme.red
        set_text(
            self.notice, f'<span style="color: {colour}">{plain(view.notice)}</span>' if view.notice else ""
        )

    def _show_front(self, view: View, now_s: float) -> None:
        """Show what is missing while the robot waits, and the chunk else."""
        waits = operator_state(view).word in (WAITING, FAILED) or view.chunk is None
        self.front.setCurrentIndex(1 if waits else 0)
        if not waits:
            self.chunk.show_view(view, now_s)
            return
        items = checklist(view)
        set_text(self.checklist, self._table(items))
        self.checklist.setAccessibleDescription(
            "; ".join(f"{item.name}: {item.text} {item.topic}" for item in items)
        )

    def _table(self, items: tuple[Item, ...]) -> str:
        theme = widget_theme(self)
        signs = {True: ("✔", theme.green), False: ("✖", theme.red), None: ("–", theme.soft)}
        rows = []
        for item in items:
            sign, colour = signs[item.ok]
            topic = f'<br><span style="color: {theme.soft}">{plain(item.topic)}</span>' if item.topic else ""
            text_colour = theme.text if item.ok is not False else theme.red
            rows.append(
                f'<tr><td style="color: {colour}; padding: 5px 10px 5px 2px"><b>{sign}</b></td>'
                f'<td style="padding: 5px 16px 5px 0"><b>{plain(item.name)}</b>{topic}</td>'
                f'<td style="color: {text_colour}; padding: 5px 0">{plain(item.text)}</td></tr>'
            )
        return f"<b>What a chunk needs</b><table>{''.join(rows)}</table>"

    def _show_nodes(self, view: View) -> None:
        wanted = sorted({view.node, *view.nodes})
        shown = [self.node.itemText(index) for index in range(self.node.count())]
        editing = self.node.lineEdit().hasFocus() or self.node.view().isVisible()
        if wanted == shown or editing:
            return
        self.node.clear()
        self.node.addItems(wanted)
        self.node.setCurrentText(view.node)
