# SPDX-License-Identifier: Apache-2.0
"""Real-time priority of single threads, where the system permits it: sched(7), SCHED_FIFO."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

ORDINARY_HZ, MOST_HZ = 100.0, 250.0  # up to which a thread ticks without real-time priority, and with it
PRIORITY = (
    10  # of 1 to 99: before every ordinary thread, behind those of drivers and of ros2_control, which has 50
)


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How a thread is scheduled. thread: its native id."""

    thread: int
    policy: int
    priority: int

    def restore(self) -> None:
        """Have it scheduled like that again; nothing where the thread has ended."""
        try:
            os.sched_setscheduler(self.thread, self.policy, os.sched_param(self.priority))
        except ProcessLookupError:
            return


def hurry(thread: int) -> Scheduling:
    """Give a thread of this process real-time priority, unless it has one. thread: its native id.

    Returns how it was scheduled before. Raises OSError where the system does not permit it.
    """
    if not hasattr(os, "sched_setscheduler"):
        raise OSError("this system has no real-time priorities")
    before = Scheduling(thread, os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority)
    if before.policy not in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(PRIORITY))
    return before


def refusal() -> str:
    """Return why threads of this process get no real-time priority; "" where they do. It is tried on a thread of its own."""
    found: list[str] = []

    def probe() -> None:
        try:
            hurry(threading.get_native_id())
        except OSError as error:
            found.append(error.strerror or str(error))

    thread = threading.Thread(target=probe, name="real-time probe")
    thread.start()
    thread.join()
    return "".join(found)
