# SPDX-License-Identifier: Apache-2.0
"""Images that are freed leave their pages in the process, so that the next ones cost no page faults."""

from __future__ import annotations

import subprocess
import sys

from reflex_ros.freed_memory import keep_freed_memory

PROGRAM = """
import resource, sys
import numpy as np
from reflex_ros.freed_memory import keep_freed_memory

def images():
    return [np.ones(640 * 480 * 3, np.uint8) for _ in range(4)]

if sys.argv[1] == "kept":
    assert keep_freed_memory({})
for _ in range(5):
    images()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    images()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: str) -> int:
    """Page faults of 80 images of 225 pages."""
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM, kept], check=True, capture_output=True, text=True, env={}
    )
    return int(made.stdout)


def test_images_reuse_the_pages_of_those_before() -> None:
    assert faults("as it is") > 1000
    assert faults("kept") < 100


def test_what_the_user_has_set_stays() -> None:
    assert not keep_freed_memory({"MALLOC_TRIM_THRESHOLD_": "1"})
    assert not keep_freed_memory({"MALLOC_MMAP_THRESHOLD_": "1"})
