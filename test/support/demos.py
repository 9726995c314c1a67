# SPDX-License-Identifier: Apache-2.0
"""`make demo` as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from domains import free_domain

PATIENCE_S = 120.0  # a bound for machines under load, never a measure


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"never happened: {what}"
        time.sleep(0.02)


class Demo:
    """A running `make demo` and everything that it has printed."""

    def __init__(self, out: Path, *arguments: str, **environment: str) -> None:
        self.out = out
        self.printed_path = out.parent / f"{out.name}.txt"
        with self.printed_path.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "reflex_ros.demo.run", "--out", str(out), *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"ROS_DOMAIN_ID": str(free_domain())} | environment,
            )

    @property
    def printed(self) -> str:
        return self.printed_path.read_text(encoding="utf-8")

    def wait_for(self, words: str) -> None:
        wait_for(lambda: words in self.printed or self.process.poll() is not None, f"'{words}'")
        assert words in self.printed, self.printed

    def pid(self, name: str) -> int:
        self.wait_for(f"{name}.log")
        found = re.search(rf"^{name} .*pid (\d+)", self.printed, re.MULTILINE)
        assert found, self.printed
        return int(found[1])

    @property
    def port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.printed)
        assert found, self.printed
        return int(found[1])

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)
