# SPDX-License-Identifier: Apache-2.0
"""Tabs below the chunk: the guard's events in words, the concerns of /diagnostics, counters, split and blend."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from reflex_core.text.untrusted import escaped
from reflex_ros.rqt.controls import PercentSlider
from reflex_ros.rqt.labels import label, plain, set_text, text_list
from reflex_ros.rqt.operator_state import operator_state
from reflex_ros.rqt.panel_theme import widget_theme
from reflex_ros.rqt.panel_view import GuardEvent, View
from reflex_ros.rqt.qt import QtCore, QtGui, QtWidgets
from reflex_ros.sidecar.operator_words import FAILED, HOLDING, TRIPPED

ONE_POLICY = "One policy is served: start the node with policy_a and policy_b to share episodes between two."
TWO_POLICIES = "Percent of the new episodes that slot a gets."
BLEND = "How much of the policy's motion is let through: 0 leaves the robot where it is."
EVENTS = "What the guard changed or refused, since this panel was opened: which joint, by how much, and what to do."
CONCERNS = "What /diagnostics reports of the node, problems first."
SIGNS = ("✔", "▲", "■", "?")  # of the levels of /diagnostics
NO_EVENTS = "The guard changed nothing since this panel was opened."


class Details(QtWidgets.QTabWidget):
    """robot: a callable that returns the client, for it changes with the node."""

    def __init__(self, robot: Any, wall_s: Callable[[], float]) -> None:
        """Create it. wall_s: seconds since 1970, for the times of events."""
        super().__init__()
        self.setDocumentMode(True)
        self._wall_s, self._word = wall_s, ""
        self._shown_events: tuple[GuardEvent, ...] | None = None
        self.events, self.concerns = text_list("guard events", EVENTS), text_list("concerns", CONCERNS)
        self.addTab(self.events, "Guard")
        self.addTab(self.concerns, "Concerns")
        self.addTab(self._make_counters(), "Counters")
        self.addTab(self._make_shares(robot), "Split and blend")
        for tab, explanation in enumerate(
            (EVENTS, CONCERNS, "Numbers since the node was started.", TWO_POLICIES)
        ):
            self.setTabToolTip(tab, explanation)

    def _make_counters(self) -> Any:
        self.counters = label(word_wrap=True)
        self.counters.setAlignment(QtCore.Qt.AlignTop)
        self.counters.setMargin(8)
        self.counters.setAccessibleName("counters")
        return self.counters

    def _make_shares(self, robot: Any) -> Any:
        box = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(box)
        self.slots = label(word_wrap=True)
        self.split = PercentSlider(lambda percent: robot().set_split(percent))
        self.split.setAccessibleName("split of new episodes, percent to slot a")
        self.split.valueChanged.connect(self._split_moved)
        self.blend = PercentSlider(lambda percent: robot().set_blend(percent))
        self.blend.setAccessibleName("share of the policy's motion, percent")
        self.blend.setToolTip(BLEND)
        self.control, self.share = label(), label()
        self.share.setMinimumWidth(120)
        grid.addWidget(self.slots, 0, 0, 1, 3)
        for row, (name, slider, text) in enumerate(
            (("Split", self.split, self.share), ("Policy's motion", self.blend, self.control)), start=1
        ):
            heading = label(name)
            heading.setBuddy(slider)
            grid.addWidget(heading, row, 0)
            grid.addWidget(slider, row, 1)
            grid.addWidget(text, row, 2)
        grid.setRowStretch(3, 1)
        return box

    def show_view(self, view: View, now_s: float) -> None:
        """Show another moment."""
        self._turn_to(operator_state(view).word)
        self._show_events(view, now_s)
        self._show_concerns(view)
        self._show_counters(view)
        self._show_slots(view)
        self.blend.setEnabled(view.heard and view.blend is not None)
        if view.blend is not None:
            self.blend.follow(view.blend)
        control, share = view.figures.control, view.figures.share
        set_text(self.control, f"{share} %, {plain(control)} commands" if control else "")

    def _turn_to(self, word: str) -> None:
        """Turn to the tab that explains a new state, from one of the two that do."""
        if word == self._word:
            return
        self._word = word
        explaining = {TRIPPED: self.events, HOLDING: self.concerns, FAILED: self.concerns}
        if word in explaining and self.currentWidget() in (self.events, self.concerns):
            self.setCurrentWidget(explaining[word])

    def _show_events(self, view: View, now_s: float) -> None:
        if view.events == self._shown_events:
            return
        self._shown_events = view.events
        offset_s = self._wall_s() - now_s
        self.events.clear()
        advice = ""
        for event in view.events:
            item = QtWidgets.QListWidgetItem(event_text(event, offset_s, advice=event.advice != advice))
            advice = event.advice
            item.setToolTip(escaped(event.line, 200))
            self.events.addItem(item)
        if not view.events:
            self.events.addItem(NO_EVENTS)
        self.setTabText(0, f"Guard ({len(view.events)})" if view.events else "Guard")

    def _show_concerns(self, view: View) -> None:
        ordered = sorted(view.concerns, key=lambda concern: -(concern.level % 3))
        lines = [f"{SIGNS[min(c.level, 3)]}  {c.name}: {escaped(c.message, 400)}" for c in ordered]
        lines = lines or ["No /diagnostics received from this node yet."]
        many = sum(concern.level in (1, 2) for concern in view.concerns)
        self.setTabText(1, f"Concerns ({many})" if many else "Concerns")
        if [self.concerns.item(row).text() for row in range(self.concerns.count())] == lines:
            return
        theme = widget_theme(self)
        self.concerns.clear()
        for line in lines:
            item = QtWidgets.QListWidgetItem(line)
            level = SIGNS.index(line[0]) if line[0] in SIGNS else 0
            if level:
                item.setForeground(QtGui.QBrush(QtGui.QColor(theme.levels[level])))
            self.concerns.addItem(item)

    def _show_counters(self, view: View) -> None:
        f = view.figures
        hits = (
            f"{f.cache_hits} of {f.cache_hits + f.cache_misses}" if f.cache_hits + f.cache_misses else "off"
        )
        rows = (
            ("chunks", f.chunks), ("changed by the guard", f.clamped), ("fallbacks", f.fallbacks), ("holds", f.holds),
            ("observations refused", f.refused), ("errors", f.errors), ("guided by the chunk before", f.guided or "off"),
            ("prefix cache hits", hits), ("runs on", f.mode or "–"),
        )  # fmt: skip
        soft = widget_theme(self).soft
        cells = [
            f'<td style="color: {soft}; padding: 2px 8px 2px 0">{name}</td><td style="padding-right: 28px"><b>{plain(str(value))}</b></td>'
            for name, value in rows
        ]
        pairs = ["".join(cells[at : at + 2]) for at in range(0, len(cells), 2)]
        set_text(self.counters, "<table>" + "".join(f"<tr>{pair}</tr>" for pair in pairs) + "</table>")

    def _show_slots(self, view: View) -> None:
        lines = [
            f"<b>Slot {plain(slot.name)}</b> &nbsp; {plain(slot.model_version) or 'policy'} &nbsp; {slot.chunks} chunks,"
            f" median {slot.median_ms:.1f} ms"
            for slot in view.slots
        ]
        set_text(self.slots, "<br>".join(lines) or "<b>Slots</b> &nbsp; no chunk yet")
        self.split.setEnabled(view.heard and view.split is not None)
        self.split.setToolTip(ONE_POLICY if view.split is None else TWO_POLICIES)
        if view.split is None:
            set_text(self.share, "one policy")
            return
        self.split.follow(view.split)
        self._split_moved(self.split.value())

    def _split_moved(self, percent: int) -> None:
        set_text(self.share, f"a {percent} % · b {100 - percent} %")


def event_text(event: GuardEvent, offset_s: float, *, advice: bool = True) -> str:
    """Return an event in words: when, what, how often, and what to do. offset_s: of the wall clock to the event's."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.at_s + offset_s))
    times = f"   × {event.count}" if event.count > 1 else ""
    todo = f"\n→ {event.advice}" if event.advice and advice else ""
    return f"{clock}   {escaped(event.text, 300)}{times}{todo}"
