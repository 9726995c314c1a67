# SPDX-License-Identifier: Apache-2.0
"""The calibration cache: what is written, when it is out of date, and that flags which were given win."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from reflex_core.calibration import cache as kept
from reflex_core.calibration.cache import Calibration, look_up, read, resolve, store, store_latency
from reflex_core.calibration.fingerprint import (
    Fingerprint,
    fingerprint_from,
    physical_cores,
    ram_gb,
    this_machine,
)
from reflex_core.calibration.measure import Effort, Quality, Run, measure, quality_score
from reflex_core.errors import ConfigurationError
from reflex_core.policy.providers import CPU, CUDA

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
KEY = "franka::0123456789abcdef"
MACHINE = Fingerprint(None, None, None, None, None, None, "6.8.0", 8, 31.9, "0.1.0")
FOUND = Calibration(
    chunk_size=50, denoise_steps=8, provider=CPU, variant="", intra_op_threads=1, latency_compensation_ms=40.0,
    quality=Quality(10, 100, 20.0, 31.5, 10, 0.9), context={"ort_version": "1.23.2", "torch_version": None},
    timestamp=NOW.isoformat(),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    stored = tmp_path / "home" / "calibration.json"
    store(stored, KEY, FOUND, MACHINE)
    return stored


def test_what_is_stored_is_found_again(path: Path) -> None:
    assert look_up(path, KEY, MACHINE, NOW) == (FOUND, "")


def test_the_file_begins_with_its_schema_version_and_has_the_public_fields(path: Path) -> None:
    document = json.loads(path.read_text())
    assert next(iter(document)) == "schema_version"
    assert document["schema_version"] == 1
    assert set(document) == {
        "schema_version", "reflex_version", "calibration_date", "hardware_fingerprint", "entries",
    }  # fmt: skip
    entry = document["entries"][KEY]
    assert (entry["nfe"], entry["measurement_quality"]["quality_score"]) == (8, 0.9)
    assert [file.name for file in path.parent.iterdir()] == ["calibration.json"]


def test_a_second_export_gets_an_entry_of_its_own(path: Path) -> None:
    store(path, "so100::other", replace(FOUND, denoise_steps=4), MACHINE)
    assert {key: entry.denoise_steps for key, entry in read(path).entries.items()} == {
        KEY: 8,
        "so100::other": 4,
    }


def test_entries_of_another_machine_are_dropped(path: Path) -> None:
    store(path, "so100::other", FOUND, replace(MACHINE, cpu_count=4))
    assert list(read(path).entries) == ["so100::other"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kernel_release": "6.9.1"}, ""),
        ({"ram_gb": 32.8}, ""),
        ({"ram_gb": 33.0}, "ram_gb 31.9 is now 33"),
        ({"cpu_count": 4}, "cpu_count 8 is now 4"),
        ({"gpu_name": "Orin"}, "gpu_name None is now Orin"),
        ({"reflex_version": "0.2.0"}, "reflex_version 0.1.0 is now 0.2.0"),
    ],
)
def test_another_machine_is_recognised_by_what_decides_the_speed(
    path: Path, changes: dict[str, Any], reason: str
) -> None:
    found, message = look_up(path, KEY, replace(MACHINE, **changes), NOW)
    assert (found is None) == bool(reason)
    assert reason in message


@pytest.mark.parametrize(("days", "usable"), [(30, True), (31, False)])
def test_after_thirty_days_it_is_measured_again(path: Path, days: int, usable: bool) -> None:
    found, message = look_up(path, KEY, MACHINE, NOW + timedelta(days=days))
    assert (found is not None) == usable
    assert usable or "31 days old, 30 are allowed" in message


def test_no_file_and_no_entry_are_reasons(path: Path) -> None:
    assert "there is no" in look_up(path.with_name("other.json"), KEY, MACHINE, NOW)[1]
    assert "has no entry for ur5::x" in look_up(path, "ur5::x", MACHINE, NOW)[1]


def damaged(**changes: Any) -> str:
    def written(document: dict[str, Any]) -> str:
        return json.dumps(document | changes)

    base = {"schema_version": 1, "reflex_version": "0.1.0", "calibration_date": NOW.isoformat()}
    return written(base | {"hardware_fingerprint": MACHINE.document(), "entries": {KEY: FOUND.document()}})


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "\0\xff", damaged(schema_version=2), damaged(hardware_fingerprint=None),
        damaged(entries=[]), damaged(entries={KEY: {}}), damaged(entries={KEY: FOUND.document() | {"nfe": 0}}),
        damaged(entries={KEY: FOUND.document() | {"latency_compensation_ms": float("nan")}}),
        damaged(entries={KEY: FOUND.document() | {"timestamp": "yesterday"}}),
    ],
)  # fmt: skip
def test_a_damaged_file_is_a_reason_and_is_replaced(path: Path, content: str) -> None:
    path.write_text(content, encoding="latin-1")
    found, message = look_up(path, KEY, MACHINE, NOW)
    assert found is None
    assert str(path) in message
    store(path, KEY, FOUND, MACHINE)
    assert look_up(path, KEY, MACHINE, NOW) == (FOUND, "")


def test_what_is_wrong_in_a_file_is_named_and_bounded(path: Path) -> None:
    for changes, says in (
        ({"nfe": 0}, "nfe' must be a whole number from 1 to 1000, got 0"),
        ({"provider": None}, "provider' must be a text, got null"),
        ({"measurement_quality": {"warmup_iters": "x" * 10**6}}, "warmup_iters' must be a whole number, got"),
    ):
        path.write_text(damaged(entries={KEY: FOUND.document() | changes}))
        message = look_up(path, KEY, MACHINE, NOW)[1]
        assert f"'entries.{KEY}." in message
        assert says in message
        assert len(message) < 500


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be kept there") as caught:
        kept.require_writable(tmp_path / "file" / "calibration.json")
    assert caught.value.slug == "calibration-not-writable"
    with pytest.raises(ConfigurationError, match="is a directory"):
        kept.require_writable(tmp_path)


def test_learnt_latency_goes_into_the_entry_and_nowhere_else(path: Path) -> None:
    store_latency(path, KEY, 73.5)
    store_latency(path, "ur5::x", 1.0)
    assert read(path).entries == {KEY: replace(FOUND, latency_compensation_ms=73.5)}


VALUES = {
    "device": "auto", "providers": (), "intra_op_threads": 0, "denoise_steps": 0, "chunk_size": 0, "variant": "",
}  # fmt: skip


def test_without_flags_everything_measured_is_used() -> None:
    used, notes = resolve(VALUES, (), FOUND)
    assert used == {
        "providers": (CPU,), "intra_op_threads": 1, "denoise_steps": 8, "chunk_size": 50, "variant": "",
    }  # fmt: skip
    assert notes == ()


def test_flags_that_were_given_win_and_say_so() -> None:
    used, notes = resolve(VALUES | {"intra_op_threads": 2}, {"intra_op_threads"}, FOUND)
    assert used["intra_op_threads"] == 2
    assert notes == ("--intra-op-threads 2 was given: the calibrated 1 is not used",)


@pytest.mark.parametrize(
    ("given", "providers", "sentence"),
    [
        ({"device": "cpu"}, (), "--device cpu was given: the calibrated CUDAExecutionProvider is not used"),
        ({"device": "cuda"}, (), ""),
        ({"device": "auto"}, (CUDA,), ""),
        ({"providers": ("cpu",)}, ("cpu",), "--providers cpu was given: the calibrated CUDA"),
    ],
)
def test_a_device_that_was_given_wins(
    given: dict[str, Any], providers: tuple[str, ...], sentence: str
) -> None:
    used, notes = resolve(VALUES | given, given, replace(FOUND, provider=CUDA))
    assert used["providers"] == providers
    assert [text.startswith(sentence) for text in notes] == ([True] if sentence else [])


def test_the_fingerprint_of_this_machine_needs_no_gpu_and_survives_the_file() -> None:
    machine = this_machine()
    assert machine.cpu_count >= 1
    assert machine.ram_gb > 0
    assert fingerprint_from(json.loads(json.dumps(machine.document()))) == machine
    assert machine.differences(machine) == ""


def test_two_threads_of_a_core_are_one_core(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("".join(f"processor\t: {n}\nphysical id\t: 0\ncore id\t\t: 0\n\n" for n in range(2)))
    assert physical_cores(cpuinfo) == 1
    assert physical_cores(tmp_path / "none") >= 1
    assert ram_gb(tmp_path / "none") == 0.0


@pytest.mark.parametrize(("variation", "score"), [(0.0, 1.0), (0.1, 1.0), (0.2, 0.5), (0.3, 0.0), (2.0, 0.0)])
def test_quality_falls_with_the_variation(variation: float, score: float) -> None:
    assert quality_score(variation) == pytest.approx(score)


def test_the_tails_are_trimmed_but_the_slow_ones_stay_in_the_percentiles() -> None:
    durations = iter([999.0] * 10 + [10.0] * 95 + [500.0] * 5)
    found = measure(lambda: Run(next(durations), 1.0), Effort(10, 100, 60.0))
    assert (found.total_ms, found.quality.warmup_iters, found.quality.measurement_iters) == (10.0, 10, 100)
    assert (found.quality.n_outliers_dropped, found.quality.quality_score) == (10, 1.0)
    assert found.quality.p99_ms == 500.0


def test_a_slow_policy_is_measured_three_times_whatever_the_budget() -> None:
    found = measure(lambda: Run(1.0, 1.0), Effort(10, 100, 0.0))
    assert (found.quality.warmup_iters, found.quality.measurement_iters) == (1, 3)
