# SPDX-License-Identifier: Apache-2.0
"""What docs/how-to/upgrade.md tells people to change is so."""

from __future__ import annotations

import re

import pytest
from first_version import TEST

from reflex_ros.cli.main import main

PAGE = (TEST.parent / "docs" / "how-to" / "upgrade.md").read_text(encoding="utf-8")
Output = pytest.CaptureFixture[str]


def test_every_row_names_a_test_that_exists() -> None:
    rows = [
        row
        for row in PAGE.splitlines()
        if row.startswith("| ") and not row.startswith(("| before", "| made", "| verdict", "| event"))
    ]
    rows = [row for row in rows if row.count("|") > 3]
    there = "".join(path.read_text(encoding="utf-8") for path in TEST.rglob("test_*.py"))
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.rpartition(" | ")[2])
        assert named, row
        assert [name for name in named if f"def {name}(" not in there] == [], row


@pytest.mark.parametrize(
    "words",
    [
        ["ab", "report", "--js", "x"],
        ["audit", "verify", "x", "--hea", "0" * 64],
        ["bag", "reindex", "x", "--forc"],
        ["guard", "init", "--urd", "x"],
        ["guard", "check", "--conf", "x"],
        ["trace", "export", "x", "--form", "npz", "--output", "y"],
        ["manifest", "x", "--forc"],
        ["export", "seal", "x", "--forc"],
        ["doctor", "--js"],
        ["serve", "--embodi", "franka"],
        ["calibrate-adaptive", "--writ"],
        ["calibrate-prefix", "x", "--writ"],
    ],
    ids=lambda words: " ".join(words),
)
def test_shortened_options_are_refused_by_every_command(words: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert re.search("no such option|are required", capsys.readouterr().err)


@pytest.mark.parametrize(
    "words", [["--no-http"], ["--record-bag", "bags"], ["--cloud-fallback", "not a url"]]
)
def test_settings_that_serve_nothing_end_with_78(words: list[str], capsys: Output) -> None:
    assert main(["serve", "demo", "--no-ros", *words]) == 78
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
