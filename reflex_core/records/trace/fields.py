# SPDX-License-Identifier: Apache-2.0
"""Read fields of a trace's header and records that several readers use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

_BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)


def timestamp_ns(text: str) -> int | None:
    """Return the nanoseconds since 1970 of a text such as `2026-04-24T17:13:05.123Z`, None for any other."""
    try:
        # Python 3.10 does not know the Z
        found = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return (found - _BEGINNING) // timedelta(microseconds=1) * 1000


def image_mode(header: Mapping[str, Any]) -> object:
    """Return how the images were recorded, one of the modes of --record-images; None where the header does not hold it."""
    redaction = header.get("redaction")
    return redaction.get("image") if isinstance(redaction, dict) else None
