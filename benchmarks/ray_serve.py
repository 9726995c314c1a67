# SPDX-License-Identifier: Apache-2.0
"""Ray Serve with deploy/ray/serve_policy.py, in the environment that `make test-clients` makes for it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.balanced import free_ports, status
from benchmarks.exports import ROOT

PYTHON = ROOT / ".venv-clients" / "ray" / "bin" / "python"
PROGRAM = ROOT / "deploy" / "ray" / "serve_policy.py"
READY_S = 300.0
END_S = 60.0
REPLICA = "ray::ServeReplica:reflex:Policy"


@contextmanager
def ray_serve(count: int, folder: Path, arguments: tuple[str, ...] = ("demo",)) -> Iterator[int]:
    """Run so many replicas; gives the port of HTTP once they serve. folder: for what Ray writes; its path must be short.

    Raises RuntimeError where the environment is not made, where replicas of another one run, and where Ray does not start.
    """
    if not PYTHON.exists():
        raise RuntimeError(f"{PYTHON} is missing: `make test-clients` makes it")
    if others := replicas():
        raise RuntimeError(f"another Ray Serve of this policy runs on this machine: end processes {others}")
    cpus = min(1.0, (os.cpu_count() or 1) / count)  # Ray starts none for which no core is left
    [port] = free_ports(1)
    variables = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    command = [str(PYTHON), str(PROGRAM), "--replicas", str(count), "--port", str(port)]
    command += ["--cpus", str(cpus), "--", *arguments]
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        end_s = time.monotonic() + READY_S
        while status(port, "/health") != 200 or len(replicas()) < count:
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(
                    f"Ray Serve did not start: {(folder / 'ray.log').read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.2)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def replicas() -> list[int]:
    """Return the process ids of the replicas that run on this machine."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if name.startswith(REPLICA):
                found.append(int(folder.name))
    return sorted(found)
