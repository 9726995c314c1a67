# SPDX-License-Identifier: Apache-2.0
"""Loading is waited for so long and no longer; absurd sizes are refused before anything is made of them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from echoes import echo
from servers import ExportDir

from reflex_core.concurrency.progress import report, reported_to
from reflex_core.concurrency.time_limit import OverTimeError, within
from reflex_core.engine import load_policy
from reflex_core.errors import ConfigurationError
from reflex_core.metrics.metrics import Metrics
from reflex_core.settings.table import settings_from


def test_work_that_ends_is_returned_or_raised() -> None:
    assert within(10.0, lambda: 3, "work") == 3
    assert within(0.0, threading.get_ident, "work") == threading.get_ident()
    with pytest.raises(KeyError, match="lost"):
        within(10.0, lambda: {}["lost"], "work")


def test_work_that_hangs_is_left_alone() -> None:
    go = threading.Event()
    with pytest.raises(OverTimeError, match=r"work did not end within 0\.01 s"):
        within(0.01, go.wait, "work")
    go.set()


def test_its_progress_goes_to_who_waits() -> None:
    heard: list[str] = []
    with reported_to(lambda _, text: heard.append(text)):
        within(10.0, lambda: report(0.5, "loading"), "work")
    assert heard == ["loading"]


def test_a_load_that_hangs_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch, export_dir: ExportDir) -> None:
    go = threading.Event()
    monkeypatch.setattr(load_policy, "open_export", lambda _: go.wait())
    path = export_dir("mono_pi0_7")
    with pytest.raises(ConfigurationError, match=r"not loaded within 0\.05 s: look whether") as caught:
        load_policy.load(settings_from({"export_dir": str(path), "load_timeout_s": 0.05}), Metrics())
    assert caught.value.slug == "load-timeout"
    go.set()


def test_an_embodiment_that_is_a_pipe_is_refused_and_not_left_out(export_copy: ExportDir) -> None:
    path = export_copy("mono_pi0_7")
    os.mkfifo(path / "embodiment.json")
    with pytest.raises(ConfigurationError, match=r"embodiment\.json: .*pipe"):
        load_policy.load(settings_from({"export_dir": str(path), "device": "cpu"}), Metrics())


def test_a_head_and_a_recorded_chunk_that_are_pipes_are_refused(tmp_path: Path) -> None:
    from reflex_core.chunks.a2c2.checkpoint import read_checkpoint
    from reflex_core.doctor.parity import FIXTURE, parity
    from reflex_core.export.export import open_export
    from reflex_core.policy.load import load_policy

    os.mkfifo(tmp_path / "head.npz")
    with pytest.raises(
        ConfigurationError, match=r"head\.npz: the A2C2 checkpoint: must be a regular file, it is a FIFO"
    ):
        read_checkpoint(tmp_path / "head.npz")
    policy = load_policy(open_export(echo(tmp_path / "echo", felt=7, image=False, images=[])), None, "cpu", 1)
    os.mkfifo(tmp_path / "echo" / FIXTURE)
    assert "must be a regular file, it is a FIFO" in parity(policy).said


ABSURD: dict[str, dict[str, Any]] = {
    "num_denoising_steps": {"num_denoising_steps": 100_000},
    "chunk_size": {"chunk_size": 10**9},
    "action_dim": {"action_dim": 10**9},
    "language.length": {"language": {"length": 10**9}},
    "language.max_length": {"language": {"max_length": 10**9}},
    "state.pad": {
        "state": {"pad": 10**9, "enters": "prompt"},
        "language": {"template": "{instruction} {state}"},
    },
    "state.bins": {
        "state": {"bins": 10**9, "enters": "prompt"},
        "language": {"template": "{instruction} {state}"},
    },
    "images.height": {"images": [{"camera": "front", "input": "img_front", "height": 10**6}]},
}


@pytest.mark.parametrize("name", list(ABSURD))
def test_absurd_sizes_are_refused(tmp_path: Path, name: str) -> None:
    state = 0 if "state" in name else 7
    path = echo(tmp_path, "somebodys", felt=state, image="images" in name, **ABSURD[name])
    with pytest.raises(ConfigurationError) as caught:
        load_policy.load(settings_from({"export_dir": str(path), "device": "cpu"}), Metrics())
    assert name.rpartition(".")[2] in str(caught.value)
    assert "\n" not in str(caught.value)
