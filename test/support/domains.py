# SPDX-License-Identifier: Apache-2.0
"""ROS domains for tests: another one each time, and never one that the tests of another process may take."""

from __future__ import annotations

import fcntl
import gc
import re
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TextIO

from reflex_ros.demo.processes import DOMAINS, PROBED, discovery_port, domain_is_free

AT_HAND = 4  # so many are taken in turn, and more where tests have left something running in these
FOLDER = Path(tempfile.gettempdir()) / "reflex_test_domains"

SHARED_MEMORY = Path("/dev/shm")

_taken: dict[int, TextIO] = {}  # the one that was used longest ago first
_own: list[TextIO] = []


def free_domain() -> int:
    """Another one each time, in which nothing runs, so that nothing of the test before is heard.

    No other test process of this machine gets one of these while this one lives. To find one in which nothing runs is not
    enough: what a test starts there needs seconds until it is seen, and until then a neighbour finds the same one free.
    """
    if len(_taken) >= AT_HAND:
        for collect in (lambda: None, gc.collect):  # the node of a test that is over may be part of a cycle
            collect()
            for domain in [*_taken][:-1]:
                if domain_is_free(domain):
                    _taken[domain] = _taken.pop(domain)
                    forget_killed(domain)
                    return domain
    for domain in range(1, DOMAINS + 1):
        if domain not in _taken and (file := _lock(domain)):
            if domain_is_free(domain):
                _taken[domain] = file
                forget_killed(domain)
                return domain
            file.close()
    raise AssertionError("every ROS domain is in use")


def forget_killed(domain: int) -> None:
    """Remove the shared-memory ports of a domain that no participant reads: of killed processes, or made again by their late senders.

    A port whose mutex a killed process holds delivers nothing to the next participant of that number: endpoints are found
    (by UDP), the names of their nodes never are. A participant holds the lock of its port's `_el` file.
    """
    for participant in range(PROBED):
        port = f"fastrtps_port{discovery_port(domain, participant) + 1}"
        if (SHARED_MEMORY / port).exists() and not _is_locked(SHARED_MEMORY / f"{port}_el"):
            for name in (port, f"sem.{port}_mutex", f"{port}_el"):
                (SHARED_MEMORY / name).unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(domain: int) -> TextIO | None:
    """The lock of a domain, held until it is closed; None where another process has it."""
    FOLDER.mkdir(exist_ok=True)
    file = (FOLDER / str(domain)).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@cache
def own_domain() -> int:
    """The domain of whatever this process starts without one."""
    domain = free_domain()
    _own.append(_taken.pop(domain))
    return domain


def taken_domains() -> list[int]:
    """Every domain that this process has used."""
    return [own_domain(), *_taken]


def participants() -> list[tuple[int, int]]:
    """Domain and number of each participant of this process that is there, also of a node that is not spun any more."""
    own = set[str]()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            own.update(re.findall(r"socket:\[(\d+)\]", str(file.readlink())))
    sockets = [line.split() for line in Path("/proc/self/net/udp").read_text().splitlines()[1:]]
    ports = {int(fields[1].split(":")[1], 16) for fields in sockets if fields[9] in own}
    numbers = ((domain, number) for domain in range(1, DOMAINS + 1) for number in range(PROBED))
    return [found for found in numbers if discovery_port(*found) in ports]
