# SPDX-License-Identifier: Apache-2.0
"""What a policy can do besides answering: data, so that settings, /config and the startup banner say the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Each field is empty where the policy can do it, else a clause that says why not.

    guidance: real-time chunking. early_stop: leave the denoise loop before its last step. fewer_steps: take another number
    of denoise steps than the export's. prefix_cache: reuse a prefix.
    """

    guidance: str = ""
    early_stop: str = ""
    fewer_steps: str = ""
    prefix_cache: str = ""

    def lacking(self) -> dict[str, str]:
        """Return what the policy cannot do, and why not."""
        return {name: why for name, why in asdict(self).items() if why}
