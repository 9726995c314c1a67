# SPDX-License-Identifier: Apache-2.0
"""The tests clean up what participants that were killed leave in /dev/shm, and touch nothing that is in use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shared_memory
from domains import free_domain
from ros_world import wait_for

PARTICIPANT = """
import rclpy, sys
rclpy.init(domain_id=int(sys.argv[1]))
node = rclpy.create_node("participant")
print("there", flush=True)
sys.stdin.read()
"""


@contextmanager
def participant(domain: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARTICIPANT, str(domain)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.communicate("")


def segments_of(process: subprocess.Popen[str]) -> set[str]:
    """The segments that a process has mapped; ports are shared."""
    return set(
        re.findall(r"/dev/shm/(fast\w+_\w{16})$", Path(f"/proc/{process.pid}/maps").read_text(), re.MULTILINE)
    )


def test_what_a_killed_participant_leaves_is_removed_and_what_a_living_one_uses_is_not() -> None:
    with participant(free_domain()) as first, participant(free_domain()) as second:
        dying, living = segments_of(first), segments_of(second)
        assert dying
        assert living
        assert not dying & living
        first.kill()
        first.wait()
        assert dying | living <= shared_memory.segments()
        removed = set[str]()

        def gone() -> bool:
            removed.update(shared_memory.remove_dead(dying | living, []))
            return not dying & shared_memory.segments()

        # another test session may look at them or clean up at the same moment
        wait_for(gone, "what the dead one left is removed")
        assert removed <= dying
        assert living <= shared_memory.segments()


def test_ports_of_the_domains_of_others_stay() -> None:
    assert shared_memory.remove_dead({"fastrtps_port7000", "fastrtps_port99999"}, [1]) == set()
