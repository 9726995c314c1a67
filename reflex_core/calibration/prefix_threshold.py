# SPDX-License-Identifier: Apache-2.0
"""Calibrate how much an image may change before a cached prefix is recomputed (docs/explanation/prefix-cache.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

import numpy as np

from reflex_core.errors import ConfigurationError, ObservationError
from reflex_core.export.export import Export
from reflex_core.policy.base import Policy
from reflex_core.policy.prefix_cache import PrefixCache, Seen, image_change
from reflex_core.values import Observation

MAX_AGE_MS = 1000.0
MOST = 0.95  # of the changes
ENOUGH = 20  # pairs: of fewer, 5 % is less than one
_DIGITS = 1000  # a threshold has three

Named = Mapping[str, Observation]  # by the name of the file without its ending


@dataclass(frozen=True, slots=True)
class Measured:
    """Changes of the images, one per pair, as shares of the pixels' range.

    still: of consecutive images of one unchanged scene. moved: of a scene before and after what must be seen.
    """

    still: tuple[float, ...]
    moved: tuple[float, ...]

    @property
    def noise(self) -> float:
        """What 95 % of the changes of an unchanged scene do not exceed; 0 where none was measured."""
        return float(np.quantile(self.still, MOST)) if self.still else 0.0

    @property
    def least(self) -> float:
        """What 95 % of the moves exceed, or 0 where none was measured."""
        return least_change(self.moved) if self.moved else 0.0


def least_change(moved: Sequence[float]) -> float:
    """Return the change that 95 % of the moves exceed."""
    return float(np.quantile(moved, 1 - MOST))


def uncalibrated(export: Export) -> Export:
    """Return the export with a threshold that any change exceeds: for measuring, not for serving."""
    block = {"image_threshold": 1.0, "max_age_ms": MAX_AGE_MS}
    return replace(export, config={**export.config, "prefix_cache": block})


def measured(policy: Policy, seen: Named, moved: Named) -> Measured:
    """Measure the changes between recorded observations.

    Args:
        policy: Of an `uncalibrated` export.
        seen: Observations; those whose names differ only in the number at the end are consecutive ones of an unchanged scene.
        moved: Each is compared with the one of the same name in `seen`.

    Raises:
        ObservationError: A pair cannot be compared.
        ConfigurationError: The prefix of this export cannot be cached.
    """
    cache = policy.prefix_cache()
    before = {name: _looked_at(policy, cache, name, one) for name, one in seen.items()}
    after = {name: _looked_at(policy, cache, name, one) for name, one in moved.items()}
    if strangers := sorted(set(after) - set(before)):
        raise ObservationError(
            f"what was moved must be there before under the same name; without a partner: {', '.join(strangers[:5])}"
        )
    still = [
        change(before[one], before[other], f"{one} and {other}")
        for one, other in pairwise(before)
        if _scene(one) == _scene(other)
    ]
    found = [change(before[name], after[name], f"{name}, before and after") for name in after]
    return Measured(tuple(still), tuple(found))


def change(before: Seen, now: Seen, what: str = "two observations") -> float:
    """Return the largest change in any image, as the cache compares them. Raises ObservationError for another instruction."""
    if before.exact != now.exact:
        raise ObservationError(f"{what}: the instructions differ, so that a new prefix is made anyway")
    if not before.thumbnails:
        raise ObservationError(f"{what}: the prefix of this export sees no picture")
    return max(image_change(*pair) for pair in zip(before.thumbnails, now.thumbnails, strict=True))


def threshold(found: Measured) -> float:
    """Return the threshold, rounded to three digits.

    With moves: what 95 % of them exceed. Without: what 95 % of the images of an unchanged scene do not exceed, so that
    whatever is more than the camera's own noise is a change.

    Raises:
        ConfigurationError: There is no pair, or the moves are within the noise.
    """
    if not found.moved:
        if not found.still:
            raise ConfigurationError(
                "there are no two pictures of one scene: names that differ only in the number at the end say so"
                " (desk-1.json, desk-2.json)"
            )
        return min(1.0, math.ceil(found.noise * _DIGITS) / _DIGITS)
    chosen = math.floor(found.least * _DIGITS) / _DIGITS
    if chosen <= found.noise:
        raise ConfigurationError(
            f"95 % of the moves change a picture by more than {found.least:.4f}, the camera's own noise reaches"
            f" {found.noise:.4f}: no threshold tells them apart; take a larger move or leave --prefix-cache off"
        )
    return chosen


def prefix_block(
    image_threshold: float, max_age_ms: float, model_hash: str, observations: str, **figures: object
) -> dict[str, Any]:
    """Return the block 'prefix_cache' of reflex_config.json. model_hash: of the weights that it is valid for."""
    today = datetime.now(timezone.utc).date().isoformat()
    what = {"model_hash": model_hash, "observations": observations, **figures, "date": today}
    return {"image_threshold": image_threshold, "max_age_ms": max_age_ms, "measured": what}


def _looked_at(policy: Policy, cache: PrefixCache, name: str, observation: Observation) -> Seen:
    try:
        return cache.seen(observation, policy.arrays(observation)[0])
    except ObservationError as error:
        raise ObservationError(f"{name}: {error}", error.slug) from error


def _scene(name: str) -> str:
    return re.sub(r"\d+$", "", name)
