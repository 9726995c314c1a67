# SPDX-License-Identifier: Apache-2.0
"""From settings to something that answers."""

from reflex_core.assembly.build import assemble
from reflex_core.assembly.loaded import Loaded, PolicySlot, Surroundings

__all__ = ["Loaded", "PolicySlot", "Surroundings", "assemble"]
