# SPDX-License-Identifier: Apache-2.0
"""State from one recorded chunk of an episode to the next: guidance of real-time chunking, cached prefix, running mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reflex_core.chunks.guidance import Guidance
from reflex_core.chunks.rtc import rows_from
from reflex_core.chunks.temporal_ensemble import RecordedEnsemble
from reflex_core.errors import ConfigurationError
from reflex_core.files.json_fields import is_number
from reflex_core.policy.base import Policy, Prediction
from reflex_core.policy.prefix_cache import PrefixCache
from reflex_core.policy.recorded_guidance import RecordedGuidance
from reflex_core.records.trace.fields import timestamp_ns
from reflex_core.records.trace.parse import Recorded
from reflex_core.reports import EnsembleReport
from reflex_core.values import Floats


class CarryOver:
    """The state of one target. Records must come in the order in which they were written.

    notes: what could not be repeated. `lost` counts guided or averaged chunks whose predecessor is not in the trace.
    """

    def __init__(self, policy: Policy, recorded: Mapping[str, Any], same: bool) -> None:
        """Start without state. recorded: the settings in the trace's header. same: the policy has the recorded weights."""
        self._policy = policy
        self._guidance = RecordedGuidance(policy)
        self._ensemble = RecordedEnsemble(policy.binding)
        self._now_ns = 0
        self.lost = 0
        self.notes: tuple[str, ...] = ()
        self.cache = self._open_cache(recorded, same) if recorded.get("prefix_cache") else None

    def _open_cache(self, recorded: Mapping[str, Any], same: bool) -> PrefixCache | None:
        try:
            age_ms = float(recorded.get("prefix_cache_max_age_ms") or 0.0)
            return self._policy.prefix_cache(age_ms, lambda: self._now_ns, fresh=not same)
        except (ConfigurationError, ValueError, TypeError) as error:
            self.notes = (f"it was recorded with the episode cache; this replay goes without: {error}",)
            return None

    def at(self, record: Recorded) -> None:
        """Set the cache's clock to its time when the request arrived."""
        answered_ns = timestamp_ns(record.timestamp)
        if answered_ns is not None:
            self._now_ns = answered_ns - int(record.total_ms * 1e6)

    def guidance(self, record: Recorded) -> Guidance | None:
        """Return what guided the recorded chunk; None where nothing did, or where it cannot be found any more."""
        block = record.document.get("rtc")
        if not isinstance(block, dict) or not block.get("previous"):
            return None
        elapsed, delay = block.get("elapsed_rows"), block.get("delay")
        found = None
        if isinstance(elapsed, int | float) and isinstance(delay, int):
            found = self._guidance.guidance(
                (record.episode_id or "", str(block["previous"])), float(elapsed), delay, record.state,
                rows_from(block.get("executed")),
            )  # fmt: skip
        self.lost += found is None
        return found

    def averaged(self, record: Recorded, made: Prediction) -> Floats:
        """Return the chunk as it was served: averaged with those before it, where the recorded one was."""
        block = record.document.get("temporal_ensemble")
        if not isinstance(block, dict):
            return made.actions
        elapsed, coefficient = block.get("elapsed_rows"), block.get("coefficient")
        if not is_number(elapsed, 0.0) or not is_number(coefficient):
            self.lost += 1
            return made.actions
        report = EnsembleReport(1, str(block.get("previous") or ""), float(elapsed), float(coefficient))
        positions = self._policy.positions(made.normalised, record.state)
        key = (record.episode_id or "", record.request_id)
        actions, found = self._ensemble.combine(key, report, positions, record.state)
        self.lost += not found
        return actions

    def keep(self, record: Recorded, made: Floats) -> None:
        """Store a chunk for the next one. made: (1, horizon, width), the network's own of this replay.

        The recorded chunk, which the robot was commanded, is what guides. Where the replay made the same bytes its own numbers
        are those of the recording; else the recorded ones are converted to the network's units.
        """
        if not record.request_id:
            return
        same = self._policy.physical(made, record.state).tobytes() == record.raw_actions.tobytes()
        key = (record.episode_id or "", record.request_id)
        self._guidance.keep(key, record.raw_actions, record.actions, record.state, made[0] if same else None)
