# SPDX-License-Identifier: Apache-2.0
"""The node and its simulated arm, both processes that are killed and begun again; they talk over DDS on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.judge import LIMITS
from benchmarks.chaos.robots import Run
from benchmarks.chaos.supervised import Server
from benchmarks.exports import ROOT

SOURCES = {0: "policy", 1: "last_known_good", 2: "cloud", 3: "hold", 4: "teleop"}
ENDING_S = 20.0


@dataclass(slots=True)
class RosArm:
    """The arm's process. good_s: when the newest chunk of the policy came. chunks: how many came, by source."""

    node: Server
    run: Run
    domain: int
    good_s: float = 0.0
    chunks: Counter[str] = field(default_factory=Counter)
    name: str = "dds-arm"
    _process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return dds(self.domain)

    def start(self) -> None:
        """Begin the process, and read what it reports on a thread."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos.arm_process"], cwd=ROOT, text=True, bufsize=1, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=(self.node.folder / "arm.log").open("a"), env={**os.environ, **self.environment},
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):
                self._heard(json.loads(line))

    def _heard(self, event: dict[str, Any]) -> None:
        if "violation" in event:
            self.run.violate(LIMITS, str(event["violation"]), self.node.name, self.name)
        if "source" in event:
            source = SOURCES.get(event["source"], str(event["source"]))
            self.chunks[source] += 1
            if source == "policy":
                self.good_s = time.monotonic()

    def tell(self, **fields: Any) -> None:
        """Change what it does."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(fields) + "\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End the process as kill -9 does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """Let it end by itself."""
        if self._process is None or self._process.poll() is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self.kill()


def dds(domain: int) -> dict[str, str]:
    """Return the environment of processes that are killed: loopback, a domain of their own, no shared memory."""
    return {
        "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
    }  # fmt: skip
