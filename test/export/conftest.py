# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that need torch and LeRobot: small checkpoints, and LeRobot's answers to them."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

if importlib.util.find_spec("lerobot") is None:
    raise pytest.UsageError(
        "test/export needs torch and LeRobot: `make test-export` runs it in .venv-export."
    )

import torch
from checkpoints import FAMILIES, Made
from exported import verified
from lerobot_answers import LeRobot, load

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies here is marked `export`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.export)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two test processes share the processor's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all test processes of this run."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Callable[[str], Made]:
    """`checkpoint("act")`: one of FAMILIES, made once; not to be changed."""
    return cache(lambda name: Made.at(made_once(shared / f"checkpoint_{name}", FAMILIES[name])))


@pytest.fixture(scope="session")
def lerobot(checkpoint: Callable[[str], Made]) -> Callable[[str], LeRobot]:
    """`lerobot("act")`: the policy of that checkpoint, loaded once."""
    return cache(lambda name: load(checkpoint(name)))


@pytest.fixture(scope="session")
def exported(checkpoint: Callable[[str], Made], shared: Path) -> Callable[..., Path]:
    """`exported("smolvla", "--fused")`: what `reflex export` makes of that checkpoint, made once; not to be changed."""

    def export(name: str, *words: str) -> Path:
        out = shared / "_".join((name, *words))
        return made_once(out, lambda folder: verified(checkpoint(name), folder, *words))

    return cache(export)


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first test process which wants it makes; the others wait for it."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return folder
