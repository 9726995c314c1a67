# SPDX-License-Identifier: Apache-2.0
"""What the trace keeps of shadows and of how episodes ended: records of kinds of their own, written when they come.

Both come after the answer they belong to has been written. A shadow record names that answer by `seq`, an outcome names
its episode.
"""

from __future__ import annotations

from typing import Any

from reflex_core.files.json_lines import exact
from reflex_core.slots.outcomes import Outcome
from reflex_core.slots.shadow import Divergence

SCHEMA_VERSION = 1
SHADOW, OUTCOME = "shadow", "outcome"

Record = dict[str, Any]


def shadow_record(found: Divergence, timestamp: str) -> Record:
    """Return what the shadow would have done instead of answer `seq`, and how far that is from it."""
    return {
        "kind": SHADOW,
        "schema_version": SCHEMA_VERSION,
        "seq": found.seq,
        "timestamp": timestamp,
        "request": {"request_id": found.request_id, "episode_id": found.episode_id},
        "routing": {
            "slot": found.slot,
            "shadow_model_id": found.shadow_model_id,
            "shadow_actions": exact(found.actions),
        },
        "model_version": found.shadow_model_version,
        "noise": {"seed": found.seed},
        "latency": {"total_ms": round(found.latency_ms, 3)},
        "divergence": {
            "names": found.names,
            "max_abs": exact(found.max_abs),
            "rms": exact(found.rms),
        },
    }


def outcome_record(outcome: Outcome, timestamp: str) -> Record:
    """Return how an episode ended, as it was reported; of several records of one episode the last holds."""
    return {
        "kind": OUTCOME,
        "schema_version": SCHEMA_VERSION,
        "timestamp": timestamp,
        "episode_id": outcome.episode_id,
        "success": outcome.success,
        "slot": outcome.slot,
        "score": outcome.score,
        "note": outcome.note,
    }
