# SPDX-License-Identifier: Apache-2.0
"""What an episode carries from one recorded chunk to the next: the guidance of real-time chunking, the kept prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from reflex_core.errors import ConfigurationError
from reflex_core.policy.blocks import OFF
from reflex_core.policy.guidance import Guidance
from reflex_core.policy.policy import Policy
from reflex_core.policy.prefix_cache import PrefixCache
from reflex_core.policy.rtc import corrected_rows
from reflex_core.trace.records import Recorded
from reflex_core.values import Floats

CHUNKS_KEPT = 512  # of all episodes together: a chunk guides the next one of its episode only


class Carrying:
    """The state of one target. Records must come in the order in which they were written.

    notes: what could not be repeated. `lost` counts guided chunks whose predecessor is not in the trace.
    """

    def __init__(self, policy: Policy, recorded: Mapping[str, Any]) -> None:
        """recorded: the settings in the trace's header."""
        self._policy = policy
        self._rtc = policy.rtc()
        self._chunks: OrderedDict[str, Floats] = OrderedDict()
        self._now_ns = 0
        self.lost = 0
        self.notes: tuple[str, ...] = ()
        self.cache = self._open_cache(recorded) if recorded.get("prefix_cache") else None

    def _open_cache(self, recorded: Mapping[str, Any]) -> PrefixCache | None:
        try:
            age_ms = float(recorded.get("prefix_cache_max_age_ms") or 0.0)
            return self._policy.prefix_cache(age_ms, lambda: self._now_ns)
        except (ConfigurationError, ValueError, TypeError) as error:
            self.notes = (f"it was recorded with the episode cache; this replay goes without: {error}",)
            return None

    def at(self, record: Recorded) -> None:
        """The cache's clock stands where it stood when the request came."""
        try:
            answered = datetime.fromisoformat(record.timestamp.replace("Z", "+00:00"))
        except ValueError:
            return
        self._now_ns = int((answered.timestamp() * 1e3 - record.total_ms) * 1e6)

    def guidance(self, record: Recorded) -> Guidance | None:
        """What guided the recorded chunk; None where nothing did, or where it cannot be found any more."""
        block = record.document.get("rtc")
        if not isinstance(block, dict) or not block.get("previous"):
            return None
        rows = self._chunks.get(str(block["previous"]))
        elapsed, delay = block.get("elapsed_rows"), block.get("delay")
        usable = isinstance(elapsed, int | float) and isinstance(delay, int) and self._rtc.mode != OFF
        if rows is None or not usable:
            self.lost += 1
            return None
        return self._rtc.again(rows[None], float(elapsed), delay)  # type: ignore[arg-type]

    def keep(self, record: Recorded, made: Floats) -> None:
        """Remember a chunk for the next one. made: (1, horizon, width), the network's own of this replay.

        What guides is what the robot was told: the recorded chunk. Where the replay came to the same bytes its own numbers
        are those of the recording; else the recorded ones are brought back to the network's units.
        """
        if not record.request_id:
            return
        rows = made[0]
        if self._policy.physical(made).tobytes() != record.raw_actions.tobytes():
            rows = self._normalised(record.raw_actions, rows)
        block = record.document.get("a2c2")
        if (
            isinstance(block, dict)
            and block.get("applied")
            and record.actions.shape == record.raw_actions.shape
        ):
            rows = corrected_rows(rows, record.actions, record.raw_actions, self._policy.fit)
        self._chunks[record.request_id] = rows
        self._chunks.move_to_end(record.request_id)
        while len(self._chunks) > CHUNKS_KEPT:
            self._chunks.popitem(last=False)

    def _normalised(self, actions: Floats, like: Floats) -> Floats:
        fit = self._policy.fit
        if actions.ndim != 2 or actions.shape[1] != len(fit.action_names) or not np.isfinite(actions).all():
            return like
        count = min(len(actions), len(like))
        rows = like.copy()
        statistics = fit.action_statistics
        own = actions[:count] if statistics is None else statistics.normalise(actions[:count])
        rows[:count, fit.columns] = own
        return rows
