# SPDX-License-Identifier: Apache-2.0
"""A client in the shape of LeRobot's robot_client drives the simulated arm, in degrees, as the page says to start both."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from lerobot_client import PANDA, LerobotClient, observation, setup
from numpy.typing import NDArray
from repository import ROOT

from reflex_core.engine.engine import Engine
from reflex_core.settings.cli import parse
from reflex_core.settings.table import settings_from
from reflex_ros.cli.serve import parser
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import make_scene
from reflex_ros.sidecar.server import Sidecar

SCENES = range(10_000, 10_020)
DT_S, LIMIT_S = 0.05, 6.0
PAGE = (ROOT / "docs" / "reference" / "wires.md").read_text(encoding="utf-8")
# what aggregate_fn_name leaves of a row that is there already
OLD_SHARES = {"latest_only": 0.0, "weighted_average": 0.3}


@dataclass
class RobotClient:
    """The queue of LeRobot's robot_client: which rows it drops, which it mixes, when it sends an observation."""

    client: LerobotClient
    arm: Arm
    task: str
    old_share: float  # of a row that is there already: aggregate_fn_name
    latest: int = -1
    size: int = -1
    queue: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    must_go: bool = True
    observations: int = 0

    def tick(self) -> None:
        """One turn of its control loop; the answer is there at once."""
        if self.queue:
            self.latest = min(self.queue)
            self.arm.step(np.radians(self.queue.pop(self.latest)), DT_S)
        else:
            self.arm.step(self.arm.joint_positions_rad, DT_S)
        if len(self.queue) / self.size <= 0.5:
            self.send()
            self.receive()

    def send(self) -> None:
        must_go = self.must_go and not self.queue
        degrees = np.degrees(self.arm.joint_positions_rad)
        data = observation(
            degrees, timestep=max(self.latest, 0), timestamp=1e9 + self.arm.time_s, must_go=must_go,
            task=self.task, front=self.arm.image(),
        )  # fmt: skip
        self.client.send(data)
        self.must_go = self.must_go and not must_go
        self.observations += 1

    def receive(self) -> None:
        rows = self.client.actions()
        if not rows:
            return
        self.size = max(self.size, len(rows))
        old, share = self.queue, self.old_share
        new = {row.timestep: row.action for row in rows if row.timestep > self.latest}
        self.queue = {
            step: share * old[step] + (1 - share) * row if step in old else row for step, row in new.items()
        }
        self.must_go = True


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    made = Arm()
    yield made
    made.close()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Engine, int]]:
    """What the page says to type, on free ports."""
    [line] = re.findall(r"`reflex serve (demo --lerobot-port.*?)`", PAGE)
    options = parse(parser(), line.split())
    values = {
        name: value for name, value in options.items() if name not in ("no_ros", "config", "print_config")
    }
    assert values["lerobot_port"] == 8080
    engine = Engine(settings_from(values | {"port": 0, "lerobot_port": 0, "device": "cpu"}))
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    yield engine, sidecar.lerobot_port
    sidecar.stop()
    engine.unload()


def typed() -> dict[str, str]:
    """The options of the client, as the page says to type them."""
    [line] = re.findall(r"`python -m lerobot\.async_inference\.robot_client (.*?)`", PAGE)
    return dict(word.removeprefix("--").split("=", 1) for word in shlex.split(line))


@pytest.mark.parametrize("aggregate", [typed()["aggregate_fn_name"], "weighted_average"])
def test_a_client_in_lerobots_shape_drives_the_arm_to_the_named_block(
    served: tuple[Engine, int], arm: Arm, aggregate: str
) -> None:
    engine, port = served
    options = typed()
    assert options["server_address"] == "127.0.0.1:8080"
    assert float(options["fps"]) == 1 / DT_S
    policy = {name: options[name] for name in ("policy_type", "pretrained_name_or_path")}
    policy |= {"device": options["policy_device"]}
    rows = int(options["actions_per_chunk"])
    assert engine.loaded is not None
    rtc = engine.loaded.first.rtc
    assert rtc is not None
    missed = []
    client = LerobotClient(port)
    before = rtc.counts.get("guided", 0)
    chunks = 0
    for seed in SCENES:
        scene = make_scene(seed)
        arm.reset(scene)
        client.ready()
        client.set_up(setup(PANDA, cameras=("front",), actions_per_chunk=rows, **policy))
        robot = RobotClient(client, arm, scene.instruction, OLD_SHARES[aggregate])
        while arm.time_s < LIMIT_S:
            robot.tick()
        chunks += robot.observations
        missed += [] if arm.reached(scene) else [seed]
    client.close()
    assert len(missed) <= len(SCENES) // 20, missed
    assert rtc.counts["guided"] - before == chunks - len(SCENES)  # every one after the first of an episode
