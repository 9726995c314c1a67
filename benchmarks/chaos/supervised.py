# SPDX-License-Identifier: Apache-2.0
"""Servers as processes that are killed, paused and begun again, with all that is kept of every life."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.chaos.policy_files import Arm
from benchmarks.exports import ROOT

READY_S = 120.0
ENDING_S = 40.0
GRACE_S = 15.0  # in which what a fault explains is still explained after its end
ALWAYS = float("inf")
CONNECTION = "connection"  # the slug of what never became an answer


@dataclass(slots=True)
class Life:
    """A process from start to end. killed_s: monotonic, 0 unless it was killed. memory etc.: samples over time."""

    number: int
    process: subprocess.Popen[bytes]
    records: Path
    errors: Path
    began_s: float
    ready_s: float = 0.0
    killed_s: float = 0.0
    answers: dict[str, tuple[int, float]] = field(default_factory=dict)  # request id: hash of the rows, when
    vital: list[tuple[float, int, int, int]] = field(default_factory=list)  # s, bytes, descriptors, threads
    exit_code: int | None = None


@dataclass(slots=True)
class Server:
    """One served configuration, life after life."""

    name: str
    arm: Arm
    command: Sequence[str]
    folder: Path
    records: Path
    ports: Mapping[str, int]
    deadline_ms: float
    environment: Mapping[str, str] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    _excuses: dict[str, float] = field(default_factory=dict)

    @property
    def life(self) -> Life:
        return self.lives[-1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def start(self) -> None:
        """Begin the next life; returns once it serves."""
        number = len(self.lives)
        records, errors = self.records / f"life-{number}", self.folder / f"{self.name}-{number}.log"
        records.mkdir(parents=True)
        command = [
            sys.executable, "-m", "reflex_ros.cli.main", "serve", *self.command, "--port", str(self.ports["http"]),
            "--device", "cpu", "--intra-op-threads", "1", "--record", str(records),
        ]  # fmt: skip
        with errors.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, **self.environment}
            )
        self.lives.append(Life(number, process, records, errors, time.monotonic()))
        self.await_ready()

    def await_ready(self) -> None:
        """Return once /health says 200. Raises RuntimeError where it never does."""
        end_s = time.monotonic() + READY_S
        while not self.ready():
            if self.life.process.poll() is not None or time.monotonic() > end_s:
                said = self.life.errors.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} does not serve: {said}")
            time.sleep(0.05)
        self.life.ready_s = time.monotonic()

    def ready(self) -> bool:
        """Return whether /health says 200."""
        try:
            with urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def kill(self) -> None:
        """End the process as kill -9 does."""
        self.life.killed_s = time.monotonic()
        self.life.process.send_signal(signal.SIGKILL)
        self.life.exit_code = self.life.process.wait()

    def end(self) -> int:
        """End the process as a service manager does; return its status. Killed where it does not end."""
        self.life.process.send_signal(signal.SIGTERM)
        try:
            self.life.exit_code = self.life.process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.life.exit_code = -999
        return self.life.exit_code or 0

    @contextmanager
    def excusing(self, *slugs: str, after_s: float = GRACE_S) -> Iterator[None]:
        """Explain these refusals while a fault lasts, and for so long after it."""
        for slug in slugs:
            self._excuses[slug] = ALWAYS
        try:
            yield
        finally:
            for slug in slugs:
                self._excuses[slug] = time.monotonic() + after_s

    def excused(self, since_s: float) -> list[str]:
        """Return what was explained at some moment since then."""
        return [slug for slug, until_s in [*self._excuses.items()] if until_s >= since_s]

    def sample(self) -> None:
        """Note memory, descriptors and threads of the process, once it serves."""
        if not self.lives or not self.life.ready_s:
            return
        pid = self.life.process.pid
        with suppress(OSError, ValueError, LookupError):  # it ends at this moment, or has just ended
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            memory, threads = int(fields["VmRSS"].split()[0]) * 1024, int(fields["Threads"])
            self.life.vital.append((time.monotonic(), memory, len(os.listdir(f"/proc/{pid}/fd")), threads))  # noqa: PTH208


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a small file system there; gives whether that was possible (it needs root)."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
