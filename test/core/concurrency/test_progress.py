# SPDX-License-Identifier: Apache-2.0
"""Slow work says how far it is, to the thread that started it; requests say nothing."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from servers import ExportDir, MakeEngine

from reflex_core.calibration.auto import auto_calibrate
from reflex_core.calibration.measure import Effort
from reflex_core.concurrency.progress import report, reported_to
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export

Reports = list[tuple[float, str]]


def test_loading_and_warming_up_are_reported_from_beginning_to_end(make_engine: MakeEngine) -> None:
    engine, heard = make_engine("calm", ready=False, embodiment="franka"), Reports()
    with reported_to(lambda fraction, text: heard.append((fraction, text))):
        engine.load()
        engine.warm_up()
    for task in ("loading", "warming up"):
        fractions = [fraction for fraction, text in heard if text.split(":")[0] == task]
        assert (fractions[0], fractions[-1]) == (0.0, 1.0)
        assert fractions == sorted(fractions)
    assert any("pi0-mono@" in text for _, text in heard)


def test_a_request_reports_nothing(make_engine: MakeEngine) -> None:
    engine, heard = make_engine("calm", embodiment="franka"), Reports()
    loaded = engine.loaded
    assert loaded is not None
    request = engine.request(loaded.policy.canary())
    with reported_to(lambda fraction, text: heard.append((fraction, text))):
        engine.act(request)
    assert heard == []


def test_calibration_reports_each_candidate(export_dir: ExportDir, tmp_path: Path) -> None:
    heard = Reports()
    with reported_to(lambda fraction, text: heard.append((fraction, text))):
        auto_calibrate(
            open_export(export_dir("gr00t")), None, path=tmp_path / "cache.json", effort=Effort(1, 3, 0.0)
        )
    candidates = [(fraction, text) for fraction, text in heard if text.startswith("calibrating: ")]
    assert candidates[0] == (0.0, "calibrating: CPUExecutionProvider")
    assert any("threads" in text for _, text in candidates)
    assert all(before < after for (before, _), (after, _) in pairwise(candidates))
    assert heard[-1] == (1.0, "calibrating")


def test_a_load_that_fails_is_reported_until_then(make_engine: MakeEngine, export_copy: ExportDir) -> None:
    damaged = export_copy("calm")
    (damaged / "model.onnx").write_bytes(b"no graph")
    engine, heard = make_engine("calm", ready=False, export_dir=str(damaged)), Reports()
    with (
        reported_to(lambda fraction, text: heard.append((fraction, text))),
        pytest.raises(ConfigurationError),
    ):
        engine.load()
    assert [fraction for fraction, _ in heard] == [0.0, 0.5]


def test_only_the_thread_that_listens_is_notified() -> None:
    heard = Reports()
    with reported_to(lambda fraction, text: heard.append((fraction, text))):
        other = threading.Thread(target=report, args=(0.5, "elsewhere"))
        other.start()
        other.join()
        report(0.5, "here")
    report(1.0, "too late")
    assert heard == [(0.5, "here")]
