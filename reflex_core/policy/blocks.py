# SPDX-License-Identifier: Apache-2.0
"""What an export says in reflex_config.json about keeping its prefix and about guiding its chunks (docs/chunks.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reflex_core.errors import ExportError

GUIDED, PREFIX, OFF = "guided_identity", "prefix", "off"
MOST_AGE_MS = 60_000.0

Fail = Callable[[str, str, object], ExportError]  # key, expected, got


@dataclass(frozen=True, slots=True)
class CacheRule:
    """When a kept prefix may stand in for a new one.

    image_threshold: the largest change that any part of a picture may show, as a share of the pixels' range.
    measured_on: the hash of the weights that the threshold was measured on, empty where nobody says.
    """

    image_threshold: float
    max_age_ms: float
    measured_on: str = ""


@dataclass(frozen=True, slots=True)
class RtcBlock:
    """How chunks of this export are made to fit together.

    max_guidance_weight: None takes the number of denoise steps. clean_time: the flow time of an action that is fixed.
    max_delay: the longest fixed part seen in training, in rows; for PREFIX only.
    """

    mode: str = GUIDED
    max_guidance_weight: float | None = None
    clean_time: float = 0.0
    max_delay: int = 0


PLAIN_RTC = RtcBlock()


def read_cache_rule(block: Mapping[str, Any], fail: Fail) -> CacheRule | None:
    """The block `prefix_cache`; None where there is none, because nobody has measured it."""
    if not block:
        return None
    measured = block.get("measured", {})
    if not isinstance(measured, dict):
        raise fail("prefix_cache.measured", "an object", measured)
    return CacheRule(
        _number(block, "prefix_cache.image_threshold", 0.0, 1.0, fail),
        _number(block, "prefix_cache.max_age_ms", 1.0, MOST_AGE_MS, fail),
        str(measured.get("model_hash", "")),
    )


def read_rtc_block(block: Mapping[str, Any], end: float, fail: Fail) -> RtcBlock:
    """The block `rtc`. end: the flow time of actions without noise."""
    mode = block.get("mode", GUIDED)
    if mode not in (GUIDED, PREFIX, OFF):
        raise fail(
            "rtc.mode", f"{GUIDED}, {PREFIX} or {OFF} (a graph for exact guidance is not supported)", mode
        )
    weight = None
    if block.get("max_guidance_weight") is not None:
        weight = _number(block, "rtc.max_guidance_weight", 0.0, 1000.0, fail)
    if mode != PREFIX:
        return RtcBlock(mode, weight)
    longest = block.get("max_delay")
    if not isinstance(longest, int) or isinstance(longest, bool) or longest < 1:
        raise fail("rtc.max_delay", "how many fixed rows it was trained with, 1 or more", longest)
    clean = _number({"clean_time": block.get("clean_time", end)}, "rtc.clean_time", -1e6, 1e6, fail)
    return RtcBlock(mode, weight, clean, longest)


def _number(block: Mapping[str, Any], key: str, low: float, high: float, fail: Fail) -> float:
    value = block.get(key.rpartition(".")[2])
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise fail(key, f"a number from {low:g} to {high:g}", value)
    return float(value)
