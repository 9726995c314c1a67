# SPDX-License-Identifier: Apache-2.0
"""ROS domains for tests: another one each time, and never one that the tests of another process may take."""

from __future__ import annotations

import fcntl
import itertools
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TextIO

from reflex_ros.demo.processes import DOMAINS, domain_is_free

BLOCK = 5  # domains of one process: its own, and those that its tests take in turn
FOLDER = Path(tempfile.gettempdir()) / "reflex_test_domains"

_held: list[TextIO] = []
_numbers = itertools.count()
_more: list[int] = []


def _taken_block(above: int = 0) -> range:
    """Domains that no other test process of this machine takes while this one lives.

    To find one in which nothing runs is not enough: what a test starts there needs seconds until it is seen, and until then
    a neighbour finds the same one free.
    """
    FOLDER.mkdir(exist_ok=True)
    for first in range(above + 1, DOMAINS - BLOCK + 1, BLOCK):
        file = (FOLDER / str(first)).open("w")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held.append(file)
            return range(first, first + BLOCK)
        file.close()
    raise AssertionError(
        f"more than {DOMAINS // BLOCK} test processes on one machine: there is no ROS domain left"
    )


@cache
def own_block() -> range:
    """The domains of this process."""
    return _taken_block()


def own_domain() -> int:
    """The domain of whatever is started without one."""
    return own_block()[0]


def free_domain() -> int:
    """Another one each time, in which nothing runs, so that nothing of the test before is heard.

    A test that failed may have left something running in those before: then more of them are taken.
    """
    while True:
        others = [*own_block()[1:], *_more]
        for number in itertools.islice(_numbers, len(others)):
            domain = others[number % len(others)]
            if domain_is_free(domain):
                return domain
        _more.extend(_taken_block(max(others)))
