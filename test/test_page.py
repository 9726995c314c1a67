# SPDX-License-Identifier: Apache-2.0
"""The page in a real headless Chromium: what a person sees and presses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from asking import AT_REST
from conftest import ExportDir, MakeEngine, Server
from http_client import Client, wait_for
from page_world import KEY, PaperRobot, restarted

from benchmarks.chromium import Browser, Page, browser
from reflex_ros.sidecar.events import MOST_CLIENTS
from reflex_ros.sidecar.robot import Look
from reflex_ros.sidecar.thread import Sidecar

PHONE = (390, 844)
SMALL_PHONE = (320, 568)
HOSTILE = '<img src=x onerror="window.owned = 1"><script>window.owned = 1</script><b>reach</b>'

Serving = Callable[..., Server]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def paper() -> PaperRobot:
    return PaperRobot(Look("active", instruction="reach the red cube", episode_id="ep_1"))


@pytest.fixture
def serving(make_engine: MakeEngine, paper: PaperRobot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """`serving(key="...")`: a calm policy behind a sidecar with the paper robot; `robot=False` leaves that out."""
    sidecars: list[Sidecar] = []

    def start(key: str = "", *, robot: bool = True, **settings: Any) -> Server:
        if key:
            monkeypatch.setenv("REFLEX_API_KEY", key)
        engine = make_engine("calm", **{"port": 0, "embodiment": "franka", "robot_id": "arm7"} | settings)
        sidecar = Sidecar(engine, engine.settings, paper.robot() if robot else None)
        sidecar.start()
        sidecars.append(sidecar)
        return Server(engine, sidecar, Client(sidecar.port))

    yield start
    for sidecar in sidecars:
        sidecar.stop()


@pytest.fixture
def look_at(chromium: Browser) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def opened(server: Server, width: int = 1280, height: int = 900, url: str = "", **more: Any) -> Page:
        pages.append(chromium.open(url or server.sidecar.url, width, height, **more))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


LookAt = Callable[..., Page]


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


def calmly(server: Server, **fields: Any) -> Any:
    return server.client.act(**({"state": list(AT_REST)} | fields))


def test_it_shows_state_cameras_chunk_latency_guard_and_recorders(
    serving: Serving, look_at: LookAt, tmp_path: Any
) -> None:
    server = serving(deadline_ms=5000.0, record=str(tmp_path))
    calmly(server, episode_id="ep_1")
    page = look_at(server)
    page.wait_text("#word", "READY")
    assert page.wait_text("#robot-id", "arm7") == "arm7"
    assert page.wait("document.querySelector('#cameras img')?.naturalWidth") == 32
    page.wait("document.querySelectorAll('.joint').length", lambda many: many == 7)
    page.wait("document.querySelectorAll('.limit-line').length", lambda many: many == 14)
    assert (
        page.look("document.querySelector('.path:not(.raw)').getAttribute('points').split(' ').length") == 50
    )
    page.wait_text("#histogram", "deadline 5000")
    assert page.look("document.querySelectorAll('#histogram .bar').length") == 1
    page.wait_text("#recorders", "written")
    page.wait_text("#guard-facts", "watching")
    assert "arm7" in page.look("document.title")
    assert page.browser.complaints == []


def test_it_asks_nobody_but_its_own_server(serving: Serving, look_at: LookAt) -> None:
    server = serving()
    calmly(server)
    page = look_at(server)
    page.wait("document.querySelector('#cameras img')?.naturalWidth")
    others = [
        url
        for url in page.browser.requests
        if not url.startswith((server.sidecar.url + "/", "data:image/jpeg"))
    ]
    assert others == []


def test_it_follows_live(serving: Serving, look_at: LookAt) -> None:
    server = serving()
    page = look_at(server)
    page.wait_text("#counter-facts", "answers\n0")
    calmly(server, instruction="reach the blue cube")
    page.wait_text("#counter-facts", "answers\n1")
    server.engine.adjust(replace(server.engine.settings, deadline_ms=4321.0))
    page.wait_text("tr[data-name=deadline_ms]", "4321")
    page.wait("document.querySelector('tr[data-name=deadline_ms]').classList.contains('fresh')")


def test_it_says_why_loading_failed(serving: Serving, look_at: LookAt, tmp_path: Any) -> None:
    server = serving(ready=False)
    page = look_at(server)
    page.wait_text("#word", "INITIALIZING")
    with pytest.raises(Exception, match="no such export"):
        server.engine.load(replace(server.engine.settings, export_dir=str(tmp_path / "gone")))
    page.wait_text("#word", "FAILED")
    page.wait_text("#sentence", "configuration refused, see the log")


def test_it_says_who_it_lost_and_finds_the_server_again(serving: Serving, look_at: LookAt) -> None:
    server = serving()
    page = look_at(server)
    page.wait_text("#word", "READY")
    server.sidecar.stop()
    page.wait_text("#word", "NO CONNECTION")
    page.wait_text("#sentence", "is old")
    assert page.look("document.getElementById('panels').classList.contains('stale')")
    assert page.look("document.getElementById('top').dataset.level") == "lost"
    again = restarted(server.engine, server.sidecar.port)
    try:
        page.wait_text("#word", "READY")
        assert not page.look("document.getElementById('panels').classList.contains('stale')")
        calmly(server)
        page.wait_text("#counter-facts", "answers\n1")
    finally:
        again.stop()


def test_a_hostile_instruction_stays_text(serving: Serving, look_at: LookAt, paper: PaperRobot) -> None:
    server = serving()
    paper.look = replace(
        paper.look, instruction=HOSTILE, episode_id=HOSTILE, problem=HOSTILE, problem_text=HOSTILE
    )
    calmly(server, instruction=HOSTILE, episode_id=HOSTILE, request_id=HOSTILE)
    calmly(server, state=[9.0] * 7, instruction=HOSTILE, episode_id=HOSTILE)
    page = look_at(server)
    assert HOSTILE in page.wait_text("#now-facts", "onerror")
    page.wait_text("#sentence", "onerror")
    calmly(server, instruction=HOSTILE)
    page.wait_text("#counter-facts", "answers")
    assert page.look("window.owned") is None
    assert page.look("document.querySelectorAll('main b, main script, main img[src=x]').length") == page.look(
        "document.querySelectorAll('.joint b').length"
    )


def test_inline_script_would_not_run(serving: Serving, look_at: LookAt) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    page.look("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = 1\">')")
    page.wait("1", lambda _: any("Content Security Policy" in said for said in page.browser.complaints))
    assert page.look("window.owned") is None


def test_stop_is_one_press_and_resume_is_two(serving: Serving, look_at: LookAt, paper: PaperRobot) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    assert page.look("document.getElementById('resume').hidden")
    page.click("#stop")
    page.wait_text("#word", "STOPPED")
    page.wait_text("#said", "stop on paper")
    page.wait("!document.getElementById('resume').hidden")
    page.click("#resume")
    page.wait_text("#resume", "press again")
    assert paper.done == ["stop"]
    page.click("#resume")
    page.wait_text("#word", "READY")
    assert paper.done == ["stop", "resume"]


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
    page.wait_text("#said", "STOP DID NOT HAPPEN: the node is inactive, not active")
    server.sidecar.stop()
    page.wait_text("#word", "NO CONNECTION")
    page.click("#stop")
    page.wait_text("#said", "STOP DID NOT HAPPEN: no connection")


def test_with_a_key_nothing_is_shown_or_done_until_it_is_typed(
    serving: Serving, look_at: LookAt, paper: PaperRobot
) -> None:
    server = serving(key=KEY)
    calmly(server)
    page = look_at(server)
    page.wait_text("#word", "KEY NEEDED")
    assert page.look("document.getElementById('panels').hidden")
    page.click("#stop")
    page.wait_text("#said", "STOP DID NOT HAPPEN: the API key is missing or wrong")
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
        calmly(server, state=[2.0] * 7)
    page.wait_text("#word", "GUARD TRIPPED")
    page.wait_text("#events", "guard_tripped")
    page.click("#reset-guard")
    page.wait_text("#reset-guard", "press again")
    page.click("#reset-guard")
    page.wait_text("#word", "READY")
    assert not guard.status().tripped


def test_without_a_robot_there_is_no_stop_button(serving: Serving, look_at: LookAt) -> None:
    page = look_at(serving(robot=False))
    page.wait_text("#word", "READY")
    assert page.look("document.getElementById('stop').hidden")
    assert page.look("document.getElementById('concerns').hidden")


@pytest.mark.parametrize("size", [PHONE, SMALL_PHONE])
def test_on_a_phone_nothing_is_cut_off_and_every_control_fits_a_finger(
    serving: Serving, look_at: LookAt, paper: PaperRobot, size: tuple[int, int]
) -> None:
    server = serving()
    paper.look = replace(paper.look, stopped=True, instruction="x" * 200, ages_ms={"camera front": 12.0})
    calmly(server, episode_id="e" * 200)
    page = look_at(server, *size, phone=True)
    page.wait_text("#word", "STOPPED")
    page.wait("document.querySelectorAll('.joint').length", lambda many: many == 7)
    assert page.look("document.documentElement.scrollWidth") == size[0] == page.look("innerWidth")
    small = page.look(
        "[...document.querySelectorAll('button, input')].filter(e => e.offsetParent)"
        ".filter(e => e.getBoundingClientRect().height < 44).map(e => e.id)"
    )
    assert small == []
    above = page.look("document.getElementById('stop').getBoundingClientRect().bottom")
    assert above < size[1], "stop is in sight without scrolling"


def test_slots_are_shown_only_where_there_are_two(serving: Serving, look_at: LookAt) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    assert page.look("document.getElementById('slots').hidden")


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
    assert server.client.ask("POST", "/policies", b'{"split": 60}').status == 200  # somebody else
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
    hidden = "[...document.querySelectorAll('button')].filter(e => e.offsetParent).map(e => e.id)"
    assert page.look(hidden) == ["stop"]
    assert paper.done == ["stop"]


def test_another_site_takes_no_place_from_the_page(
    serving: Serving, look_at: LookAt, chromium: Browser
) -> None:
    server = serving()
    images = f'<img src="{server.sidecar.url}/events">' * MOST_CLIENTS
    look_at(server, url=f"data:text/html,{quote(images)}").wait(
        "[...document.images].every((image) => image.complete) && document.images.length", MOST_CLIENTS.__eq__
    )
    page = look_at(server)
    page.wait_text("#word", "READY")
    assert page.look("document.getElementById('only-stop').hidden"), "on its own machine everything acts"


def test_a_page_that_nobody_sees_costs_nothing(serving: Serving, look_at: LookAt) -> None:
    from reflex_ros.sidecar.door import HUB

    server = serving()
    page = look_at(server)
    page.wait_text("#word", "READY")
    assert server.sidecar.app is not None
    hub = server.sidecar.app[HUB]
    assert hub.clients == 1
    page.look(
        "(() => { Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); })()"
    )
    wait_for(lambda: not hub.clients)
    page.look("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait("1", lambda _: hub.clients == 1)
