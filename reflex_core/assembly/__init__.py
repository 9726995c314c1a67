# SPDX-License-Identifier: Apache-2.0
"""From settings to something that answers."""

from reflex_core.assembly.build import assemble
from reflex_core.assembly.loaded import Loaded, PolicySlot, Surroundings
from reflex_core.wedges.guard import GuardStatus

__all__ = ["GuardStatus", "Loaded", "PolicySlot", "Surroundings", "assemble"]
