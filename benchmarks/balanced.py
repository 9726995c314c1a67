# SPDX-License-Identifier: Apache-2.0
"""Several real servers behind the real HAProxy with the shipped configuration, each to be killed and started again."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.exports import ROOT

CONFIGURATION = ROOT / "deploy" / "haproxy.cfg"
READY_S = 300.0  # also where other work takes the machine
END_S = 30.0
DRAIN_S = 3.0  # twice what `fall 2` and `fastinter` of the configuration take
SERVER_LINE = re.compile(
    r"^    server r1 10\.0\.0\.11:(\d+) id 1 (.+)\n    server r2 10\.0\.0\.12:\1 id 2 (.+)$", re.MULTILINE
)


@dataclass
class Server:
    """`reflex serve --no-ros` at a port that it keeps over restarts. log: where all its lives write."""

    name: str
    port: int
    arguments: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it; returns at once."""
        command = [
            sys.executable, "-m", "reflex_ros.cli.main", "serve", *self.arguments, "--no-ros", "--host", "127.0.0.1",
            "--port", str(self.port), "--robot-id", self.name, "--device", "cpu", "--intra-op-threads", "1",
            "--drain-s", str(DRAIN_S),
        ]  # fmt: skip
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)

    def wait_until_ready(self) -> None:
        """Return once /health says 200. Raises RuntimeError when the process ends, or after 300 s."""
        end_s = time.monotonic() + READY_S
        while status(self.port, "/health") != 200:
            if self.process is None or self.process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(
                    f"{self.name} is not ready: {self.log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """End it as a service manager does (SIGTERM); returns when it has ended."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(END_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(END_S)
            self.process = None


@dataclass(frozen=True)
class Fleet:
    """Servers and the ports of the balancer, lerobot_port and groot_port of its TCP back ends. admin: socket of its runtime API."""

    servers: Sequence[Server]
    port: int
    admin: Path
    balancer: subprocess.Popen[bytes]
    lerobot_port: int
    groot_port: int

    def command(self, line: str) -> str:
        """Send a command to the balancer's runtime API and return its answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.admin))
            connection.sendall(f"{line}\n".encode())
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
        return b"".join(parts).decode().strip()

    def state(self, server: str, backend: str = "act") -> tuple[str, int]:
        """Return the status of a server at the balancer (UP, DOWN, DRAIN, MAINT) and its requests under way."""
        for line in self.command("show stat").splitlines():
            cells = line.split(",")
            if cells[:2] == [backend, server]:
                return cells[17].split()[0], int(cells[4])
        raise RuntimeError(f"the balancer has no server {server} in {backend}")

    def wait_for_state(self, server: str, *wanted: str) -> None:
        """Return once the balancer sees a server so."""
        end_s = time.monotonic() + READY_S
        while self.state(server)[0] not in wanted:
            if time.monotonic() > end_s:
                raise RuntimeError(f"{server} is {self.state(server)[0]} at the balancer, expected {wanted}")
            time.sleep(0.02)

    def drain(self, server: Server) -> None:
        """Send a server no new request, and return when those under way are answered."""
        self.command(f"set server act/{server.name} state drain")
        end_s = time.monotonic() + END_S
        while self.state(server.name)[1]:
            if time.monotonic() > end_s:
                raise RuntimeError(f"{server.name} still has requests after {END_S:g} s of draining")
            time.sleep(0.02)

    def update(self, server: Server) -> None:
        """Replace one server as a rolling update does: drain, end, start, wait until it serves, let requests in again."""
        self.drain(server)
        server.terminate()
        server.start()
        server.wait_until_ready()
        self.command(f"set server act/{server.name} state ready")
        self.wait_for_state(server.name, "UP")


@contextmanager
def fleet(count: int, arguments: Sequence[str] = ("demo",), *, tcp_wires: bool = False) -> Iterator[Fleet]:
    """Start `count` servers with these arguments of `reflex serve`, and a balancer in front; all are ready when it yields.

    tcp_wires: the servers listen for clients of LeRobot and Isaac-GR00T as well.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, lerobot, groot, metrics, *rest = free_ports(4 + 3 * count)
        ports, lerobot_ports, groot_ports = rest[:count], rest[count : 2 * count], rest[2 * count :]
        servers = []
        for number, (own, of_lerobot, of_groot) in enumerate(
            zip(ports, lerobot_ports, groot_ports, strict=True), 1
        ):
            words = f"--lerobot-port {of_lerobot} --lerobot-units radians --groot-port {of_groot}"
            more = words.split() if tcp_wires else []
            servers.append(Server(f"r{number}", own, (*arguments, *more), folder / f"r{number}.log"))
        for server in servers:
            stack.callback(server.terminate)
            server.start()
        for server in servers:
            server.wait_until_ready()
        behind = {8000: ports, 8080: lerobot_ports, 5555: groot_ports}
        binds = {8000: port, 8080: lerobot, 5555: groot, 8404: metrics}
        text = configuration(behind, binds, folder / "admin")
        (folder / "haproxy.cfg").write_text(text, encoding="utf-8")
        program, variables = haproxy()
        with (folder / "haproxy.log").open("wb") as log:
            balancer = subprocess.Popen(
                [program, "-f", str(folder / "haproxy.cfg"), "-db"],
                env={**os.environ, **variables}, stdout=log, stderr=log,
            )  # fmt: skip
        stack.callback(balancer.wait, END_S)
        stack.callback(balancer.terminate)
        end_s = time.monotonic() + END_S
        while status(port, "/health") != 200:
            if balancer.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"HAProxy did not start: {(folder / 'haproxy.log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield Fleet(servers, port, folder / "admin", balancer, lerobot, groot)


def configuration(behind: Mapping[int, Sequence[int]], binds: Mapping[int, int], admin: Path) -> str:
    """Return the shipped configuration for servers on this machine.

    behind: the servers' ports by the port that the shipped lines have. binds: what each port of the balancer becomes.
    """

    def lines(found: re.Match[str]) -> str:
        rest = found[2]
        return "\n".join(
            f"    server r{number} 127.0.0.1:{port} id {number} {rest.replace('r1', f'r{number}')}"
            for number, port in enumerate(behind[int(found[1])], 1)
        )

    text, count = SERVER_LINE.subn(lines, CONFIGURATION.read_text(encoding="utf-8"))
    if count != 4:
        raise RuntimeError(f"{CONFIGURATION}: expected 4 pairs of server lines, got {count}")
    for shipped, own in binds.items():
        text = text.replace(f"bind 127.0.0.1:{shipped}\n", f"bind 127.0.0.1:{own}\n")
    return text.replace("/run/haproxy/reflex.sock mode 600", f"{admin} mode 600")


def free_ports(count: int) -> list[int]:
    """Return so many different ports of loopback that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def status(port: int, path: str) -> int:
    """Return the status of a GET, 0 where there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def haproxy() -> tuple[str, dict[str, str]]:
    """Return HAProxy, on PATH or unpacked by `make test`, and the variables that it needs. Raises RuntimeError without one."""
    found = shutil.which("haproxy")
    if found is not None:
        return found, {}
    root = Path(sys.prefix) / "haproxy"
    unpacked = root / "usr" / "sbin" / "haproxy"
    if not unpacked.is_file():
        raise RuntimeError(
            f"haproxy is neither {unpacked} nor on PATH: run `make test`, or install Debian's haproxy"
        )
    folders = sorted({str(path.parent) for path in root.rglob("*.so*")})
    return str(unpacked), {"LD_LIBRARY_PATH": ":".join(folders)}
