# SPDX-License-Identifier: Apache-2.0
"""The tests' domains: what a killed participant left in shared memory is removed, what a live one uses is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from domains import SHARED_MEMORY, forget_killed, free_domain
from ros_world import wait_for

from reflex_ros.demo.processes import discovery_port

PROGRAM = """
import threading
import rclpy

rclpy.init()
node = rclpy.create_node("killed")
threading.Event().wait()
"""


def test_only_the_ports_of_killed_participants_are_removed() -> None:
    domain = free_domain()
    port = f"fastrtps_port{discovery_port(domain, 0) + 1}"
    names = (port, f"{port}_el", f"sem.{port}_mutex")
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}

    def files() -> set[Path]:
        return {SHARED_MEMORY / name for name in names if (SHARED_MEMORY / name).exists()}

    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment) as process:
        try:
            wait_for(lambda: len(files()) == len(names), "a participant with its port")
            forget_killed(domain)
            assert len(files()) == len(names)
        finally:
            process.send_signal(signal.SIGKILL)
    assert len(files()) == len(names)
    forget_killed(domain)
    assert not files()
