# SPDX-License-Identifier: Apache-2.0
"""The banner: one word in its colour, why, what to do next, what the robot does, and the buttons that act."""

from __future__ import annotations

from typing import Any

from reflex_ros.rqt.controls import Twice
from reflex_ros.rqt.labels import button, label, plain, set_text
from reflex_ros.rqt.operator_state import OperatorState, operator_state
from reflex_ros.rqt.panel_theme import BANNER, SIGNS
from reflex_ros.rqt.panel_view import View
from reflex_ros.rqt.qt import QtCore, QtWidgets
from reflex_ros.sidecar.operator_words import LOST

WORD_POINTS, SENTENCE_POINTS = 24, 11
LEAST_BUTTON = (124, 40)  # pixels
STOP_STYLE = (
    "QPushButton { background: #c93a08; color: white; font-weight: bold; font-size: 18pt; padding: 8px 26px;"
    " border-radius: 6px; border: 3px solid #c93a08 }"
    " QPushButton:pressed { background: #7d2300 } QPushButton:focus { border-color: white }"
)
MEANINGS = (
    "READY: chunks are computed and commanded. WAITING: something is missing, nothing is wrong. HOLDING: the robot is held where it"
    " is, and goes on by itself. STOPPED: held until Resume. TRIPPED: held until the guard is reset. FAILED: no policy can be"
    " served. NO CONNECTION: no message for 3 s."
)


class Banner(QtWidgets.QFrame):
    """robot: a callable that returns the client, for it changes with the node."""

    def __init__(self, robot: Any) -> None:
        super().__init__()
        self.setObjectName("ReflexBanner")
        self._level = ""
        self.word, self.sign = label(), label()
        self.sentence, self.todo = label(word_wrap=True), label(word_wrap=True)
        self.facts = label(word_wrap=True)
        self.notes = label(word_wrap=True)
        self.word.setToolTip(MEANINGS)
        self.stop = button(
            "STOP", "Have the robot hold until Resume. A request over the network: no emergency stop. Alt+S"
        )
        self.stop.setShortcut("Alt+S")
        self.stop.setStyleSheet(STOP_STYLE)
        self.stop.clicked.connect(lambda _: robot().stop())
        self.resume = button("Resume", "Go on from a fresh observation. The robot moves: press twice.")
        self.reset = button(
            "Reset guard", "End the guard's hold once you know its cause. The robot moves: press twice."
        )
        self.reset_breaker = button(
            "Reset breaker", "Let the model infer again before the next probe. Press twice."
        )
        self._twice = {
            "resume": Twice(self.resume, lambda: robot().resume()),
            "reset": Twice(self.reset, lambda: robot().reset_guard()),
            "breaker": Twice(self.reset_breaker, lambda: robot().reset_breaker()),
        }
        self._arrange()

    def _arrange(self) -> None:
        grid = QtWidgets.QGridLayout(self)
        grid.setContentsMargins(14, 10, 12, 10)
        grid.setHorizontalSpacing(12)
        for widget, points, bold in (
            (self.sign, WORD_POINTS, True), (self.word, WORD_POINTS, True), (self.sentence, SENTENCE_POINTS, True),
            (self.todo, SENTENCE_POINTS, False), (self.facts, SENTENCE_POINTS - 1, False), (self.notes, SENTENCE_POINTS - 1, True),
        ):  # fmt: skip
            font = widget.font()
            font.setPointSize(points)
            font.setBold(bold)
            widget.setFont(font)
        head = QtWidgets.QHBoxLayout()
        for widget in (self.sign, self.word):
            widget.setSizePolicy(QtWidgets.QSizePolicy.Fixed, QtWidgets.QSizePolicy.Preferred)
            head.addWidget(widget, 0, QtCore.Qt.AlignTop)
        head.setSpacing(10)
        why = QtWidgets.QVBoxLayout()
        why.setSpacing(1)
        why.setContentsMargins(8, 2, 0, 0)
        for widget in (self.sentence, self.todo, self.notes):
            why.addWidget(widget)
        why.addStretch(1)
        head.addLayout(why, 1)
        grid.addLayout(head, 0, 0)
        grid.addWidget(self.facts, 1, 0)
        grid.addWidget(self.stop, 0, 2, 2, 1)
        buttons = QtWidgets.QVBoxLayout()
        for widget in (self.resume, self.reset, self.reset_breaker):
            font = widget.font()
            font.setBold(True)
            widget.setFont(font)
            widget.setMinimumSize(*LEAST_BUTTON)
            buttons.addWidget(widget)
        buttons.addStretch(1)
        grid.addLayout(buttons, 0, 1, 2, 1)
        grid.setColumnStretch(0, 1)
        self.stop.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Expanding)

    def forget_presses(self) -> None:
        """Forget first presses: they were meant for another robot."""
        for twice in self._twice.values():
            twice.allow(False)

    def show_view(self, view: View) -> None:
        """Show another moment."""
        state = operator_state(view)
        self._colour(state)
        set_text(self.word, state.word)
        set_text(self.sentence, plain(state.sentence))
        set_text(self.todo, plain(state.todo))
        self.todo.setVisible(bool(state.todo))
        set_text(self.notes, " · ".join(plain(note) for note in state.notes))
        self.notes.setVisible(bool(state.notes))
        set_text(self.facts, _facts(view, BANNER[state.level][1]))
        self.setAccessibleName(state.word)
        self.setAccessibleDescription(f"{state.sentence} {state.todo}".strip())
        figures = view.figures
        for name, shown_button, allowed in (
            ("resume", self.resume, view.heard and figures.stopped),
            ("reset", self.reset, view.heard and figures.guard_tripped),
            ("breaker", self.reset_breaker, view.heard and view.state == "degraded"),
        ):
            if not allowed and shown_button.hasFocus():
                self.stop.setFocus()
            self._twice[name].allow(allowed)
            shown_button.setVisible(allowed)

    def _colour(self, state: OperatorState) -> None:
        if state.level == self._level:
            return
        self._level = state.level
        ground, text = BANNER[state.level]
        self.sign.setText(SIGNS[state.level])
        edge = f"2px dashed {text}" if state.level == LOST else f"2px solid {ground}"
        self.setStyleSheet(
            f"#ReflexBanner {{ background: {ground}; border: {edge}; border-radius: 8px }}"
            f" #ReflexBanner QLabel {{ color: {text} }}"
        )


def _facts(view: View, colour: str) -> str:
    """Return instruction, policy, episode and robot on one line."""
    figures = view.figures
    robot = " ".join(filter(None, (view.robot, f"({figures.embodiment})" if figures.embodiment else "")))
    rows = (
        ("instruction", figures.instruction), ("episode", figures.episode), ("policy", figures.policy), ("robot", robot),
    )  # fmt: skip
    style = f'style="color: {colour}"'
    shown = [f"<span {style}>{name}</span>&nbsp;<b>{plain(text, 120)}</b>" for name, text in rows if text]
    return "&nbsp;&nbsp;&nbsp; ".join(shown)
