# SPDX-License-Identifier: Apache-2.0
"""man/reflex.1 is what the command lines are now."""

from __future__ import annotations

import pytest
from repository import ROOT

from reflex_core.settings.table import TABLE
from reflex_ros.cli.commands import commands
from reflex_ros.cli.man_page import page


def test_the_man_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # the width of a terminal does not change it
    written = (ROOT / "man" / "reflex.1").read_text(encoding="utf-8")
    assert written == page(), "run `python -m reflex_ros.cli.man_page > man/reflex.1`"


def test_the_man_page_has_every_verb_and_every_setting() -> None:
    text = page().replace(r"\-", "-")
    for command in commands():
        assert f".SS reflex {' '.join(command.words)}\n" in text
    for row in TABLE:
        assert rf"\fB{row.flag}\fR" in text


def test_no_line_is_taken_for_a_request_of_roff() -> None:
    known = (".TH", ".SH", ".SS", ".TP", ".B", ".PP", ".nf", ".fi", ".nh", ".ad")
    for line in page().splitlines():
        assert not line.startswith((".", "'")) or line.split()[0] in known, line
