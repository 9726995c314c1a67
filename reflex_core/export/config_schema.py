# SPDX-License-Identifier: Apache-2.0
"""The blocks `prefix_cache` and `rtc` of reflex_config.json (docs/reference/exports.md)."""

from __future__ import annotations

from dataclasses import dataclass

from reflex_core.files.json_fields import JsonFields

GUIDED, PREFIX, OFF = "guided_identity", "prefix", "off"
MOST_AGE_MS = 60_000.0
ROWS = "a number of rows, 1 or more"
BLEND_ROWS = 4  # the paper blends to the old chunk's end: a robot that sees its goal move then turns too late


@dataclass(frozen=True, slots=True)
class CacheRule:
    """When a cached prefix may be used in place of a new one.

    image_threshold: the largest change of any part of an image, as a share of the pixels' range.
    measured_on: the hash of the weights that the threshold was measured on, empty where it is unknown.
    """

    image_threshold: float
    max_age_ms: float
    measured_on: str = ""


@dataclass(frozen=True, slots=True)
class RtcBlock:
    """How chunks of this export are made to fit together.

    max_guidance_weight: None takes the number of denoise steps. blend_rows: the rows after the fixed ones over which the
    weight of the old chunk falls to 0. clean_time: the flow time of an action that is fixed.
    max_delay: the longest fixed part seen in training, in rows; for PREFIX only.
    """

    mode: str = GUIDED
    max_guidance_weight: float | None = None
    clean_time: float = 0.0
    max_delay: int = 0
    blend_rows: int = BLEND_ROWS


PLAIN_RTC = RtcBlock()


def read_cache_rule(block: JsonFields) -> CacheRule | None:
    """Read the block `prefix_cache`; None where there is none, because it has not been measured."""
    if not block:
        return None
    return CacheRule(
        block.number("image_threshold", 0.0, 1.0),
        block.number("max_age_ms", 1.0, MOST_AGE_MS),
        str(block.fields("measured", optional=True).get("model_hash", "")),
    )


def read_rtc_block(block: JsonFields, end: float) -> RtcBlock:
    """Read the block `rtc`. end: the flow time of actions without noise."""
    mode = block.get("mode", GUIDED)
    if mode not in (GUIDED, PREFIX, OFF):
        raise block.refusal(
            "mode", f"{GUIDED}, {PREFIX} or {OFF} (a graph for exact guidance is not supported)"
        )
    weight = None
    if block.get("max_guidance_weight") is not None:
        weight = block.number("max_guidance_weight", 0.0, 1000.0)
    blend = block.whole("blend_rows", 1, default=BLEND_ROWS, expected=ROWS)
    if mode != PREFIX:
        return RtcBlock(mode, weight, blend_rows=blend)
    longest = block.whole("max_delay", 1, expected=ROWS)
    return RtcBlock(mode, weight, block.number("clean_time", -1e6, 1e6, end), longest, blend)
