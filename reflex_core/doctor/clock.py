# SPDX-License-Identifier: Apache-2.0
"""Checks of the clocks: stamps and deadlines are only as good as they are."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from datetime import datetime, timezone

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding

SAMPLE_S = 0.05
STEP_S = 0.01  # how far the two clocks may part within the sample; slewing makes 0.00003 of it
BUILT_S = datetime(2025, 1, 1, tzinfo=timezone.utc).timestamp()  # this package is younger than that
UNSYNCHRONISED = 0x40  # STA_UNSYNC of adjtimex(2)
SYNCHRONISE = "switch time synchronisation on (chrony or systemd-timesyncd; timedatectl set-ntp true)"


def clock(
    alone: bool,
    synchronised: Callable[[], bool | None] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    sample_s: float = SAMPLE_S,
) -> Finding:
    """Check that the monotonic clock is steady, the date is plausible, and other machines share the time.

    Args:
        alone: No other machine takes part, so the stamps all come from one clock.
        synchronised: Whether the clock is disciplined, None when that is unknown.
        monotonic: A clock in seconds.
        wall: A clock in seconds since 1970.
        sample_s: How long both are compared.
    """
    steady = [monotonic()]
    drift_s = wall() - steady[0]
    while steady[-1] - steady[0] < sample_s and len(steady) < 1_000_000:
        steady.append(monotonic())
        if steady[-1] < steady[-2]:
            return Finding(
                "clock",
                FAIL,
                "the monotonic clock went back",
                "deadlines cannot be kept here: change the kernel's clocksource",
            )
    now_s = wall()
    drift_s = now_s - steady[-1] - drift_s
    if abs(drift_s) > STEP_S:
        return Finding(
            "clock", WARN, f"the wall clock jumped {drift_s:+.3f} s while it was watched", SYNCHRONISE
        )
    date = datetime.fromtimestamp(now_s, timezone.utc).isoformat(timespec="seconds")
    if now_s < BUILT_S:
        return Finding("clock", FAIL, f"the date is {date}, before this program was written", SYNCHRONISE)
    known = (synchronised or ntp)()
    if known is None:
        return Finding("clock", OK, f"{date}; whether it is synchronised cannot be known here")
    if known:
        return Finding("clock", OK, f"{date}, synchronised")
    if alone:
        return Finding(
            "clock", OK, f"{date}, not synchronised; ROS stays on this machine, so that does not matter"
        )
    message = f"{date}, not synchronised: stamps of other machines will look too old or too new"
    return Finding("clock", WARN, message, SYNCHRONISE)


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2); what comes after `status` is not read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def ntp() -> bool | None:
    """Return whether the kernel's clock is disciplined; None where the kernel does not report it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    found = _Timex()
    if call(ctypes.byref(found)) < 0:
        return None
    return not found.status & UNSYNCHRONISED
