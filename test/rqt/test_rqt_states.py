# SPDX-License-Identifier: Apache-2.0
"""Every state of the panel on a light and on a dark palette, as the pictures of the documentation show them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import offscreen
import pytest
from PIL import Image
from repository import ROOT

from benchmarks.rqt_pictures import NoRobot, application, palette_of, pixels_of
from benchmarks.rqt_states import NOW_S, STATES, board_in
from reflex_ros.rqt.panel_theme import BANNER, DARK, LIGHT
from reflex_ros.rqt.widget import Panel
from reflex_ros.sidecar.operator_words import LEVELS

PICTURES = ROOT / "docs" / "pictures"
SIZES = [(1280, 800), (1000, 640)]


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def dark(request: pytest.FixtureRequest) -> Iterator[bool]:
    offscreen.application()
    host = application()
    before = host.palette()
    host.setPalette(palette_of(request.param))
    yield request.param
    host.setPalette(before)


def panel_in(state: str, size: tuple[int, int]) -> Any:
    found = Panel(board_in(state).view, NoRobot(), lambda _: None, lambda: NOW_S)
    found.resize(*size)
    found.show()
    found.refresh()
    offscreen.application().processEvents()
    return found


@pytest.fixture(params=SIZES, ids=["wide", "small"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("state", STATES)
def test_a_state_has_its_word_its_colour_and_its_essentials_in_sight(
    state: str, dark: bool, size: tuple[int, int]
) -> None:
    panel = panel_in(state, size)
    banner = panel.banner
    assert banner.word.text() == state
    pixels = pixels_of(banner.grab().toImage())
    ground = tuple(int(BANNER[LEVELS[state]][0][at : at + 2], 16) for at in (1, 3, 5))
    assert (pixels == ground).all(axis=2).mean() > 0.5, "the banner is of the word's colour"
    assert (panel.width(), panel.height()) == size, "nothing makes the panel larger"
    assert banner.sentence.text()
    essentials = [
        banner.stop,
        banner.word,
        banner.sentence,
        panel.camera,
        panel.episode.text,
        panel.latency,
        panel.details,
    ]
    buttons = {"STOPPED": [banner.resume], "TRIPPED": [banner.reset]}
    for widget in (*essentials, *buttons.get(state, [])):
        corner = widget.mapTo(panel, widget.rect().bottomRight())
        assert widget.isVisible(), widget
        assert 0 <= corner.x() < panel.width(), widget
        assert 0 <= corner.y() < panel.height(), widget
    assert panel.checklist.isVisible() == (state in ("WAITING", "FAILED"))
    panel.end()
    panel.close()


@pytest.mark.parametrize("state", STATES)
def test_no_text_of_the_banner_is_cut(state: str, dark: bool, size: tuple[int, int]) -> None:
    panel = panel_in(state, size)
    for label in (panel.banner.word, panel.banner.sentence, panel.banner.todo, panel.banner.facts):
        if label.isVisible():
            width = label.width()
            needed = label.heightForWidth(width) if label.wordWrap() else label.sizeHint().height()
            assert label.height() >= needed, label.text()
    panel.end()
    panel.close()


def test_the_plots_follow_the_palette(dark: bool) -> None:
    panel = panel_in("READY", SIZES[0])
    theme = DARK if dark else LIGHT
    for plot in (panel.latency, panel.chunk):
        pixels = pixels_of(plot.grab().toImage())
        for colour in (theme.ground, theme.blue):
            wanted = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
            assert (pixels == wanted).all(axis=2).any(), colour
    panel.end()
    panel.close()


def test_what_is_old_has_no_colour(dark: bool) -> None:
    panel = panel_in("NO CONNECTION", SIZES[0])
    theme = DARK if dark else LIGHT
    blue = tuple(int(theme.blue[at : at + 2], 16) for at in (1, 3, 5))
    for plot in (panel.latency, panel.chunk):
        assert not (pixels_of(plot.grab().toImage()) == blue).all(axis=2).any()
    panel.end()
    panel.close()


def test_one_command_writes_the_pictures_of_all_states(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.rqt_pictures",
        "--no-demo",
        "--output",
        str(tmp_path),
        "--each",
        str(tmp_path / "each"),
    ]
    environment = dict(os.environ, QT_QPA_PLATFORM="offscreen")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "each").glob("*.png"))) == 2 * len(STATES)
    with Image.open(tmp_path / "rqt_states.png") as drawn, Image.open(PICTURES / "rqt_states.png") as kept:
        assert drawn.size == kept.size, "the kept picture is of the same states: run the command again"
