# SPDX-License-Identifier: Apache-2.0
"""ROS domains for tests that start processes."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import suppress

_domains = itertools.count(13 * os.getpid())


def free_domain() -> int:
    """One in which nothing runs, such as tests that were started beside these: its first DDS port is free."""
    for number in itertools.islice(_domains, 100):
        domain = 1 + number % 100
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.bind(("", 7410 + 250 * domain))
            return domain
    raise AssertionError("every ROS domain is in use")
