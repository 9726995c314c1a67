# SPDX-License-Identifier: Apache-2.0
"""The HTML report of `reflex trace report` in a browser: drawn, inside its width, and nothing recorded is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from episodes_recorded import documents, write

from benchmarks.chromium import Browser
from reflex_ros.cli.main import main


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_report_is_drawn_inside_the_window(
    chromium: Browser, tmp_path: Path, width: int, height: int
) -> None:
    report = tmp_path / "report.html"
    assert (
        main(["trace", "report", str(write(tmp_path / "a.jsonl", documents())), "--plot", str(report)]) == 0
    )
    page = chromium.open(report.as_uri(), width, height)
    try:
        page.wait("document.readyState", lambda state: state == "complete")
        assert page.look("document.querySelectorAll('.record').length") == 9
        assert page.look("[...document.images].every(image => image.naturalWidth > 0)")
        assert page.look("document.images.length") == 9, "none of them is a recorded text"
        assert page.look("document.scripts.length") == 0
        assert page.look("document.documentElement.scrollWidth") <= width
        assert page.look("document.querySelectorAll('svg .changed').length") == 3 + 3 * 7
        assert page.look("getComputedStyle(document.querySelector('.HELD h3')).color") != page.look(
            "getComputedStyle(document.querySelector('.SERVED h3')).color"
        )
        assert page.look("document.querySelector('.strip a').getBoundingClientRect().width") > 0
    finally:
        page.close()
