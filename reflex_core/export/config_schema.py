# SPDX-License-Identifier: Apache-2.0
"""What an export says in reflex_config.json about keeping its prefix and about guiding its chunks (docs/reference/exports.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import is_number, is_whole

GUIDED, PREFIX, OFF = "guided_identity", "prefix", "off"
MOST_AGE_MS = 60_000.0
BLEND_ROWS = 4  # the paper blends to the old chunk's end: a robot that sees its goal move then turns too late

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

    max_guidance_weight: None takes the number of denoise steps. blend_rows: over how many rows after the fixed ones the
    old chunk loses its say. clean_time: the flow time of an action that is fixed.
    max_delay: the longest fixed part seen in training, in rows; for PREFIX only.
    """

    mode: str = GUIDED
    max_guidance_weight: float | None = None
    clean_time: float = 0.0
    max_delay: int = 0
    blend_rows: int = BLEND_ROWS


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
    blend = _rows(block, "rtc.blend_rows", BLEND_ROWS, fail)
    if mode != PREFIX:
        return RtcBlock(mode, weight, blend_rows=blend)
    longest = _rows(block, "rtc.max_delay", None, fail)
    clean = _number({"clean_time": block.get("clean_time", end)}, "rtc.clean_time", -1e6, 1e6, fail)
    return RtcBlock(mode, weight, clean, longest, blend)


def _rows(block: Mapping[str, Any], key: str, fallback: int | None, fail: Fail) -> int:
    value = block.get(key.rpartition(".")[2], fallback)
    if not is_whole(value, 1):
        raise fail(key, "a number of rows, 1 or more", value)
    return value


def _number(block: Mapping[str, Any], key: str, low: float, high: float, fail: Fail) -> float:
    value = block.get(key.rpartition(".")[2])
    if not is_number(value, low, high):
        raise fail(key, f"a number from {low:g} to {high:g}", value)
    return float(value)
