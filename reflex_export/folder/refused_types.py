# SPDX-License-Identifier: Apache-2.0
"""Which policies of LeRobot are exported, and why each of the others is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reflex_core.errors import ExportError
from reflex_core.text.untrusted import shown
from reflex_export.families.table import FAMILIES

# `type` in config.json -> why
REFUSED: Mapping[str, str] = {
    "pi0_fast": "it writes its actions as text, up to 256 tokens one after the other, which no fixed graph does",
    "groot": "its backbone (Eagle or Qwen3-VL) takes pictures in packed patches, which are not served",
    "sac": "it is trained by reinforcement for one environment, and its actions are drawn at random",
    "gaussian_actor": "it is trained by reinforcement for one environment, and its actions are drawn at random",
    "tdmpc": "it plans with its own model at every step, which no fixed graph does",
    "vqbet": "it draws its actions from a codebook at random",
}
TYPE_REFUSED = "policy-type-refused"


def check_type(file: Path, kind: object) -> str:
    """Return the family of a policy. file: its config.json. Raises ExportError for a type that is not exported."""
    if isinstance(kind, str) and kind in FAMILIES:
        return kind
    known = ", ".join(FAMILIES)
    if kind is None:
        raise ExportError(
            f"{file}: names no 'type', so it is no policy of LeRobot 0.2 or newer: exported are {known}",
            TYPE_REFUSED,
        )
    why = (
        REFUSED.get(kind, "its architecture is not known here")
        if isinstance(kind, str)
        else "it must be a text"
    )
    raise ExportError(
        f"{file}: a policy of type {shown(kind)} is not exported: {why}; exported are {known}", TYPE_REFUSED
    )
