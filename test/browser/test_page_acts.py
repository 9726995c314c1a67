# SPDX-License-Identifier: Apache-2.0
"""What is pressed on the page in a real headless Chromium, and what becomes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from asking import BEYOND
from page_world import KEY, LookAt, PaperRobot, Serving, calmly
from servers import ExportDir

from benchmarks.chromium import Page


def press(page: Page, selector: str, times: int) -> None:
    """Presses as fast as a hand cannot: the second in a row is the second half of a double-click."""
    place = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
    x, y = page.look(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({place})")
    for number in range(times):
        for kind in ("mousePressed", "mouseReleased"):
            page.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=number % 2 + 1
            )


def stopped(page: Page) -> None:
    """Press STOP and wait until Resume is there."""
    page.wait_text("#word", "READY")
    page.click("#stop")
    page.wait_text("#word", "STOPPED")
    page.wait("!document.getElementById('resume').hidden")


def test_stop_is_one_press_and_resume_is_two(serving: Serving, look_at: LookAt, paper: PaperRobot) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    assert page.look("document.getElementById('resume').hidden")
    page.click("#stop")
    page.wait_text("#word", "STOPPED")
    page.wait_text("#notice", "stop on paper")
    page.wait("!document.getElementById('resume').hidden")
    page.click("#resume")
    page.wait_text("#resume", "press again")
    assert paper.done == ["stop"]
    page.click("#resume")
    page.wait_text("#word", "READY")
    assert paper.done == ["stop", "resume"]


def twice(page: Page, button: str) -> None:
    """Press, wait until the button asks for it, and press again."""
    page.click(button)
    page.wait_text(button, "press again")
    page.click(button)


def test_an_instruction_is_typed_and_sent_with_two_presses(
    serving: Serving, look_at: LookAt, paper: PaperRobot
) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    page.click("#instruction-text")
    page.type("#instruction-text", "reach the blue cube")
    twice(page, "#send-instruction")
    page.wait_text("#instruction", "reach the blue cube")
    assert paper.done == ["instruct"]
    page.wait("document.getElementById('instruction-text').value", lambda text: text == "")
    twice(page, "#send-instruction")
    page.wait_text("#notice", "type one first")
    assert paper.done == ["instruct"]


def test_an_episode_is_ended_with_its_outcome_and_the_next_one_begun(
    serving: Serving, look_at: LookAt, paper: PaperRobot
) -> None:
    server = serving()
    page = look_at(server)
    page.wait_text("#episode", "ep_1")
    page.click("#end-failure")
    page.wait_text("#notice", "Stored for ep_1: failure")
    page.wait_text("#word", "STOPPED")
    loaded = server.engine.loaded
    assert loaded is not None
    again = server.client.ask("POST", "/episodes/ep_1/outcome", b'{"success": false}')
    assert again.status == 200
    assert paper.done == ["stop"], "no second press for what ends a motion"
    twice(page, "#start-episode")
    page.wait_text("#episode", "ep_paper")
    page.wait_text("#word", "READY")
    assert paper.done == ["stop", "episode", "resume"]
    page.wait_text("#notice", "ep_paper began")


def test_a_stop_while_an_episode_is_begun_stays(serving: Serving, look_at: LookAt, paper: PaperRobot) -> None:
    page = look_at(serving())
    stopped(page)
    for begins_stopped in (True, False):
        paper.done.clear()
        paper.may_begin.clear()
        twice(page, "#start-episode")
        if not begins_stopped:
            page.wait_text("#word", "READY")
        page.click("#stop")
        page.wait_text("#notice", "Stopped")
        page.wait_text("#word", "STOPPED")
        paper.may_begin.set()
        page.wait_text("#notice", "ep_paper began, and the robot stays stopped")
        assert paper.done == ["stop", "episode"]
        paper.snapshot = replace(paper.snapshot, stopped=False)
        page.wait_text("#word", "READY")


def test_what_the_robot_does_not_take_is_shown(serving: Serving, look_at: LookAt, paper: PaperRobot) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    paper.refusal = "the node is inactive, not active"
    page.type("#instruction-text", "reach")
    twice(page, "#send-instruction")
    page.wait_text("#notice", "INSTRUCTION DID NOT HAPPEN: the node is inactive, not active")
    assert page.look("document.getElementById('instruction-text').value") == "reach"
    twice(page, "#start-episode")
    page.wait_text("#notice", "START DID NOT HAPPEN: the node is inactive")
    page.click("#end-success")
    page.wait_text("#notice", "STOP DID NOT HAPPEN: the node is inactive")


def test_without_a_robot_the_outcome_of_an_episode_is_stored(serving: Serving, look_at: LookAt) -> None:
    server = serving(robot=False)
    page = look_at(server)
    page.wait_text("#word", "READY")
    assert page.look("document.getElementById('operate').hidden"), "no episode so far"
    calmly(server, episode_id="ep/7")
    page.wait_text("#operate-note", "ep/7")
    assert page.look("document.getElementById('instruct-form').hidden")
    page.click("#end-success")
    page.wait_text("#notice", "Stored for ep/7: success")


def test_a_double_click_sets_nothing_in_motion(serving: Serving, look_at: LookAt, paper: PaperRobot) -> None:
    page = look_at(serving())
    stopped(page)
    press(page, "#resume", 2)
    assert page.text("#resume") == "Resume …"
    press(page, "#resume", 3)  # a mouse that bounces
    page.wait_text("#resume", "press again")
    assert paper.done == ["stop"]
    press(page, "#resume", 1)
    page.wait_text("#word", "READY")
    assert paper.done == ["stop", "resume"]


def test_a_second_click_that_counts_as_a_double_click_is_early_however_late_it_comes(
    serving: Serving, look_at: LookAt, paper: PaperRobot
) -> None:
    page = look_at(serving())
    stopped(page)
    press(page, "#resume", 1)
    page.wait_text("#resume", "press again")
    page.look("document.getElementById('resume').dispatchEvent(new MouseEvent('click', {detail: 2}))")
    assert page.text("#resume") == "Resume …"
    page.wait_text("#resume", "press again")
    assert paper.done == ["stop"]


def test_a_key_that_is_held_down_sets_nothing_in_motion(
    serving: Serving, look_at: LookAt, paper: PaperRobot
) -> None:
    page = look_at(serving())
    stopped(page)
    page.look("document.getElementById('resume').focus()")
    began_ms = page.look("performance.now()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    page.call("Input.dispatchKeyEvent", type="keyDown", **enter)
    while page.look("performance.now()") < began_ms + 2000:
        page.call("Input.dispatchKeyEvent", type="keyDown", autoRepeat=True, **enter)
    page.call("Input.dispatchKeyEvent", type="keyUp", **enter)
    assert paper.done == ["stop"]
    page.wait_text("#resume", "press again")


def test_a_stop_that_did_not_arrive_is_said_loudly(
    serving: Serving, look_at: LookAt, paper: PaperRobot
) -> None:
    server = serving()
    page = look_at(server)
    page.wait_text("#word", "READY")
    paper.refusal = "the node is inactive, not active"
    page.click("#stop")
    page.wait_text("#notice", "STOP DID NOT HAPPEN: the node is inactive, not active")
    server.sidecar.stop()
    page.wait_text("#word", "NO CONNECTION")
    page.click("#stop")
    page.wait_text("#notice", "STOP DID NOT HAPPEN: no connection")


def test_with_a_key_nothing_is_shown_or_done_until_it_is_typed(
    serving: Serving, look_at: LookAt, paper: PaperRobot
) -> None:
    server = serving(key=KEY)
    calmly(server)
    page = look_at(server)
    page.wait_text("#word", "KEY NEEDED")
    assert page.look("document.getElementById('panels').hidden")
    page.click("#stop")
    page.wait_text("#notice", "STOP DID NOT HAPPEN: the API key is missing or wrong")
    assert paper.done == []
    page.type("#key", "wrong")
    page.click("#key-form button")
    page.wait("document.getElementById('key').value", lambda typed: typed == "")
    page.wait("!document.getElementById('key-form').hidden")
    page.type("#key", KEY)
    page.click("#key-form button")
    page.wait_text("#word", "READY")
    page.click("#stop")
    page.wait_text("#word", "STOPPED")
    assert paper.done == ["stop"]
    assert page.look("sessionStorage.getItem('reflex-key')") == KEY
    assert page.look("localStorage.length") == 0
    page.call("Page.reload")
    page.wait_text("#word", "STOPPED")


def test_a_tripped_guard_is_shown_and_reset(
    serving: Serving, look_at: LookAt, paper: PaperRobot, tmp_path: Any, export_dir: ExportDir
) -> None:
    server = serving()
    page = look_at(server)
    guard = server.engine.loaded.guard
    calmly(server)
    page.wait_text("#word", "READY")
    for _ in range(guard.status().max_consecutive_clamps):
        calmly(server, state=BEYOND)
    page.wait_text("#guard-facts", "peer:127.0.0.1")
    page.wait_text("#word", "READY")
    page.wait_text("#events", "Held: guard tripped")
    page.click("#reset-guard")
    page.wait_text("#reset-guard", "press again")
    page.click("#reset-guard")
    page.wait_text("#notice", "The guard was reset for peer:127.0.0.1")
    assert not guard.status().tripped


def test_the_split_is_seen_and_set(serving: Serving, look_at: LookAt, export_dir: ExportDir) -> None:
    exports = {"policy_a": str(export_dir("calm")), "policy_b": str(export_dir("calm"))}
    server = serving(export_dir="", rtc=False, split=80, **exports)
    page = look_at(server)
    page.wait_text("#split-share", "80 %")
    page.wait_text("#slot-cards", "B 20 %")
    page.look(
        "(() => { const s = document.getElementById('split'); s.value = 30;"
        " s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    page.wait_text("#split-share", "not set yet")
    assert server.client.get("/policies").json["split"] == 80
    page.click("#split-form button[type=submit]")
    page.wait_text("#slot-cards", "A 30 %")
    page.wait_text("#changes", "split: A 80 % → 30 %")
    assert server.client.get("/policies").json["split"] == 30
    page.click("#promote-b")
    page.wait_text("#promote-b", "press again")
    page.click("#promote-b")
    page.wait_text("#slot-cards", "A 0 %")


def test_a_slider_that_was_moved_follows_the_next_change_of_the_split(
    serving: Serving, look_at: LookAt, export_dir: ExportDir
) -> None:
    exports = {"policy_a": str(export_dir("calm")), "policy_b": str(export_dir("calm"))}
    server = serving(export_dir="", rtc=False, split=80, **exports)
    page = look_at(server)
    page.wait_text("#split-share", "80 %")
    move = (
        "(() => { const s = document.getElementById('split'); s.value = 30;"
        " s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    page.look(move)
    page.click("#promote-b")
    page.wait_text("#promote-b", "press again")
    page.click("#promote-b")
    page.wait_text("#split-share", "0 %")
    page.wait("document.getElementById('split').value", lambda value: value == "0")
    page.look(move)
    page.wait_text("#split-share", "not set yet")
    assert server.client.ask("POST", "/policies", b'{"split": 60}').status == 200  # another client
    page.wait("document.getElementById('split').value", lambda value: value == "60")
    assert page.text("#split-share") == "60 %"


def test_where_others_can_reach_it_without_a_key_only_stop_acts(
    serving: Serving, look_at: LookAt, paper: PaperRobot, export_dir: ExportDir
) -> None:
    exports = {"policy_a": str(export_dir("calm")), "policy_b": str(export_dir("calm"))}
    server = serving(export_dir="", rtc=False, host="0.0.0.0", insecure=True, **exports)
    page = look_at(server, url=f"http://127.0.0.1:{server.sidecar.port}")
    page.wait("document.getElementById('only-stop')?.hidden === false")
    page.wait_text("#slot-cards", "A 50 %")
    page.click("#stop")
    page.wait_text("#word", "STOPPED")
    hidden = "[...document.querySelectorAll('button:not(.term)')].filter(e => e.offsetParent).map(e => e.id)"
    assert page.look(hidden) == ["stop"]
    assert paper.done == ["stop"]
