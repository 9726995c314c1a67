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

from reflex_ros.rqt.board import SILENT_AFTER_S, Board
from reflex_ros.rqt.details import NO_EVENTS, ONE_POLICY
from reflex_ros.rqt.episode_controls import NO_EPISODE
from reflex_ros.rqt.panel_theme import BANNER, LIGHT
from reflex_ros.rqt.panel_view import Picture
from reflex_ros.rqt.qt import QtCore, QtGui, QtWidgets, _module
from reflex_ros.rqt.widget import Panel

QtTest = _module("QtTest")
STREAMS = {"front": "/front/image_raw", "state": "/joint_states", "instruction": "/instruction"}


class RecordingRobot:
    """Records the calls that a client would get."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.shown: list[bool] = []

    def stop(self) -> None:
        self.calls.append("stop")

    def resume(self) -> None:
        self.calls.append("resume")

    def reset_guard(self) -> None:
        self.calls.append("reset guard")

    def reset_breaker(self) -> None:
        self.calls.append("reset breaker")

    def instruct(self, text: str) -> None:
        self.calls.append(("instruct", text))

    def begin_episode(self) -> None:
        self.calls.append("begin episode")

    def end_episode(self, success: bool) -> None:
        self.calls.append(("end episode", success))

    def set_split(self, percent: int) -> None:
        self.calls.append(percent)

    def set_blend(self, percent: int) -> None:
        self.calls.append(("blend", percent))

    def show_cameras(self, shown: bool) -> None:
        self.shown.append(shown)


class Scene:
    """A panel, the board it looks at, and a clock that stands still."""

    def __init__(self) -> None:
        offscreen.application()
        self.now_s = 100.0
        self.board, self.robot = Board("/reflex"), RecordingRobot()
        self.chosen: list[str] = []
        self.panel = Panel(self.board.view, self.robot, self.chosen.append, lambda: self.now_s)
        self.panel.resize(1280, 800)
        self.panel.show()

    def hear(self, **fields: Any) -> None:
        self.board.status(status(**fields), self.now_s)
        self.panel.refresh()

    @property
    def word(self) -> str:
        return self.panel.banner.word.text()

    def listens(self) -> None:
        """The node is active: its topics are known."""
        self.board.diagnostics(diagnosed("connections", **STREAMS), self.now_s)
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
    assert scene.word == "NO CONNECTION"
    assert "received from /reflex" in panel.banner.sentence.text()
    switched = (
        panel.banner.resume,
        panel.banner.reset,
        panel.banner.reset_breaker,
        panel.details.split,
        panel.episode.begin,
    )
    assert [widget.isEnabled() for widget in switched] == [False] * 5
    click(panel.banner.stop)
    assert scene.robot.calls == ["stop"]


def test_a_ready_robot_can_be_stopped_and_the_other_buttons_are_not_there(scene: Scene) -> None:
    scene.hear(chunks_total=1)
    banner = scene.panel.banner
    assert scene.word == "READY"
    assert [each.isVisible() for each in (banner.stop, banner.resume, banner.reset, banner.reset_breaker)] == [
        True, False, False, False,
    ]  # fmt: skip
    click(banner.stop)
    assert scene.robot.calls == ["stop"]


def test_the_banner_shows_what_the_robot_does_for_whom(scene: Scene) -> None:
    scene.hear(
        chunks_total=1,
        instruction="reach <b>",
        episode_id="ep_7",
        model_version="pick@1",
        embodiment="franka",
    )
    text = scene.panel.banner.facts.text()
    for words in ("reach &lt;b&gt;", "ep_7", "pick@1", "arm7 (franka)"):
        assert words in text
    assert scene.panel.banner.accessibleName() == "READY"
    assert "commands the robot" in scene.panel.banner.accessibleDescription()


@pytest.mark.parametrize(
    ("fields", "word", "level"),
    [
        ({"chunks_total": 1}, "READY", "good"), ({"state": "loading"}, "WAITING", "wait"), ({"stopped": True}, "STOPPED", "stop"),
        ({"holding": True, "hold_reason": "stale", "chunks_total": 1}, "HOLDING", "hold"),
        ({"guard_tripped": True}, "TRIPPED", "bad"), ({"state": "failed"}, "FAILED", "bad"),
    ],
)  # fmt: skip
def test_the_word_and_the_colour_of_the_banner_agree(
    scene: Scene, fields: dict[str, Any], word: str, level: str
) -> None:
    scene.hear(**fields)
    assert scene.word == word
    assert BANNER[level][0] in scene.colours(scene.panel.banner)
    assert not {ground for ground, _ in BANNER.values()} - {BANNER[level][0]} & scene.colours(
        scene.panel.banner
    )


def test_a_stopped_robot_can_be_resumed(scene: Scene) -> None:
    scene.hear(stopped=True)
    banner = scene.panel.banner
    assert scene.word == "STOPPED"
    assert [b.isEnabled() for b in (banner.stop, banner.resume)] == [True, True]
    click(banner.resume)
    assert scene.robot.calls == []
    offscreen.until(lambda: banner.resume.text() == "Resume: press again", "a second press is asked for")
    click(banner.resume)
    assert scene.robot.calls == ["resume"]
    assert banner.resume.text() == "Resume"


@pytest.mark.parametrize("what", ["resume", "reset"])
def test_a_double_click_sets_nothing_in_motion(scene: Scene, what: str) -> None:
    scene.hear(stopped=True, guard_tripped=True)
    button = getattr(scene.panel.banner, what)
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
    click(scene.panel.banner.resume)
    offscreen.until(lambda: scene.panel.banner.resume.text() == "Resume", "the first press is forgotten")
    click(scene.panel.banner.resume)
    assert scene.robot.calls == []


def test_a_first_press_does_not_outlive_its_robot(scene: Scene) -> None:
    scene.hear(stopped=True)
    click(scene.panel.banner.resume)
    offscreen.until(lambda: "press again" in scene.panel.banner.resume.text(), "a second press is asked for")
    scene.panel.use(scene.board.view, scene.robot)
    click(scene.panel.banner.resume)
    scene.hear(stopped=False)
    assert scene.panel.banner.resume.text() == "Resume", "another client resumed it"
    assert scene.robot.calls == []


def test_a_button_that_is_switched_off_hands_the_focus_to_stop(scene: Scene) -> None:
    two_policies(scene)
    scene.hear(stopped=True, split_percent=50)
    scene.panel.activateWindow()
    scene.panel.banner.resume.setFocus()
    offscreen.until(scene.panel.banner.resume.hasFocus, "Resume has the focus")
    scene.hear(stopped=False, split_percent=50)
    assert scene.panel.banner.stop.hasFocus()


def test_chunks_alone_are_a_sign_of_life(scene: Scene) -> None:
    scene.board.chunk(chunk(), scene.now_s)
    scene.panel.refresh()
    assert scene.word == "WAITING"
    scene.hear()
    scene.now_s += SILENT_AFTER_S + 1.0
    scene.board.chunk(chunk(), scene.now_s)
    scene.panel.refresh()
    assert scene.word == "READY"


def test_a_tripped_guard_is_the_first_thing_to_see_and_can_be_reset(scene: Scene) -> None:
    scene.hear(guard_tripped=True, holding=True, hold_reason="guard_tripped", slo_violated=True)
    assert scene.word == "TRIPPED"
    assert "reset the guard" in scene.panel.banner.todo.text()
    assert scene.panel.banner.reset.isVisible()
    press_again(scene.panel.banner.reset)
    assert scene.robot.calls == ["reset guard"]


def test_an_open_breaker_can_be_reset(scene: Scene) -> None:
    scene.hear(state="degraded", consecutive_failures=3)
    assert scene.panel.banner.reset_breaker.isVisible()
    press_again(scene.panel.banner.reset_breaker)
    assert scene.robot.calls == ["reset breaker"]


def test_what_is_unusual_is_in_the_banner(scene: Scene) -> None:
    scene.hear(chunks_total=1, slo_violated=True, policy_verdict="drain-a")
    assert "SLOW" in scene.panel.banner.notes.text()
    assert "SLOT A FAILS" in scene.panel.banner.notes.text()


def test_all_buttons_but_stop_die_with_the_node(scene: Scene) -> None:
    scene.hear(guard_tripped=True, stopped=True)
    scene.now_s += SILENT_AFTER_S + 1.0
    scene.panel.refresh()
    assert scene.word == "NO CONNECTION"
    banner = scene.panel.banner
    assert [each.isEnabled() for each in (banner.stop, banner.resume, banner.reset)] == [True, False, False]


def test_the_panel_refreshes_by_itself(scene: Scene) -> None:
    scene.board.status(status(state="degraded"), scene.now_s)
    offscreen.until(lambda: scene.word == "HOLDING", "the timer has looked at the board")


def test_the_latency_plot_has_a_line_for_deadline_and_objective(scene: Scene) -> None:
    scene.hear()
    scene.board.chunk(chunk(latency_ms=50.0), scene.now_s - 5.0)
    scene.panel.refresh()
    assert not {LIGHT.amber, LIGHT.red} & scene.colours(scene.panel.latency)
    scene.board.parameters({"deadline_ms": 80.0, "slo": "p99=60ms"})
    scene.panel.refresh()
    assert {LIGHT.amber, LIGHT.red} <= scene.colours(scene.panel.latency)


def test_a_fallback_has_another_colour_than_a_chunk_of_the_policy(scene: Scene) -> None:
    for at, source in enumerate((ActionChunk.SOURCE_POLICY, ActionChunk.SOURCE_CLOUD)):
        scene.board.chunk(chunk(source=source, latency_ms=50.0), scene.now_s - 10.0 + 9.0 * at)
    scene.panel.refresh()
    assert {LIGHT.blue, LIGHT.violet} <= scene.colours(scene.panel.latency)


def test_a_limit_is_drawn_where_it_is_near_and_nowhere_else(scene: Scene) -> None:
    def limited(text: str) -> None:
        ranges = {f"{name} range": text for name in ("shoulder", "elbow", "wrist")}
        scene.board.diagnostics(diagnosed("guard", **ranges), scene.now_s)
        scene.panel.refresh()

    scene.hear(chunks_total=1)
    scene.board.chunk(chunk(), scene.now_s)
    scene.panel.refresh()
    assert LIGHT.blue in scene.colours(scene.panel.chunk)
    legend = count_of(scene, LIGHT.red)
    limited("-90 to 90 rad")
    assert count_of(scene, LIGHT.red) == legend
    limited("-90 to 1.2 rad")
    assert count_of(scene, LIGHT.red) > legend + 100


def count_of(scene: Scene, colour: str) -> int:
    """How many pixels of the chunk's plot have a colour."""
    offscreen.application().processEvents()
    image = scene.panel.chunk.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB32)
    bits = image.bits()
    bits.setsize(image.byteCount())
    return int((np.frombuffer(bits, np.uint32) & 0xFFFFFF == int(colour[1:], 16)).sum())


def test_what_the_model_wanted_is_drawn_beside_what_the_guard_let_through(scene: Scene) -> None:
    scene.hear(chunks_total=1)
    scene.board.chunk(chunk(), scene.now_s)
    scene.panel.refresh()
    assert LIGHT.amber not in scene.colours(scene.panel.chunk)
    scene.board.chunk(chunk(guard_violations=["elbow above max: 1.4 > 1"]), scene.now_s)
    scene.panel.refresh()
    assert LIGHT.amber in scene.colours(scene.panel.chunk)


@pytest.mark.parametrize("horizon", [1, 2, 50])
@pytest.mark.parametrize("dims", [1, 7, 20])
def test_a_chunk_of_any_shape_can_be_drawn(scene: Scene, horizon: int, dims: int) -> None:
    names = [f"joint{number}" for number in range(dims)]
    data = [0.1 * number for number in range(horizon * dims)]
    scene.board.chunk(chunk(horizon, names=names, action_dim=dims, data=data), scene.now_s)
    scene.panel.refresh()
    scene.panel.chunk.resize(340, scene.panel.chunk.minimumHeight())
    assert not scene.panel.chunk.grab().isNull()


def test_a_chunk_with_more_joints_than_any_robot_has_does_not_fill_the_screen(scene: Scene) -> None:
    many = chunk(1, names=["x" * 500] * 5000, action_dim=5000, data=[0.0] * 5000)
    scene.hear(chunks_total=1)
    scene.board.chunk(many, scene.now_s)
    scene.panel.refresh()
    assert scene.panel.chunk.minimumHeight() < 2500
    assert not scene.panel.chunk.grab().isNull()


def test_numbers_that_are_none_are_drawn_as_well_as_they_can_be(scene: Scene) -> None:
    data = [float("nan"), float("inf"), 0.0] * 10
    scene.board.chunk(chunk(10, data=data), scene.now_s)
    scene.panel.refresh()
    assert not scene.panel.chunk.grab().isNull()


def test_violations_are_listed_in_words(scene: Scene) -> None:
    events = scene.panel.details.events
    assert events.item(0).text() == NO_EVENTS
    scene.board.diagnostics(diagnosed("guard", elbow_range="-1 to 1 rad"), scene.now_s)
    scene.board.chunk(chunk(guard_violations=["elbow above max: 1.2 > 1"], chunk_id=7), scene.now_s - 3.0)
    scene.panel.refresh()
    assert "elbow" in events.item(0).text()
    assert "0.2 rad" in events.item(0).text()
    assert "\n→ " in events.item(0).text(), "and what to do"
    assert events.item(0).toolTip() == "elbow above max: 1.2 > 1"


def test_concerns_are_listed_with_the_worst_on_top(scene: Scene) -> None:
    scene.board.diagnostics(diagnosed("timing"), scene.now_s)
    scene.board.diagnostics(diagnosed("guard", b"\x02"), scene.now_s)
    scene.panel.refresh()
    concerns = scene.panel.details.concerns
    assert [concerns.item(row).text() for row in range(2)] == [
        "■  guard: guard says",
        "✔  timing: timing says",
    ]
    assert scene.panel.details.tabText(1) == "Concerns (1)"


def test_the_tab_that_explains_a_new_state_comes_to_the_front_unless_another_is_read(scene: Scene) -> None:
    details, held = scene.panel.details, {"holding": True, "hold_reason": "stale", "chunks_total": 1}
    scene.hear(chunks_total=1)
    assert details.currentWidget() is details.events
    scene.hear(**held)
    assert details.currentWidget() is details.concerns
    details.setCurrentWidget(details.events)
    scene.hear(**held)
    assert details.currentWidget() is details.events, "only a new state turns to it"
    details.setCurrentWidget(details.counters)
    scene.hear(guard_tripped=True)
    assert details.currentWidget() is details.counters


def test_while_it_waits_the_checklist_names_the_topic_that_is_missing(scene: Scene) -> None:
    scene.hear(problem="camera_missing: no image from camera 'front' yet")
    scene.board.diagnostics(diagnosed("observations", **{"state age ms": "5"}), scene.now_s)
    scene.listens()
    assert scene.panel.checklist.isVisible()
    assert not scene.panel.chunk.isVisible()
    assert "camera front: nothing received" in scene.panel.checklist.accessibleDescription()
    assert "/front/image_raw" in scene.panel.checklist.text()
    scene.board.chunk(chunk(), scene.now_s)
    scene.hear(chunks_total=1)
    assert scene.panel.chunk.isVisible()


def test_a_picture_is_shown_and_an_old_one_is_called_so(scene: Scene) -> None:
    scene.hear()
    scene.listens()
    camera = scene.panel.camera
    assert "no picture yet" in camera.accessibleDescription()
    pixels = np.full((48, 64, 3), (200, 30, 30), np.uint8)
    scene.board.picture(Picture("front", pixels, scene.now_s))
    scene.panel.refresh()
    assert "#c81e1e" in scene.colours(camera)
    assert camera.accessibleDescription() == "front   /front/image_raw"
    scene.now_s += 4.0
    scene.panel.refresh()
    assert "#c81e1e" not in scene.colours(camera)
    assert "4 s old" in camera.accessibleDescription()


def test_a_picture_with_a_problem_is_a_sentence(scene: Scene) -> None:
    scene.board.picture(Picture("front", None, scene.now_s, "bytes that are no image"))
    scene.panel.refresh()
    assert scene.panel.camera.accessibleDescription() == "front: bytes that are no image"
    assert not scene.panel.camera.grab().isNull()


def test_pictures_are_received_only_while_the_panel_can_be_seen(scene: Scene) -> None:
    assert scene.robot.shown[-1]
    scene.panel.hide()
    assert not scene.robot.shown[-1]
    scene.panel.show()
    assert scene.robot.shown[-1]


def test_an_instruction_is_typed_and_sent_with_enter(scene: Scene) -> None:
    episode = scene.panel.episode
    assert not episode.text.isEnabled()
    scene.hear()
    scene.listens()
    assert episode.text.isEnabled()
    assert not episode.send.isEnabled(), "there is nothing to send"
    episode.text.setText("  reach the red block ")
    assert episode.send.isEnabled()
    QtTest.QTest.keyClick(episode.text, QtCore.Qt.Key_Return)
    assert scene.robot.calls == [("instruct", "reach the red block")]
    assert episode.text.text() == ""
    QtTest.QTest.keyClick(episode.text, QtCore.Qt.Key_Return)
    assert len(scene.robot.calls) == 1, "an empty instruction is none"


def test_an_episode_is_begun_and_ended_with_its_outcome(scene: Scene) -> None:
    episode = scene.panel.episode
    scene.hear()
    assert [each.isEnabled() for each in (episode.begin, episode.success, episode.failure)] == [
        True,
        False,
        False,
    ]
    assert episode.success.toolTip() == NO_EPISODE
    click(episode.begin)
    scene.hear(episode_id="ep_1")
    click(episode.success)
    click(episode.failure)
    assert scene.robot.calls == ["begin episode", ("end episode", True), ("end episode", False)]


def test_everything_that_acts_is_reached_by_tab_and_has_an_explanation(scene: Scene) -> None:
    scene.hear(stopped=True, episode_id="ep_1")
    scene.listens()
    scene.panel.activateWindow()
    panel = scene.panel
    panel.banner.stop.setFocus()
    offscreen.until(panel.banner.stop.hasFocus, "STOP has the focus")
    reached = set()
    for _ in range(30):
        QtTest.QTest.keyClick(offscreen.application().focusWidget(), QtCore.Qt.Key_Tab)
        reached.add(offscreen.application().focusWidget())
    wanted = (
        panel.banner.stop,
        panel.banner.resume,
        panel.episode.text,
        panel.episode.begin,
        panel.episode.success,
        panel.details.events,
    )
    assert [each for each in wanted if each not in reached] == []
    for each in (*wanted, panel.camera, panel.latency, panel.chunk, panel.details.concerns):
        assert each.toolTip()


def test_with_one_policy_the_slider_is_off_and_says_why(scene: Scene) -> None:
    scene.hear()
    scene.board.parameters({"policy_b": ""})
    scene.panel.refresh()
    assert not scene.panel.details.split.isEnabled()
    assert scene.panel.details.split.toolTip() == ONE_POLICY


def two_policies(scene: Scene, split: int = 50) -> None:
    scene.hear(split_percent=split)
    scene.board.parameters({"policy_b": "/exports/new"})
    scene.panel.refresh()


def test_the_slider_shows_the_nodes_split_and_asks_for_nothing_itself(scene: Scene) -> None:
    two_policies(scene, 70)
    assert scene.panel.details.split.isEnabled()
    assert scene.panel.details.split.value() == 70
    assert scene.panel.details.share.text() == "a 70 % · b 30 %"
    assert scene.robot.calls == []


def test_dragging_asks_once_when_the_mouse_lets_go(scene: Scene) -> None:
    two_policies(scene)
    slider = scene.panel.details.split
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
    scene.panel.details.split.triggerAction(QtWidgets.QAbstractSlider.SliderSingleStepAdd)
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
    slider = scene.panel.details.split
    scene.panel.activateWindow()
    scene.panel.banner.stop.setFocus()
    offscreen.until(scene.panel.banner.stop.hasFocus, "the focus is elsewhere")
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
    scene.panel.details.split.triggerAction(QtWidgets.QAbstractSlider.SliderPageStepSub)
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
    assert LIGHT.red not in scene.panel.notice.text()
    scene.board.notify("split: refused", ok=False)
    scene.panel.refresh()
    assert LIGHT.red in scene.panel.notice.text()


def test_text_from_topics_is_no_markup(scene: Scene) -> None:
    scene.hear(chunks_total=1, problem="stale: <img src=x> & <b>", holding=True, hold_reason="stale")
    assert "&lt;img src=x&gt; &amp; &lt;b&gt;" in scene.panel.banner.sentence.text()
    scene.board.notify("<img src=y>")
    scene.panel.refresh()
    assert "&lt;img src=y&gt;" in scene.panel.notice.text()


def test_a_panel_that_has_ended_looks_no_more(scene: Scene) -> None:
    scene.panel.end()
    assert not scene.panel._timer.isActive()


def test_everything_stays_in_the_qt_thread(scene: Scene) -> None:
    assert scene.panel.thread() is QtCore.QCoreApplication.instance().thread()


def test_the_share_of_the_policy_s_motion_is_shown_and_set_by_a_slider(scene: Scene) -> None:
    assert not scene.panel.details.blend.isEnabled()
    scene.board.parameters({"blend": 0.25})
    scene.hear(control="policy", blend=0.125)
    assert scene.panel.details.blend.isEnabled()
    assert scene.panel.details.blend.value() == 25
    assert scene.panel.details.control.text() == "12 %, policy commands"
    assert scene.robot.calls == []
    scene.panel.details.blend.triggerAction(QtWidgets.QAbstractSlider.SliderSingleStepAdd)
    assert scene.robot.calls == [("blend", 26)]


def test_a_person_who_commands_is_shown(scene: Scene) -> None:
    scene.hear(control="teleop", blend=1.0)
    assert "A person commands the robot" in scene.panel.banner.sentence.text()
    assert scene.panel.banner.notes.text() == "TELEOP"
