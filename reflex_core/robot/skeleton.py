# SPDX-License-Identifier: Apache-2.0
"""Values that an exporter could not know: a skeleton of an embodiment asks for them, and no robot is served with it as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FILE = "embodiment.json"  # of an export
MARK = "FILL IN"
MOST_SHOWN = 16


def placeholder(what: str) -> str:
    """Return what is written in place of a value that only the robot's owner knows."""
    return f"{MARK}: {what}"


def unfilled(document: Any, key: str = "") -> Iterator[str]:
    """Yield the keys of a JSON document whose values are still asked for: `action_space.ranges[2]`."""
    if isinstance(document, str) and document.startswith(MARK):
        yield key
    elif isinstance(document, Mapping):
        for name, value in document.items():
            yield from unfilled(value, f"{key}.{name}" if key else str(name))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from unfilled(value, f"{key}[{index}]")


def listed(keys: list[str]) -> str:
    """Return the keys for a message, the first of them where there are many."""
    more = len(keys) - MOST_SHOWN
    return ", ".join(keys[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
