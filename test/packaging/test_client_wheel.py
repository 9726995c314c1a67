# SPDX-License-Identifier: Apache-2.0
"""The client's wheel: small, numpy alone, installed as its page says and run by the oldest Python that it names."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import metadata, run
from pyproject_file import read
from pythons import at_hand
from repository import ROOT
from servers import Server
from tutorial import blocks

import reflex_client
from reflex_core.files.share import embedded_policy

MOST_BYTES = 60_000
OLDEST = "3.8"
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
ALONE = {
    "PYTHONPATH": "",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "AMENT_PREFIX_PATH": "",
    "LD_LIBRARY_PATH": "",
}

PROGRAM = """
import asyncio, sys
import numpy as np
import reflex_client
from reflex_client import AsyncPolicy, Policy

url, state = sys.argv[1], [0, 0.2, 0, -2.4, 0, 2.6, 0.8]
observation = {"images": np.full((32, 32, 3), 90, np.uint8), "state": state}
with Policy(url, timeout_s=60.0) as policy:
    try:
        policy.act(state=[float("nan")])
    except reflex_client.InvalidObservationError as error:
        print(error.slug)
    with policy.episode(instruction="reach") as episode, episode.player(lambda: observation, execution_horizon=3) as player:
        for row in player:
            if player.chunks == 2 and row is not None and row.reply.rtc_mode:
                break
    print(row.action.shape, row.reply.rtc_mode)

async def ask():
    async with AsyncPolicy(url, timeout_s=60.0) as policy:
        return (await policy.act(**observation, instruction="reach")).rows

print(asyncio.run(ask()))
print(sorted({"cv2", "PIL", "aiohttp", "reflex_core"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source") / "reflex_client", tmp_path_factory.mktemp("wheel")
    copy_client(source)
    pip = (sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation")
    run(*pip, "-w", out, source, cwd=out, PIP_NO_INDEX="1")
    (built,) = out.glob("*.whl")
    return built


def copy_client(target: Path) -> None:
    for path in (ROOT / "reflex_client").rglob("*"):
        inside = path.relative_to(ROOT / "reflex_client")
        if path.is_file() and not {"__pycache__", "build", "reflex_client.egg-info"} & set(inside.parts):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            (target / inside).write_bytes(path.read_bytes())


def test_it_is_small_for_every_machine_and_asks_for_numpy_alone(wheel: Path) -> None:
    described = metadata(wheel)
    assert wheel.name == f"reflex_client-{reflex_client.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < MOST_BYTES
    assert described["Requires-Python"] == f">={OLDEST}"
    assert described.get_all("Requires-Dist") == ["numpy>=1.20"]
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "reflex_client").rglob("*.py")
        if "build" not in path.parts
    }
    assert names == sources | {"reflex_client/py.typed"}


def test_make_wheel_builds_it_too() -> None:
    rule = re.search(r"^wheel:.*\n(?:\t.*\n)+", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert rule is not None
    assert "--wheel-dir dist ./reflex_client" in rule[0]


@pytest.mark.parametrize(
    "version",
    [version for version in (OLDEST, HERE) if at_hand(version)] or [HERE],
)
def test_it_is_installed_as_the_page_says_and_asks_a_server(
    version: str, serve: Callable[..., Server], tmp_path: Path
) -> None:
    copy_client(tmp_path / "reflex_client")
    interpreter = at_hand(version)
    assert interpreter is not None
    run(interpreter, "-m", "venv", "venv", cwd=tmp_path, **ALONE)
    [install] = [
        block.code for block in blocks("../how-to/use-the-python-client") if block.kind == "bash install"
    ]
    assert install == "pip install ./reflex_client\n"
    run("bash", "-c", f"venv/bin/{install}", cwd=tmp_path, **ALONE)
    url = serve("mono_pi0_7", export_dir=str(embedded_policy())).sidecar.url
    printed = run("venv/bin/python", "-c", PROGRAM, url, cwd=tmp_path, **ALONE)
    assert printed.splitlines() == ["state-not-finite", "(7,) guided_identity", "50", "[]"]


def test_ruff_reads_it_as_the_oldest_python_does() -> None:
    assert read(ROOT / "reflex_client" / "pyproject.toml")["tool"]["ruff"]["target-version"] == "py38"
