# SPDX-License-Identifier: Apache-2.0
"""What two policies share: the routing of episodes, the changes of the split, and the monitor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from reflex_core.slots.changing import Operating
from reflex_core.slots.monitor import Monitor
from reflex_core.slots.routing import Routing

CHANGES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Pair:
    """The share of each slot, the episodes under way, and the watch after a change."""

    operating: Operating
    routing: Routing
    monitor: Monitor

    def document(self) -> dict[str, Any]:
        """Return for GET /policies: the split, the newest changes, and the monitor's state."""
        last = self.monitor.last
        return {
            "split": self.operating.split(),
            "episodes_known": len(self.routing),
            "monitor": {"watching": self.monitor.watching, "last": None if last is None else str(last)},
            "history": [dataclasses.asdict(swap) for swap in self.operating.history[-CHANGES_SHOWN:]],
        }
