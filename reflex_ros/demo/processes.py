# SPDX-License-Identifier: Apache-2.0
"""The demo's child processes: started with a log each, watched, and stopped in every case."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reflex_ros import launch_args

STOP_TIMEOUT_S = 10.0
HEALTH_POLL_S = 0.02
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
DOMAINS = 101  # larger domain ids meet the ports that Linux hands out
PROBED = 120  # participants of a domain, for whom there are ports: each process counts its own, so that low ones may be free


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class Child:
    """A running process, leader of its own process group, and the file with its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def start(name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child:
    """Start a process that the kernel ends if this one is killed."""
    libc = ctypes.CDLL(None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            # Safe as long as no other thread runs yet: the children are started before ROS is.
            preexec_fn=lambda: libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM),  # noqa: PLW1509
        )
    return Child(name, process, log)


def check_alive(children: Sequence[Child]) -> None:
    """Raise DemoError when one of the children has ended."""
    for child in children:
        status = child.process.poll()
        if status is not None:
            raise DemoError(f"The {child.name} process ended by itself ({_how_it_ended(status)}).")


def stop(children: Sequence[Child]) -> list[str]:
    """End every child with its descendants: SIGINT, then SIGKILL. Return a sentence per unclean end."""
    complaints = []
    running = [child for child in children if child.process.poll() is None]
    for child in running:
        _signal_group(child, signal.SIGINT)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    for child in running:
        try:
            status = child.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            complaints.append(f"The {child.name} process did not stop {STOP_TIMEOUT_S:.0f} s after SIGINT.")
            continue
        if status != 0:
            complaints.append(f"The {child.name} process did not stop cleanly ({_how_it_ended(status)}).")
    for child in children:
        _signal_group(child, signal.SIGKILL)
        child.process.wait()
    return complaints


def tail(path: Path, lines: int = 25) -> str:
    """Return the last lines of a log."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""


def ros_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return `base` with variables by which the demo's processes discover only each other; variables that are set stay."""
    wanted = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **launch_args.environment(base)}
    if "ROS_DOMAIN_ID" not in base:
        wanted["ROS_DOMAIN_ID"] = str(free_domain())
    return {**wanted, **base}


def free_domain() -> int:
    """Return a ROS domain id from 1 to 101 in which no other program of this machine takes part."""
    first = os.getpid() % DOMAINS
    for offset in range(DOMAINS):
        domain = 1 + (first + offset) % DOMAINS
        if domain_is_free(domain):
            return domain
    raise DemoError("The ROS domain ids 1 to 101 are all in use here; set ROS_DOMAIN_ID to share one.")


def domain_is_free(domain: int) -> bool:
    """Return True when no program of this machine takes part in the domain."""
    return not any(_udp_port_taken(discovery_port(domain, participant)) for participant in range(PROBED))


def discovery_port(domain: int, participant: int) -> int:
    """Return the UDP port on which the n-th participant of a domain on this machine is found (DDSI-RTPS 9.6.1.1)."""
    return 7410 + 250 * domain + 2 * participant


def _udp_port_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def free_port(wanted: int) -> int:
    """Return `wanted` if nothing listens there on the loopback address, else a port that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoError("No TCP port is free on 127.0.0.1.")


def wait_until_ready(
    port: int, children: Sequence[Child], timeout_s: float, report: Callable[[str], None]
) -> list[str]:
    """Wait for 200 from /health, reporting each state on the way. Return the states in their order."""
    states: list[str] = []
    deadline_s = time.monotonic() + timeout_s
    while True:
        check_alive(children)
        status, state = health(port)
        if state and state not in states:
            states.append(state)
            report(f"/health {status} {state}")
        if status == http.client.OK:
            return states
        if time.monotonic() > deadline_s:
            raise DemoError(
                f"The policy server was not ready after {timeout_s:.0f} s (state: {state or 'no answer'})."
            )
        time.sleep(HEALTH_POLL_S)


def health(port: int) -> tuple[int, str]:
    """Return HTTP status and `state` of /health; (0, "") while nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.status, str(json.loads(response.read())["state"])
    except OSError:
        return 0, ""
    finally:
        connection.close()


def _signal_group(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)


def _how_it_ended(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
