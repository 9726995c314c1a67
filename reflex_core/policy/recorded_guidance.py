# SPDX-License-Identifier: Apache-2.0
"""What guided an answer, made again from chunks in physical units: for a replay, and for a shadow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reflex_core.chunks.guidance import Guidance
from reflex_core.chunks.rtc import base_of, executed_rows
from reflex_core.concurrency.lru import Lru
from reflex_core.export.config_schema import OFF
from reflex_core.policy.base import Policy
from reflex_core.values import Floats

CHUNKS_KEPT = 512  # of all episodes together: a chunk guides the next one of its episode only

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    raw: Floats
    executed: Floats
    own: Floats | None
    base: Floats | None


class RecordedGuidance:
    """Bounded store of the chunks of many episodes, as one policy would have made them. One writer and one reader thread."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._rtc = policy.rtc()
        self._chunks: Lru[Key, _Kept] = Lru(CHUNKS_KEPT)

    def keep(
        self, key: Key, raw: Floats, executed: Floats, state: Floats | None, own: Floats | None = None
    ) -> None:
        """Remember a chunk.

        key: its episode and request id; raw, executed: (horizon, action_dim), before and after
        correction and guard; state: of its observation; own: (horizon, width), the network's numbers for `raw` where they are known.
        """
        self._chunks.put(key, _Kept(raw, executed, own, base_of(state, self._policy.binding)))

    def guidance(
        self, key: Key, elapsed_rows: float, delay: int, state: Floats | None, executed: Floats | None = None
    ) -> Guidance | None:
        """Return the guidance of a recorded answer; None where the chunk is unknown or this policy takes none.

        executed: the chunk of the key as its rows were corrected after it was kept; None: they were not.
        """
        kept = self._chunks.get(key)
        if kept is None or self._rtc.mode == OFF:
            return None
        binding = self._policy.binding
        rows = kept.own if kept.own is not None else self._normalised(kept.raw, kept.base)
        if rows is None:
            return None
        as_executed = kept.executed if executed is None else executed
        rows = executed_rows(rows, as_executed, kept.raw, binding, kept.base)
        return self._rtc.again(rows[None], elapsed_rows, delay, kept.base, base_of(state, binding))

    def _normalised(self, actions: Floats, base: Floats | None) -> Floats | None:
        """Return (horizon, width) in the network's units, padding 0; None for actions of another robot."""
        contract, binding = self._policy.contract, self._policy.binding
        if (
            actions.ndim != 2
            or actions.shape[1] != len(binding.action_names)
            or not np.isfinite(actions).all()
        ):
            return None
        count = min(len(actions), contract.horizon)
        rows = np.zeros((contract.horizon, contract.width), np.float32)
        if binding.tool is not None:
            if base is None:
                return None
            rows[:count, binding.columns] = binding.tool.normalised(actions[:count], base)
            return rows if count >= binding.horizon else rows[:count]
        statistics = binding.action_statistics
        if base is not None and binding.relative is not None:
            actions = binding.relative.offsets(actions, base)
        own = actions[:count] if statistics is None else statistics.recovered(actions[:count])
        rows[:count, binding.columns] = own
        return rows if count >= binding.horizon else rows[:count]
