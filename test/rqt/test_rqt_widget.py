# SPDX-License-Identifier: Apache-2.0
"""The panel without a screen: what it shows of a board, and what its buttons ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import offscreen
import pytest
from panel_messages import chunk, diagnosed, status
from reflex_ros.msg import ActionChunk
from reflex_ros.rqt.plots import BLUE, RED

from reflex_ros.rqt.board import SILENT_AFTER_S, Board
from reflex_ros.rqt.qt import QtCore, QtGui, QtWidgets, _module
from reflex_ros.rqt.widget import ONE_POLICY, Panel

QtTest = _module("QtTest")


class RecordingRobot:
    """Records the calls that a client would get."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def stop(self) -> None:
        self.calls.append("stop")

    def resume(self) -> None:
        self.calls.append("resume")

    def reset_guard(self) -> None:
        self.calls.append("reset guard")

    def set_split(self, percent: int) -> None:
        self.calls.append(percent)

    def set_blend(self, percent: int) -> None:
        self.calls.append(("blend", percent))


class Scene:
    """A panel, the board it looks at, and a clock that stands still."""

    def __init__(self) -> None:
        offscreen.application()
        self.now_s = 100.0
        self.board, self.robot = Board("/reflex"), RecordingRobot()
        self.chosen: list[str] = []
        self.panel = Panel(self.board.view, self.robot, self.chosen.append, lambda: self.now_s)
        self.panel.resize(1100, 720)
        self.panel.show()

    def hear(self, **fields: Any) -> None:
        self.board.status(status(**fields), self.now_s)
        self.panel.refresh()

    def colours(self, widget: Any) -> set[str]:
        """Every colour in the picture of a widget."""
        offscreen.application().processEvents()
        image = widget.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB32)
        bits = image.bits()
        bits.setsize(image.byteCount())
        return {f"#{value & 0xFFFFFF:06x}" for value in np.unique(np.frombuffer(bits, np.uint32)).tolist()}


@pytest.fixture
def scene() -> Iterator[Scene]:
    found = Scene()
    yield found
    found.panel.end()
    found.panel.close()


def click(button: Any) -> None:
    button.click()
    offscreen.application().processEvents()


def press_again(button: Any) -> None:
    """Press, wait until the button asks for more, and press."""
    click(button)
    offscreen.until(lambda: "press again" in button.text(), "the button asks for a second press")
    click(button)


def test_before_a_node_is_heard_a_stop_can_be_tried_and_nothing_else(scene: Scene) -> None:
    panel = scene.panel
    assert panel.state.text() == "no answer"
    assert "/reflex says nothing" in panel.banner.text()
    assert [b.isEnabled() for b in (panel.resume, panel.reset, panel.split)] == [False] * 3
    click(panel.stop)
    assert scene.robot.calls == ["stop"]


def test_a_ready_robot_can_be_stopped_and_nothing_else(scene: Scene) -> None:
    scene.hear()
    panel = scene.panel
    assert panel.state.text() == "ready"
    assert not panel.banner.isVisible()
    assert [b.isEnabled() for b in (panel.stop, panel.resume, panel.reset)] == [True, False, False]
    click(panel.stop)
    assert scene.robot.calls == ["stop"]


def test_a_stopped_robot_can_be_resumed(scene: Scene) -> None:
    scene.hear(stopped=True)
    panel = scene.panel
    assert "Stopped" in panel.banner.text()
    assert [b.isEnabled() for b in (panel.stop, panel.resume)] == [True, True]
    click(panel.resume)
    assert scene.robot.calls == []
    offscreen.until(lambda: panel.resume.text() == "Resume: press again", "a second press is asked for")
    click(panel.resume)
    assert scene.robot.calls == ["resume"]
    assert panel.resume.text() == "Resume"


@pytest.mark.parametrize("what", ["resume", "reset"])
def test_a_double_click_sets_nothing_in_motion(scene: Scene, what: str) -> None:
    scene.hear(stopped=True, guard_tripped=True)
    button = getattr(scene.panel, what)
    for _ in range(2):  # as Qt tells of a double-click; a mouse may bounce more often
        QtTest.QTest.mouseClick(button, QtCore.Qt.LeftButton)
        QtTest.QTest.mouseDClick(button, QtCore.Qt.LeftButton)
    assert "…" in button.text()
    offscreen.until(lambda: "press again" in button.text(), "a second press is asked for")
    assert scene.robot.calls == []


def test_a_press_that_is_not_followed_by_another_is_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflex_ros.rqt.controls.SURE_MS", 1)
    scene.hear(stopped=True)
    click(scene.panel.resume)
    offscreen.until(lambda: scene.panel.resume.text() == "Resume", "the first press is forgotten")
    click(scene.panel.resume)
    assert scene.robot.calls == []


def test_a_first_press_does_not_outlive_its_robot(scene: Scene) -> None:
    scene.hear(stopped=True)
    click(scene.panel.resume)
    offscreen.until(lambda: "press again" in scene.panel.resume.text(), "a second press is asked for")
    scene.panel.use(scene.board.view, scene.robot)
    click(scene.panel.resume)
    scene.hear(stopped=False)
    assert scene.panel.resume.text() == "Resume", "another client resumed it"
    assert scene.robot.calls == []


def test_a_button_that_is_switched_off_hands_the_focus_to_stop(scene: Scene) -> None:
    two_policies(scene)
    scene.hear(stopped=True, split_percent=50)
    scene.panel.activateWindow()
    scene.panel.resume.setFocus()
    offscreen.until(scene.panel.resume.hasFocus, "Resume has the focus")
    scene.hear(stopped=False, split_percent=50)
    assert scene.panel.stop.hasFocus()


def test_chunks_alone_are_a_sign_of_life(scene: Scene) -> None:
    scene.board.chunk(chunk(), scene.now_s)
    scene.panel.refresh()
    assert scene.panel.state.text() == "no status"
    assert not scene.panel.banner.isVisible()
    scene.hear()
    scene.now_s += SILENT_AFTER_S + 1.0
    scene.board.chunk(chunk(), scene.now_s)
    scene.panel.refresh()
    assert scene.panel.state.text() == "ready"
    assert scene.panel.stop.isEnabled()


def test_a_tripped_guard_is_the_first_thing_to_see_and_can_be_reset(scene: Scene) -> None:
    scene.hear(guard_tripped=True, holding=True, hold_reason="guard_tripped", slo_violated=True)
    assert "guard tripped" in scene.panel.banner.text()
    assert scene.panel.reset.isEnabled()
    press_again(scene.panel.reset)
    assert scene.robot.calls == ["reset guard"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"holding": True, "hold_reason": "stale"}, "holds: stale"),
        ({"slo_violated": True}, "objective"),
        ({"policy_verdict": "drain-a", "slo_violated": True}, "Slot a fails"),
    ],
)
def test_trouble_is_said_in_a_banner(scene: Scene, fields: dict[str, Any], words: str) -> None:
    scene.hear(**fields)
    assert scene.panel.banner.isVisible()
    assert words in scene.panel.banner.text()


def test_all_buttons_but_stop_die_with_the_node(scene: Scene) -> None:
    scene.hear(guard_tripped=True, stopped=True)
    scene.now_s += SILENT_AFTER_S + 1.0
    scene.panel.refresh()
    assert scene.panel.state.text() == "no answer"
    assert scene.panel.stop.isEnabled()
    assert not scene.panel.resume.isEnabled()
    assert not scene.panel.reset.isEnabled()


def test_the_panel_refreshes_by_itself(scene: Scene) -> None:
    scene.board.status(status(state="degraded"), scene.now_s)
    offscreen.until(lambda: scene.panel.state.text() == "degraded", "the timer has looked at the board")


def test_the_latency_plot_has_a_line_for_deadline_and_objective(scene: Scene) -> None:
    scene.hear()
    scene.board.chunk(chunk(latency_ms=50.0), scene.now_s - 5.0)
    scene.panel.refresh()
    assert "#d97706" not in scene.colours(scene.panel.latency)
    scene.board.parameters({"deadline_ms": 80.0, "slo": "p99=60ms"})
    scene.panel.refresh()
    assert {"#d97706", "#dc2626"} <= scene.colours(scene.panel.latency)


def test_a_fallback_has_another_colour_than_a_chunk_of_the_policy(scene: Scene) -> None:
    for at, source in enumerate((ActionChunk.SOURCE_POLICY, ActionChunk.SOURCE_CLOUD)):
        scene.board.chunk(chunk(source=source, latency_ms=50.0), scene.now_s - 10.0 * at - 1.0)
    scene.panel.refresh()
    assert {BLUE, "#7c3aed"} <= scene.colours(scene.panel.latency)


def test_the_chunk_is_drawn_against_its_limits(scene: Scene) -> None:
    scene.hear()
    scene.board.chunk(chunk(), scene.now_s)
    scene.panel.refresh()
    assert BLUE in scene.colours(scene.panel.chunk)
    assert RED not in scene.colours(scene.panel.chunk), "no limits are known"
    ranges = {f"{name} range": "-2 to 2 rad" for name in ("shoulder", "elbow", "wrist")}
    scene.board.diagnostics(diagnosed("guard", **ranges), scene.now_s)
    scene.panel.refresh()
    assert RED in scene.colours(scene.panel.chunk)


@pytest.mark.parametrize("horizon", [1, 2, 50])
@pytest.mark.parametrize("dims", [1, 7, 20])
def test_a_chunk_of_any_shape_can_be_drawn(scene: Scene, horizon: int, dims: int) -> None:
    names = [f"joint{number}" for number in range(dims)]
    data = [0.1 * number for number in range(horizon * dims)]
    scene.board.chunk(chunk(horizon, names=names, action_dim=dims, data=data), scene.now_s)
    scene.panel.refresh()
    scene.panel.chunk.resize(340, scene.panel.chunk.minimumHeight())
    assert not scene.panel.chunk.grab().isNull()


def test_numbers_that_are_none_are_drawn_as_well_as_they_can_be(scene: Scene) -> None:
    data = [float("nan"), float("inf"), 0.0] * 10
    scene.board.chunk(chunk(10, data=data), scene.now_s)
    scene.panel.refresh()
    assert not scene.panel.chunk.grab().isNull()


def test_violations_are_listed(scene: Scene) -> None:
    assert scene.panel.incidents.item(0).text() == "none seen by this panel"
    scene.board.chunk(chunk(guard_violations=["elbow above max: 1.2 > 1"], chunk_id=7), scene.now_s - 3.0)
    scene.panel.refresh()
    assert (
        scene.panel.incidents.item(0).text().split(maxsplit=2)[2]
        == "ago   chunk 7   elbow above max: 1.2 > 1"
    )


def test_each_concern_has_a_light_and_its_words_on_top(scene: Scene) -> None:
    scene.board.diagnostics(diagnosed("guard", b"\x02"), scene.now_s)
    scene.panel.refresh()
    assert RED in scene.panel.tasks.text()
    assert scene.panel.tasks.toolTip() == "guard: guard says"


def test_with_one_policy_the_slider_is_off_and_says_why(scene: Scene) -> None:
    scene.hear()
    scene.board.parameters({"policy_b": ""})
    scene.panel.refresh()
    assert not scene.panel.split.isEnabled()
    assert scene.panel.split.toolTip() == ONE_POLICY


def two_policies(scene: Scene, split: int = 50) -> None:
    scene.hear(split_percent=split)
    scene.board.parameters({"policy_b": "/exports/new"})
    scene.panel.refresh()


def test_the_slider_shows_the_nodes_split_and_asks_for_nothing_itself(scene: Scene) -> None:
    two_policies(scene, 70)
    assert scene.panel.split.isEnabled()
    assert scene.panel.split.value() == 70
    assert scene.panel.share.text() == "a 70 % · b 30 %"
    assert scene.robot.calls == []


def test_dragging_asks_once_when_the_mouse_lets_go(scene: Scene) -> None:
    two_policies(scene)
    slider = scene.panel.split
    slider.setSliderDown(True)
    for value in (55, 60, 80):
        slider.setValue(value)
        scene.panel.refresh()
    assert scene.robot.calls == []
    assert slider.value() == 80, "the node's 50 does not pull it back meanwhile"
    slider.setSliderDown(False)
    assert scene.robot.calls == [80]


def test_a_key_moves_the_split_too(scene: Scene) -> None:
    two_policies(scene)
    scene.panel.split.triggerAction(QtWidgets.QAbstractSlider.SliderSingleStepAdd)
    assert scene.robot.calls == [51]


def turn_the_wheel(slider: Any) -> None:
    """One notch, as Qt tells the widget under the mouse."""
    middle = QtCore.QPointF(slider.rect().center())
    event = QtGui.QWheelEvent(
        middle, slider.mapToGlobal(middle.toPoint()), QtCore.QPoint(), QtCore.QPoint(0, 120),
        QtCore.Qt.NoButton, QtCore.Qt.NoModifier, QtCore.Qt.NoScrollPhase, False,
    )  # fmt: skip
    offscreen.application().sendEvent(slider, event)


def test_a_wheel_that_passes_over_the_slider_moves_no_episode(scene: Scene) -> None:
    two_policies(scene)
    slider = scene.panel.split
    scene.panel.activateWindow()
    scene.panel.stop.setFocus()
    offscreen.until(scene.panel.stop.hasFocus, "the focus is elsewhere")
    turn_the_wheel(slider)
    assert (slider.value(), scene.robot.calls) == (50, [])
    assert slider.focusPolicy() == QtCore.Qt.StrongFocus, "a wheel does not take the focus either"
    slider.setFocus()
    offscreen.until(slider.hasFocus, "a person came to the slider")
    turn_the_wheel(slider)
    assert scene.robot.calls == [slider.value()]
    assert slider.value() > 50


def test_a_click_beside_the_handle_moves_it_too(scene: Scene) -> None:
    two_policies(scene)
    scene.panel.split.triggerAction(QtWidgets.QAbstractSlider.SliderPageStepSub)
    assert scene.robot.calls == [40]


def test_other_nodes_are_offered_and_can_be_chosen(scene: Scene) -> None:
    scene.board.nodes(("/left/reflex", "/reflex"))
    scene.panel.refresh()
    node = scene.panel.node
    assert [node.itemText(index) for index in range(node.count())] == ["/left/reflex", "/reflex"]
    assert node.currentText() == "/reflex"
    node.setCurrentIndex(0)
    node.activated.emit(0)
    assert scene.chosen == ["/left/reflex"]


def test_a_node_that_is_not_listed_can_be_typed(scene: Scene) -> None:
    scene.panel.node.lineEdit().setText("/attic/reflex")
    scene.panel.node.lineEdit().returnPressed.emit()
    assert scene.chosen[-1] == "/attic/reflex"


def test_answers_are_shown_and_refusals_are_red(scene: Scene) -> None:
    scene.board.notify("stop: holding")
    scene.panel.refresh()
    assert "stop: holding" in scene.panel.notice.text()
    assert RED not in scene.panel.notice.text()
    scene.board.notify("split: refused", ok=False)
    scene.panel.refresh()
    assert RED in scene.panel.notice.text()


def test_text_from_topics_is_no_markup(scene: Scene) -> None:
    scene.hear(instruction="<img src=x> & <b>")
    assert "&lt;img src=x&gt; &amp; &lt;b&gt;" in scene.panel.facts.text()


def test_a_panel_that_has_ended_looks_no_more(scene: Scene) -> None:
    scene.panel.end()
    assert not scene.panel._timer.isActive()


def test_everything_stays_in_the_qt_thread(scene: Scene) -> None:
    assert scene.panel.thread() is QtCore.QCoreApplication.instance().thread()


def test_the_share_of_the_policy_s_motion_is_shown_and_set_by_a_slider(scene: Scene) -> None:
    assert not scene.panel.blend.isEnabled()
    scene.board.parameters({"blend": 0.25})
    scene.hear(control="policy", blend=0.125)
    assert scene.panel.blend.isEnabled()
    assert scene.panel.blend.value() == 25
    assert scene.panel.control.text() == "12 %, policy commands"
    assert scene.robot.calls == []
    scene.panel.blend.triggerAction(QtWidgets.QAbstractSlider.SliderSingleStepAdd)
    assert scene.robot.calls == [("blend", 26)]


def test_a_person_who_commands_is_shown(scene: Scene) -> None:
    scene.hear(control="teleop", blend=1.0)
    assert "A person commands the robot" in scene.panel.banner.text()
