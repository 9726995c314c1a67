# SPDX-License-Identifier: Apache-2.0
"""Convert stamps of ROS messages to integer nanoseconds, and back."""

from __future__ import annotations

from builtin_interfaces.msg import Time


def stamp_ns(stamp: Time) -> int:
    """Return a ROS stamp as integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def time_msg(nanoseconds: int) -> Time:
    """Return integer nanoseconds as a ROS stamp."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)
