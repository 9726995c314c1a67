# SPDX-License-Identifier: Apache-2.0
"""Time from a bare clone to the first chunk of `make demo`, and how long nothing is printed on the way.

    python -m benchmarks.first_chunk

Clones this repository's HEAD, runs `make demo` there, and tells apart the install with its message build, which the network
and the compiler decide, and what comes above it. Exit status 1 when that takes more than 15 s, or nothing is printed for more than 5 s.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_ABOVE_S = 15.0
MOST_SILENCE_S = 5.0
INSTALLED, FIRST_CHUNK = "is ready: ", "first chunk"
END_S = 60.0  # after the first chunk


@dataclass(frozen=True)
class Line:
    """A line of output and when it came, in seconds from the start."""

    at_s: float
    text: str


def main() -> int:
    """Measure and print. 0: both are met; 1: one is not, or the demo came to no chunk."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_chunk", description=__doc__)
    parser.add_argument("--show", action="store_true", help="print each line with its time as it comes")
    show = parser.parse_args().show
    with tempfile.TemporaryDirectory(prefix="reflex-first-chunk-") as folder:
        clone = Path(folder) / "reflex_ros"
        words = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)]
        subprocess.run(words, check=True)
        lines = list(_lines(clone, show))
    installed = next((line for line in lines if INSTALLED in line.text), None)
    chunk = next((line for line in lines if FIRST_CHUNK in line.text), None)
    if installed is None or chunk is None:
        print("no first chunk; the last lines:", *(line.text for line in lines[-20:]), sep="\n  ")
        return 1
    above_s = chunk.at_s - installed.at_s
    silence_s, before = longest_silence(lines, chunk.at_s)
    print(f"install and message build   {installed.at_s:6.1f} s")
    print(f"from there to the first chunk {above_s:4.1f} s (at most {MOST_ABOVE_S:g})")
    print(f"longest silence             {silence_s:6.1f} s (at most {MOST_SILENCE_S:g}), after: {before}")
    print(f"load of this machine        {os.getloadavg()[0]:6.1f}, {os.cpu_count()} cores")
    return int(above_s > MOST_ABOVE_S or silence_s > MOST_SILENCE_S)


def longest_silence(lines: list[Line], until_s: float) -> tuple[float, str]:
    """Return the longest time without a line up to a moment, and the line before it."""
    shown = [Line(0.0, "the start"), *(line for line in lines if line.at_s <= until_s)]
    gaps = ((after.at_s - line.at_s, line.text) for line, after in pairwise(shown))
    return max(gaps, default=(until_s, "the start"))


def _lines(clone: Path, show: bool) -> Iterator[Line]:
    """Run `make demo` for one episode and yield its lines; it is stopped after the first chunk."""
    inherited = ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    words = ["make", "demo", "DEMO_ARGS=--episodes 1 --port 0"]
    start_s = time.monotonic()
    with subprocess.Popen(
        words, cwd=clone, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for text in process.stdout:
            line = Line(time.monotonic() - start_s, text.rstrip())
            if show:
                print(f"{line.at_s:7.1f} {line.text}", flush=True)
            yield line
            if FIRST_CHUNK in line.text:
                os.killpg(process.pid, signal.SIGINT)
                break
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
