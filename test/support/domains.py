# SPDX-License-Identifier: Apache-2.0
"""ROS domains for tests: another one each time, so that nothing of the test before is heard."""

from __future__ import annotations

import itertools
import os

from reflex_ros.demo.processes import domain_is_free

_numbers = itertools.count(13 * os.getpid())


def free_domain() -> int:
    """One in which nothing runs, such as tests that were started beside these."""
    for number in itertools.islice(_numbers, 100):
        domain = 1 + number % 100
        if domain_is_free(domain):
            return domain
    raise AssertionError("every ROS domain is in use")
