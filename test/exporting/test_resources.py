# SPDX-License-Identifier: Apache-2.0
"""An export that this machine has no room for is refused before torch is loaded."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from checkpoint_folders import checkpoint_folder, options

from reflex_core.errors import ConfigurationError
from reflex_export.checkpoint import Checkpoint, TensorEntry, WeightsFile
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.folder.resources import check_resources, free_memory, need_of

BILLION = 1_000_000_000
Usage = namedtuple("Usage", "total used free")


def machine(root: Path, available_kb: int, groups: str = "", **files: str) -> Path:
    """A system with so much memory, and control groups. files: path below /sys/fs/cgroup with __ for / -> content."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_kb} kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys" / "fs" / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Of 450 million numbers, as SmolVLA has."""
    (tmp_path / "work").mkdir()
    found = read_checkpoint(str(checkpoint_folder(tmp_path / "policy")), options(), tmp_path / "work")
    tensors = MappingProxyType({"w": TensorEntry("F32", (450_000_000,), 0, 0)})
    return replace(found, weights=WeightsFile(found.weights.path, tensors, 0))


def test_the_estimate_is_what_was_measured(checkpoint: Checkpoint) -> None:
    """SmolVLA's real size took 4.30 GB, a Diffusion Policy of 263 million 2.84 GB, an ACT of 51.6 million 1.23 GB."""
    assert 4.3 * BILLION < need_of(checkpoint, options()).memory < 5.0 * BILLION
    for millions, measured in ((263, 2.84), (51.6, 1.23)):
        tensors = MappingProxyType({"w": TensorEntry("F32", (int(millions * 1e6),), 0, 0)})
        need = need_of(
            replace(checkpoint, weights=WeightsFile(checkpoint.weights.path, tensors, 0)), options()
        )
        assert measured * BILLION < need.memory < 1.5 * measured * BILLION
    assert 1.8 * BILLION < need_of(checkpoint, options()).disk < 2.0 * BILLION
    assert 0.9 * BILLION < need_of(checkpoint, options(dtype="fp16")).disk < 1.1 * BILLION


def test_too_little_memory_is_refused_with_both_numbers(checkpoint: Checkpoint, tmp_path: Path) -> None:
    system = machine(tmp_path / "system", 3_000_000)
    with pytest.raises(
        ConfigurationError, match=r"its 450 million numbers need about 4.6 GB of memory, and 3.1 GB are free"
    ):
        check_resources(checkpoint, options(), tmp_path, system)
    check_resources(checkpoint, options(), tmp_path, machine(tmp_path / "larger", 5_000_000))


def test_too_little_disk_is_refused_with_both_numbers(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, BILLION))
    with pytest.raises(ConfigurationError, match=r"needs about 1.9 GB of disk, and 1.0 GB are free there"):
        check_resources(checkpoint, options(), tmp_path, machine(tmp_path / "system", 9_000_000))


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    memory = {"pods__memory_dot_max": "4000000000", "pods__memory_dot_current": "1000000000"}
    own = {"pods__one__memory_dot_max": "max", "pods__one__memory_dot_current": "1"}
    stat = {"pods__memory_dot_stat": "anon 5\ninactive_file 500000000\n"}
    second = machine(tmp_path / "v2", 9_000_000, "0::/pods/one\n", **memory, **own, **stat)
    assert free_memory(second) == 3_500_000_000
    old = {
        "memory__memory_dot_limit_in_bytes": "2000000000",
        "memory__memory_dot_usage_in_bytes": "500000000",
    }
    first = machine(tmp_path / "v1", 9_000_000, "5:cpu,memory:/elsewhere\n4:pids:/\n", **old)
    assert free_memory(first) == 1_500_000_000


def test_a_system_that_says_nothing_refuses_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
    check_resources(checkpoint, options(), tmp_path, tmp_path)
