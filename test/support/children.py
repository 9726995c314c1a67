# SPDX-License-Identifier: Apache-2.0
"""Processes of tests that take part in ROS, and how they end.

All participants of Fast DDS on one machine, of whichever domain, share one port in shared memory (fastrtps_port7000). One that
is killed while it holds that port keeps those of other tests waiting. So processes are asked to end, and those that a test
has to kill do without shared memory.
"""

from __future__ import annotations

import signal
import subprocess
from typing import Any

PATIENCE_S = 20.0
WITHOUT_SHARED_MEMORY = {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and kill only one that does not; what it has said meanwhile is read and dropped."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
