# SPDX-License-Identifier: Apache-2.0
"""A node that is killed (-9) can send nothing more: its controllers leave the robot held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leading_robots as robots
import numpy as np
import pytest
from children import WITHOUT_SHARED_MEMORY, end
from controller_bench import BASE_TIMEOUT_S, Bench
from domains import free_domain
from ros_world import Robot, wait_for

GROUPS = [
    robots.joints("arm", ["a", "b"], topic="/arm_controller/joint_trajectory"),
    robots.joints("wrist", ["w"], "forward_command", topic="/wrist_controller/commands"),
    robots.base("base", {"x": "linear.x"}, topic="/cmd_vel"),
]
COLUMNS = {name: robots.steadily(0.01) for name in ("a", "b", "w")} | {"x": [0.2] * robots.ROWS}
COUNTED = [
    robots.RELATIVE | {"columns": ["a", "b", "w"]},
    {"columns": ["x"], "space": "base", "mode": "velocity"},
]


@pytest.fixture
def domain() -> int:
    return free_domain()


@pytest.fixture
def robot(domain: int) -> Iterator[Robot]:
    """Its camera; the bench publishes the joints."""
    found = Robot(domain)
    found.joints_on = False
    yield found
    found.spinner.close()
    found.node.destroy_node()


@pytest.fixture
def node(domain: int, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    export = robots.leading(tmp_path / "export", COLUMNS, COUNTED)
    config = robots.embodiment(tmp_path / "robot.json", GROUPS)
    variables: dict[str, Any] = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    process = subprocess.Popen(
        [sys.executable, "-m", "reflex_ros.cli.main", "serve", str(export), "--custom-embodiment-config", str(config),
         "--no-http", "--controller-wait-s", "30", "--instruction", "go"],
        env=os.environ | variables | WITHOUT_SHARED_MEMORY, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    end(process)


def test_after_kill_minus_nine_arm_wrist_and_base_come_to_rest(
    domain: int, robot: Robot, node: subprocess.Popen[str]
) -> None:
    with Bench(domain, dict.fromkeys(COLUMNS, 0.0)) as bench:
        arm = bench.trajectory_controller("arm_controller", ["a", "b"])
        wrist = bench.forward_controller("wrist_controller", ["w"])
        base = bench.base()
        wait_for(
            lambda: bench.joints["b"] > 0.1 and bench.joints["w"] > 0.1 and base.speed[0] > 0.19, "all follow"
        )
        node.send_signal(signal.SIGKILL)
        node.wait()
        published = wait_for(lambda: wrist.commands[-1], "the wrist is commanded")
        wait_for(lambda: base.speed == (0.0, 0.0, 0.0), "the base's driver stops it")
        assert BASE_TIMEOUT_S < 1.0
        chunk_end = arm.followed[-1].points[-1]

        def at_rest() -> bool:
            seen = len(arm.commands)
            wait_for(lambda: len(arm.commands) > seen + 10, "a tenth of a second")
            return bool(np.allclose(arm.commands[seen][1], arm.commands[-1][1], atol=1e-6))

        wait_for(at_rest, "the arm has finished its chunk")
        np.testing.assert_allclose(arm.commands[-1][1], chunk_end.positions, atol=1e-4)
        np.testing.assert_allclose(wrist.commands[-1][1], published[1], atol=0.03)
        assert np.ptp([values for _, values in wrist.commands[-20:]]) == 0.0
        assert not arm.refused
