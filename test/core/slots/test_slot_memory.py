# SPDX-License-Identifier: Apache-2.0
"""The memory check: two policies that do not fit are refused before they are loaded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from reflex_core.errors import ConfigurationError
from reflex_core.slots.memory import (
    MEMORY,
    VRAM,
    Room,
    free_memory_bytes,
    free_room,
    free_vram_bytes,
    require_room,
    weight_bytes,
)

GB = 1_000_000_000
SEED = (
    "2-policy mode requires 16.0 GB VRAM but only 11.2 GB (70% of 16.0 GB) is available. Either pick smaller models,"
    " run on a larger GPU, OR drop to single-policy mode."
)


def sparse(path: Path, size: int) -> Path:
    """A file of that size that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


@pytest.fixture
def exports(tmp_path: Path) -> list[Path]:
    """5 and 10 GB of weights."""
    sparse(tmp_path / "v1" / "model.onnx", GB)
    sparse(tmp_path / "v1" / "model.onnx.data", 4 * GB)
    sparse(tmp_path / "v2" / "model.onnx", 2 * GB)
    sparse(tmp_path / "v2" / "weights.bin", 3 * GB)
    sparse(tmp_path / "v2" / "head" / "a2c2.safetensors", 5 * GB)
    sparse(tmp_path / "v2" / "calibration.json", 7 * GB)
    return [tmp_path / "v1", tmp_path / "v2"]


def executable(path: Path, says: str, status: int = 0) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


def test_the_weights_are_what_counts_each_file_once(exports: list[Path]) -> None:
    assert [weight_bytes(path) for path in exports] == [5 * GB, 10 * GB]


def test_too_much_is_refused_with_the_sentence(exports: list[Path]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_room(exports, gpu=True, workspace_bytes=GB, probe=lambda _: Room(16 * GB, VRAM))
    assert str(caught.value) == SEED
    assert caught.value.slug == "not-enough-memory"


def test_memory_that_cpu_and_gpu_share_is_named_so(exports: list[Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"16\.0 GB memory but .* run on a larger machine, OR"):
        require_room(exports, gpu=True, workspace_bytes=GB, probe=lambda _: Room(22 * GB, MEMORY))


def test_what_just_fits_is_loaded(exports: list[Path]) -> None:
    require_room(exports, gpu=True, workspace_bytes=GB, probe=lambda _: Room(23 * GB, VRAM))


def test_the_same_export_twice_counts_twice(exports: list[Path]) -> None:
    both = [exports[0], exports[0]]
    require_room(both, gpu=False, workspace_bytes=0, probe=lambda _: Room(15 * GB, MEMORY))
    with pytest.raises(ConfigurationError, match=r"requires 10\.0 GB"):
        require_room(both, gpu=False, workspace_bytes=0, probe=lambda _: Room(14 * GB, MEMORY))


def test_where_nothing_tells_what_is_free_it_is_said_and_nothing_refused(
    exports: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        require_room(exports, gpu=True, probe=lambda _: None)
    assert "need 15.5 GB" in caplog.text


def test_a_gpu_of_its_own_is_asked_for_what_is_free(tmp_path: Path) -> None:
    assert free_vram_bytes(executable(tmp_path / "smi", "11178")) == 11178 << 20


@pytest.mark.parametrize(("says", "status"), [("[N/A]", 0), ("no devices were found", 6), ("", 0)])
def test_a_gpu_that_does_not_tell_shares_the_machines_memory(tmp_path: Path, says: str, status: int) -> None:
    assert free_vram_bytes(executable(tmp_path / "smi", says, status)) is None


def test_no_nvidia_smi_is_no_gpu(tmp_path: Path) -> None:
    assert free_vram_bytes(str(tmp_path / "smi")) is None


def test_this_machine_tells_what_is_free() -> None:
    room = free_room(gpu=False)
    assert room is not None
    assert room.kind == MEMORY
    assert room.free_bytes > 0


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [("max", 5 << 20, 8 << 20), (6 << 20, 5 << 20, 2 << 20), (60 << 20, 5 << 20, 8 << 20), (1, 5 << 20, 0)],
)
def test_a_container_has_no_more_than_it_may(tmp_path: Path, limit: object, used: int, free: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  99999 kB\nMemAvailable:    8192 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {1 << 20}\n")
    assert free_memory_bytes(tmp_path / "meminfo", tmp_path) == free


def test_a_machine_that_tells_nothing_is_unknown(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path / "none", tmp_path) is None
