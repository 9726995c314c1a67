# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that need torch and LeRobot: small checkpoints, and LeRobot's answers to them."""

from __future__ import annotations

import importlib.util
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
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """`checkpoint("act")`: one of FAMILIES, made once; not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: FAMILIES[name](root / name))


@pytest.fixture(scope="session")
def lerobot(checkpoint: Callable[[str], Made]) -> Callable[[str], LeRobot]:
    """`lerobot("act")`: the policy of that checkpoint, loaded once."""
    return cache(lambda name: load(checkpoint(name)))


@pytest.fixture(scope="session")
def exported(
    checkpoint: Callable[[str], Made], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`exported("smolvla", "--fused")`: what `reflex export` makes of that checkpoint, made once; not to be changed."""
    root = tmp_path_factory.mktemp("exports")
    return cache(lambda name, *words: verified(checkpoint(name), root / "_".join((name, *words)), *words))
