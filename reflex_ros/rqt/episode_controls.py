# SPDX-License-Identifier: Apache-2.0
"""What a person gives the robot to do: an instruction, a new episode, and how the episode ended."""

from __future__ import annotations

from typing import Any

from reflex_ros.rqt.labels import button, label
from reflex_ros.rqt.panel_view import View
from reflex_ros.rqt.qt import QtWidgets

MOST_CHARACTERS = 1000  # the node ignores longer instructions
INSTRUCTION = "What the policy is to do, in its own words. Sent on the node's instruction topic; the robot follows it at once."
NO_TOPIC = "The node takes no instruction now: it is active once it serves."
NO_EPISODE = "No episode runs: begin one first."
OUTCOME = "Report how the running episode ended (~/outcome). The robot goes on: press STOP to hold it."


class EpisodeControls(QtWidgets.QGroupBox):
    """robot: a callable that returns the client, for it changes with the node."""

    def __init__(self, robot: Any) -> None:
        super().__init__("Operate")
        self._robot = robot
        grid = QtWidgets.QGridLayout(self)
        grid.setContentsMargins(8, 4, 8, 6)
        self.text = QtWidgets.QLineEdit()
        self.text.setMaxLength(MOST_CHARACTERS)
        self.text.setPlaceholderText("type an instruction, such as: pick up the red cube")
        self.text.setAccessibleName("instruction")
        self.text.setToolTip(INSTRUCTION)
        self.text.returnPressed.connect(self._send)
        self.text.textChanged.connect(lambda _: self._allow())
        self.send = button("Send", INSTRUCTION)
        self.send.clicked.connect(lambda _: self._send())
        self.begin = button(
            "New episode",
            "Begin an episode: history and real-time chunking start anew, recorders count from 0.",
        )
        self.begin.clicked.connect(lambda _: robot().begin_episode())
        self.success = button("Success", OUTCOME)
        self.success.clicked.connect(lambda _: robot().end_episode(True))
        self.failure = button("Failure", OUTCOME)
        self.failure.clicked.connect(lambda _: robot().end_episode(False))
        heading = label("Instruction")
        heading.setBuddy(self.text)
        grid.addWidget(heading, 0, 0)
        grid.addWidget(self.text, 0, 1)
        grid.addWidget(self.send, 0, 2)
        row = QtWidgets.QHBoxLayout()
        row.addWidget(self.begin)
        row.addSpacing(12)
        row.addWidget(label("It ended in"))
        row.addWidget(self.success)
        row.addWidget(self.failure)
        row.addStretch(1)
        grid.addWidget(label("Episode"), 1, 0)
        grid.addLayout(row, 1, 1, 1, 2)
        self._topic = self._serving = False
        self._allow()

    def show_view(self, view: View) -> None:
        """Switch on what acts now."""
        self._serving = view.heard and view.state in ("ready", "degraded")
        self._topic = view.heard and bool(view.topics.get("instruction"))
        self._allow()
        runs = self._serving and bool(view.figures.episode)
        for widget in (self.success, self.failure):
            widget.setEnabled(runs)
            widget.setToolTip(OUTCOME if runs else NO_EPISODE)
        self.begin.setEnabled(self._serving)

    def _allow(self) -> None:
        self.text.setEnabled(self._topic)
        self.text.setToolTip(INSTRUCTION if self._topic else NO_TOPIC)
        self.send.setEnabled(self._topic and bool(self.text.text().strip()))

    def _send(self) -> None:
        text = self.text.text().strip()
        if text and self._topic:
            self._robot().instruct(text)
            self.text.clear()
