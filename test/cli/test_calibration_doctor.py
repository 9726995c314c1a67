# SPDX-License-Identifier: Apache-2.0
"""`reflex doctor --show-calibration` shows what was measured here, and why it would be measured again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from servers import ExportDir

from reflex_core.calibration.auto import auto_calibrate
from reflex_core.calibration.cache import read, store
from reflex_core.calibration.fingerprint import this_machine
from reflex_core.calibration.measure import Effort
from reflex_core.export.export import open_export
from reflex_ros.cli.doctor import main


@pytest.fixture
def cache(export_dir: ExportDir, tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    auto_calibrate(open_export(export_dir("gr00t")), None, path=path, effort=Effort(1, 3, 0.0))
    return path


def shown(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    status = main(["--show-calibration", "--calibration-cache", str(path), *more])
    return status, capsys.readouterr().out


def test_what_was_measured_is_shown(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = shown(cache, capsys)
    assert status == 0
    assert "in use" in text
    assert "CPUExecutionProvider" in text
    assert "10 actions in 4 denoise steps" in text


def test_programs_read_it_as_json(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = shown(cache, capsys, "--json")
    found = json.loads(text)
    (entry,) = found["entries"].values()
    assert (status, found["problem"], entry["stale"], entry["nfe"]) == (0, "", "", 4)


def test_a_stale_entry_says_why(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, entry = next(iter(read(cache).entries.items()))
    store(cache, key, replace(entry, timestamp="2020-01-01T00:00:00+00:00"), this_machine())
    assert "days old, 30 are allowed" in shown(cache, capsys)[1]
    store(cache, key, entry, replace(this_machine(), cpu_count=999))
    assert (
        "STALE: it was measured on other hardware or software: cpu_count 999 is now"
        in shown(cache, capsys)[1]
    )


def test_no_file_and_a_damaged_one_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = shown(tmp_path / "none.json", capsys)
    assert status == 1
    assert "serve with --auto-calibrate" in text
    (tmp_path / "bad.json").write_text("{")
    status, text = shown(tmp_path / "bad.json", capsys)
    assert status == 1
    assert "cannot be read" in text
