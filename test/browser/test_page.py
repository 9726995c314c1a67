# SPDX-License-Identifier: Apache-2.0
"""The page in a real headless Chromium: what a person sees and presses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from asking import BEYOND
from http_client import wait_for
from page_world import LookAt, PaperRobot, Serving, calmly, restarted

from benchmarks.chromium import Browser
from reflex_ros.sidecar.events import MOST_CLIENTS

PHONE = (390, 844)
SMALL_PHONE = (320, 568)
HOSTILE = '<img src=x onerror="window.owned = 1"><script>window.owned = 1</script><b>reach</b>'


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
    page.wait_text(".joint footer", "from m")
    assert (
        page.look("document.querySelector('.path:not(.raw)').getAttribute('points').split(' ').length") == 50
    )
    page.wait_text("#timeline", "deadline 5000")
    page.wait("document.querySelectorAll('#timeline .mean').length", lambda many: many == 1)
    page.wait_text("#instruction", "reach the red cube")
    page.wait_text("#episode", "ep_1")
    page.click("#distribution summary")
    page.wait_text("#histogram", "deadline 5000")
    assert page.look("document.querySelectorAll('#histogram .bar').length") == 1
    page.wait_text("#recorders", "written")
    page.wait_text("#guard-facts", "watching")
    assert "arm7" in page.look("document.title")
    assert page.browser.complaints == []


def test_it_sends_requests_only_to_its_own_server(serving: Serving, look_at: LookAt) -> None:
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
    page.wait_text("#word", "WAITING")
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
    paper.snapshot = replace(
        paper.snapshot, instruction=HOSTILE, episode_id=HOSTILE, problem=HOSTILE, problem_text=HOSTILE
    )
    calmly(server, instruction=HOSTILE, episode_id=HOSTILE, request_id=HOSTILE)
    calmly(server, state=BEYOND, instruction=HOSTILE, episode_id=HOSTILE)
    page = look_at(server)
    for place in ("#instruction", "#episode"):
        page.wait(f"document.querySelector('{place}')?.textContent", lambda text: text == HOSTILE)
    page.wait_text("#sentence", "onerror")
    page.wait_text("#events", "onerror")
    calmly(server, instruction=HOSTILE)
    page.wait_text("#counter-facts", "answers")
    assert page.look("window.owned") is None
    assert (
        page.look(
            "document.querySelectorAll('main script, header script, img[src=x], #events b, #what b').length"
        )
        == 0
    )


def test_inline_script_would_not_run(serving: Serving, look_at: LookAt) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    page.look("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = 1\">')")
    page.wait(
        "1", lambda _: any("Content Security Policy" in complaint for complaint in page.browser.complaints)
    )
    assert page.look("window.owned") is None


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
    paper.snapshot = replace(
        paper.snapshot, stopped=True, instruction="x" * 200, ages_ms={"camera front": 12.0}
    )
    calmly(server, episode_id="e" * 200)
    page = look_at(server, *size, phone=True)
    page.wait_text("#word", "STOPPED")
    page.wait("document.querySelectorAll('.joint').length", lambda many: many == 7)
    assert page.look("document.documentElement.scrollWidth") == size[0] == page.look("innerWidth")
    small = page.look(
        "[...document.querySelectorAll('button:not(.term), input')].filter(e => e.offsetParent)"
        ".filter(e => e.getBoundingClientRect().height < 44).map(e => e.id)"
    )
    assert small == []
    above = page.look("document.getElementById('stop').getBoundingClientRect().bottom")
    assert above < size[1], "stop is in sight without scrolling"


def test_slots_are_shown_only_where_there_are_two(serving: Serving, look_at: LookAt) -> None:
    page = look_at(serving())
    page.wait_text("#word", "READY")
    assert page.look("document.getElementById('slots').hidden")


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


def test_a_hidden_page_costs_nothing(serving: Serving, look_at: LookAt) -> None:
    from reflex_ros.sidecar.page_routes import HUB

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
