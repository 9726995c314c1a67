# SPDX-License-Identifier: Apache-2.0
"""Every state of the page, at both sizes and in both themes: the word, its colour, what is in sight, axe, and the kept picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.chromium import ROOT, Browser, Page
from benchmarks.page_pictures import SIZES, THEMES, Size, look, opened, photographed, sheet_name, tile_of
from benchmarks.page_states import EVERY, LOST, STATES, Shown, State, shown

PICTURES = ROOT / "docs" / "pictures"
AXE = ROOT / ".venv" / "axe" / "axe_playwright_python" / "axe.min.js"  # where `make` puts it
COLOURS = {  # of the banner
    "good": "rgb(0, 107, 74)", "wait": "rgb(65, 77, 88)", "hold": "rgb(240, 167, 28)", "stop": "rgb(11, 85, 156)",
    "bad": "rgb(168, 28, 18)", "lost": "rgb(0, 0, 0)",
}  # fmt: skip
ALWAYS = ("#word", "#sentence", "#instruction", "#policy", "#episode", "#stop", "#camera")
BANNER = ("#word", "#sentence", "#todo", "#stop")
INSTEAD = {  # of what there is once a policy is loaded and a key is known
    "failed": (*BANNER, "#policy", "#camera", "#joints .empty"),
    "key-needed": (*BANNER, "#key", "#key-form button"),
}
DESK = ("#timeline", "#events", "#send-instruction", "#start-episode", "#end-success", "#end-failure")
BLOCK = 12  # pixels of the kept picture: text that is drawn a little differently is the same within one
# of the mean colours of the blocks, 0 to 255: what fonts and antialiasing change stays below
APART, SHARE, MEAN = 30.0, 0.003, 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[Shown]:
    with shown() as found:
        yield found


@pytest.fixture(scope="module", params=[(size, theme) for size in SIZES for theme in THEMES],
                ids=[f"{size.name}-{theme}" for size in SIZES for theme in THEMES])  # fmt: skip
def view(request: pytest.FixtureRequest) -> tuple[Size, str]:
    found: tuple[Size, str] = request.param
    return found


@pytest.fixture(scope="module")
def page(view: tuple[Size, str], chromium: Browser, server: Shown) -> Iterator[Page]:
    found = opened(chromium, server, *view)
    found.look(AXE.read_text(encoding="utf-8") + "; 1")
    yield found
    found.close()


@pytest.fixture(params=EVERY, ids=lambda state: state.name)
def state(request: pytest.FixtureRequest, page: Page, server: Shown) -> State:
    found: State = request.param
    look(page, server, found)
    return found


def out_of_sight(page: Page, selectors: tuple[str, ...]) -> list[str]:
    """Return those that are not drawn whole in the window without scrolling; what STOP lies over on a phone is not in sight."""
    script = """(selectors) => {
      scrollTo(0, 0);
      const acts = document.getElementById("acts");
      const floor = getComputedStyle(acts).position === "fixed" ? acts.getBoundingClientRect().top : innerHeight;
      return selectors.filter((selector) => {
        const element = document.querySelector(selector);
        const place = element?.getBoundingClientRect();
        const bottom = acts.contains(element) ? innerHeight : floor;
        return !place || place.width < 8 || place.height < 8 || place.left < 0 || place.right > innerWidth + 0.5
          || place.top < 0 || place.bottom > bottom + 0.5;
      });
    }"""
    return list(page.look(f"({script})({json.dumps(selectors)})"))


def violations(page: Page) -> list[str]:
    """Return what axe finds that is serious or critical, with where."""
    if page.look("typeof axe") == "undefined":  # another server's page
        page.look(AXE.read_text(encoding="utf-8") + "; 1")
    found = page.look("axe.run(document, {resultTypes: ['violations']}).then((done) => done.violations)")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def difference(seen: Image.Image, kept: Image.Image) -> tuple[float, float]:
    """Return the mean difference of the blocks' colours, and the share of the blocks that are far apart."""
    blocks = kept.width // BLOCK, kept.height // BLOCK
    small = [
        np.asarray(picture.convert("RGB").resize(blocks, Image.Resampling.BOX), np.float64)
        for picture in (seen, kept)
    ]
    apart = np.abs(small[0] - small[1]).max(axis=2)
    return float(apart.mean()), float((apart > APART).mean())


def looks_the_same(seen: Image.Image, kept: Image.Image) -> bool:
    mean, share = difference(seen, kept)
    return mean <= MEAN and share <= SHARE


def kept_picture(view: tuple[Size, str], state: State) -> Image.Image:
    with Image.open(PICTURES / sheet_name(*view)) as sheet:
        return tile_of(sheet.convert("RGB"), view[0], EVERY.index(state))


def test_the_word_and_its_colour_agree(page: Page, state: State) -> None:
    assert page.text("#word") == state.word
    assert page.look("document.getElementById('top').dataset.level") == state.level
    colour = page.look("getComputedStyle(document.getElementById('top')).backgroundColor")
    assert colour == COLOURS[state.level]
    assert page.look("document.querySelectorAll('#sign path').length") > 0
    assert page.text("#sentence")
    assert page.text("#todo") or state.level == "good", "what to do next"


def test_the_essentials_are_in_sight_and_nothing_runs_over(
    page: Page, state: State, view: tuple[Size, str]
) -> None:
    size = view[0]
    main = "#needs li:last-child" if state.name == "waiting" else "#joints .joint"
    wanted = (*ALWAYS, main, *(() if size.phone else DESK))
    if size.phone and state.name == "waiting":
        wanted = tuple(
            one for one in wanted if one != "#camera"
        )  # there is no picture: what is missing goes first
    assert out_of_sight(page, INSTEAD.get(state.name, wanted)) == []
    assert page.look("document.documentElement.scrollWidth") == size.width == page.look("innerWidth")


def test_a_screen_reader_meets_nothing_serious(page: Page, state: State) -> None:
    assert violations(page) == []


def test_it_looks_as_the_kept_picture(
    page: Page, state: State, view: tuple[Size, str], tmp_path: Path
) -> None:
    seen, kept = photographed(page, view[0]), kept_picture(view, state)
    seen.save(tmp_path / f"{state.name}.png")
    mean, share = difference(seen, kept)
    assert looks_the_same(seen, kept), (
        f"{state.name} differs: {mean:.1f} in the mean (at most {MEAN}), {share:.1%} of the blocks by more than {APART}"
        f" (at most {SHARE:.0%}); seen: {tmp_path}. If it is meant: python -m benchmarks.page_pictures"
    )


@pytest.mark.parametrize("hidden", ["#camera", "#joints", "#timeline", "#operate", "#stop", "#why"])
def test_a_picture_that_lacks_a_part_is_noticed(
    page: Page, server: Shown, view: tuple[Size, str], hidden: str
) -> None:
    if view[0].phone and hidden in ("#timeline", "#operate"):
        hidden = "#what"  # they are below what is in sight
    look(page, server, STATES[3])
    style = f"document.querySelector('{hidden}').style.visibility"
    page.look(f"{style} = 'hidden'")
    try:
        assert not looks_the_same(photographed(page, view[0]), kept_picture(view, STATES[3]))
        assert out_of_sight(page, ("#nothing",)) == ["#nothing"]
    finally:
        page.look(f"{style} = ''")


def test_states_do_not_pass_for_each_other(view: tuple[Size, str]) -> None:
    for one in EVERY:
        for other in EVERY:
            if one is not other:
                assert not looks_the_same(kept_picture(view, one), kept_picture(view, other)), (
                    one.name,
                    other.name,
                )


def test_axe_finds_what_is_serious(page: Page, server: Shown) -> None:
    look(page, server, STATES[1])
    page.look("document.getElementById('instruction-text').labels[0].htmlFor = 'nothing'")
    try:
        assert any("label" in line for line in violations(page))
    finally:
        page.look("document.querySelector('#instruct-form label').htmlFor = 'instruction-text'")


def test_is_it_safe_is_a_page_that_opens_from_this_one(
    page: Page, server: Shown, chromium: Browser, view: tuple[Size, str]
) -> None:
    look(page, server, STATES[1])
    link = "document.getElementById('is-it-safe')"
    assert page.look(f"{link}.target") == "_blank", "the operator page stays open"
    size, theme = view
    other = chromium.open(page.look(f"{link}.href"), size.width, size.height, phone=size.phone, theme=theme)
    try:
        assert other.wait_text("h1", "Is it safe?")
        assert other.look("document.documentElement.scrollWidth") == size.width
        assert violations(other) == []
    finally:
        other.close()


def test_every_term_opens_by_keyboard_and_by_touch(page: Page, server: Shown) -> None:
    look(page, server, STATES[1])
    terms = page.look(
        "[...document.querySelectorAll('button.term')].filter((each) => each.offsetParent).length"
    )
    assert terms > 20
    wrong = page.look(
        "[...document.querySelectorAll('button.term')].filter((each) =>"
        " (document.getElementById(each.getAttribute('aria-describedby'))?.textContent ?? '').length < 10).map((each) => each.textContent)"
    )
    assert wrong == []
    page.look("document.querySelector('#what button.term').focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    page.call("Input.dispatchKeyEvent", type="keyDown", **enter)
    page.call("Input.dispatchKeyEvent", type="keyUp", **enter)
    assert "task in words" in page.wait_text("#explain", "instruction")
    assert out_of_sight(page, ("#explain",)) == []
    escape = {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27}
    page.call("Input.dispatchKeyEvent", type="keyDown", **escape)
    page.call("Input.dispatchKeyEvent", type="keyUp", **escape)
    page.wait("!document.getElementById('explain').matches(':popover-open')")
    page.click("#what div:nth-child(3) button.term")
    page.wait_text("#explain", "One attempt")
    page.look("document.getElementById('explain').hidePopover()")


def test_every_action_is_reached_by_the_keyboard(page: Page, server: Shown) -> None:
    look(page, server, STATES[3])
    page.look("document.activeElement.blur(); scrollTo(0, 0)")
    reached: list[Any] = []
    tab = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    for _ in range(60):
        page.call("Input.dispatchKeyEvent", type="keyDown", **tab)
        page.call("Input.dispatchKeyEvent", type="keyUp", **tab)
        reached.append(page.look("document.activeElement.id"))
    wanted = {"resume", "stop", "instruction-text", "send-instruction", "start-episode", "end-success", "end-failure"}  # fmt: skip
    assert wanted <= set(reached), wanted - set(reached)
    assert reached.index("stop") < reached.index("instruction-text")


def test_the_states_of_the_issue_are_all_here() -> None:
    assert {state.word for state in EVERY} == {
        "WAITING", "READY", "HOLDING", "STOPPED", "TRIPPED", "NO CONNECTION", "FAILED", "KEY NEEDED",
    }  # fmt: skip
    assert LOST in EVERY
