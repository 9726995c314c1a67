# SPDX-License-Identifier: Apache-2.0
"""What participants of Fast DDS leave in /dev/shm when they are killed: a segment each, and the ports of their domain."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
LOCKS = ("_el", "_sl")  # of one owner, and of several; the kernel takes them from a process that ends
SETTLED_S = 0.5  # much longer than it takes to lock what one has made


def segments() -> set[str]:
    """The names of all segments and ports, whichever process has made them."""
    return {
        path.name
        for path in FOLDER.glob("fast*_*")
        if re.fullmatch(r"fast(rtps|dds)_(\w{16}|port\d+)", path.name)
    }


def is_held(name: str) -> bool:
    """Whether a living process has it open."""
    return any(_locked(FOLDER / f"{name}{lock}") for lock in LOCKS)


def _locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def remove_dead(names: Iterable[str], domains: Iterable[int]) -> set[str]:
    """Delete segments that no process holds, and such ports of these domains. Returns what was deleted.

    A port has the same name for everybody in its domain, and one of them is for all domains: those of others stay.
    """
    ours = {f"_port{7400 + 250 * domain + offset}" for domain in domains for offset in range(250)}
    mortal = {name for name in names if "_port" not in name or name[name.index("_port") :] in ours}
    dead = {name for name in mortal if not is_held(name)}
    if dead:
        time.sleep(SETTLED_S)
    dead = {name for name in dead if not is_held(name)}
    for name in dead:
        for left in (name, *(f"{name}{lock}" for lock in LOCKS), f"sem.{name}_mutex"):
            with suppress(OSError):
                (FOLDER / left).unlink()
    return dead
