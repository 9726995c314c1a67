# SPDX-License-Identifier: Apache-2.0
"""A client in both shapes of Isaac-GR00T drives the simulated arm, with the server as the page says to start it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from groot_client import GrootClient, flat, nested
from repository import ROOT

from reflex_core.engine.engine import Engine
from reflex_core.settings.cli import parse
from reflex_core.settings.table import settings_from
from reflex_ros.cli.serve import parser
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import make_scene
from reflex_ros.sidecar.server import Sidecar

SCENES = range(10_000, 10_010)
DT_S, LIMIT_S, EXECUTED = 0.05, 6.0, 10
PAGE = (ROOT / "docs" / "reference" / "wires.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    made = Arm()
    yield made
    made.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """What the page says to type, on free ports."""
    [line] = re.findall(r"`reflex serve (demo --groot-port.*?)`", PAGE)
    options = parse(parser(), line.split())
    values = {
        name: value for name, value in options.items() if name not in ("no_ros", "config", "print_config")
    }
    assert values["groot_port"] == 5555
    engine = Engine(settings_from(values | {"port": 0, "groot_port": 0, "device": "cpu"}))
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    yield sidecar.groot_port
    sidecar.stop()
    engine.unload()


def rows_of(client: GrootClient, version: str, image: Any, state: Any, instruction: str) -> Any:
    if version == "N1.5":
        return client.call("get_action", flat(image, state, instruction))["action.single_arm"]
    actions, _ = client.act(nested(image, state, instruction))
    return actions["left_arm"][0]


@pytest.mark.parametrize("version", ["N1.5", "N1.6"])
def test_a_client_in_groots_shape_drives_the_arm_to_the_named_block(
    arm: Arm, port: int, version: str
) -> None:
    missed = []
    client = GrootClient(port)
    for seed in SCENES:
        scene = make_scene(seed)
        arm.reset(scene)
        client.call("reset", {"options": {}})
        while arm.time_s < LIMIT_S:
            rows = rows_of(client, version, arm.image(), arm.joint_positions_rad, scene.instruction)
            for row in np.asarray(rows)[:EXECUTED]:
                arm.step(row, DT_S)
        missed += [] if arm.reached(scene) else [seed]
    client.close()
    assert len(missed) <= 1, missed
