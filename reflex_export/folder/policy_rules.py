# SPDX-License-Identifier: Apache-2.0
"""How many rows a policy makes and executes, and which of its settings cannot be exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonFields, refusing
from reflex_core.text.untrusted import shown
from reflex_export.folder.features import Features

MOST_ROWS, MOST_OBSERVATIONS = 1000, 32
SETTING_REFUSED = "policy-setting-refused"
# what LeRobot takes where an older config.json has no such key
_ROWS: Mapping[str, tuple[int, int]] = {
    "act": (100, 100), "diffusion": (16, 8), "smolvla": (50, 50), "pi0": (50, 50), "pi05": (50, 50), "xvla": (32, 32),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """horizon: rows that the network makes. executed: before the next inference. observations: that one inference reads."""

    horizon: int
    executed: int
    observations: int


def read_rows(file: Path, family: str, config: Mapping[str, Any]) -> Rows:
    """Return the rows of a policy. Raises ExportError where they contradict each other."""
    fields = JsonFields(config, refusing(str(file), lambda message: ExportError(message, SETTING_REFUSED)))
    key, (made, executed) = "horizon" if family == "diffusion" else "chunk_size", _ROWS[family]
    rows = Rows(
        fields.whole(key, 1, MOST_ROWS, made),
        fields.whole("n_action_steps", 1, MOST_ROWS, executed),
        fields.whole("n_obs_steps", 1, MOST_OBSERVATIONS, 2 if family == "diffusion" else 1),
    )
    if rows.observations > 1 and family != "diffusion":
        raise fields.refusal("n_obs_steps", f"1: a policy of type {family} reads one observation")
    most = rows.horizon - rows.observations + 1
    if rows.executed > most:
        raise fields.refusal(
            "n_action_steps", f"at most {most}, the rows that are not past in a chunk of {rows.horizon}"
        )
    return rows


def check_settings(file: Path, family: str, config: Mapping[str, Any], features: Features) -> tuple[str, ...]:
    """Return notes on settings that change something. Raises ExportError for those that cannot be exported."""
    if not any(not camera.empty for camera in features.cameras):
        raise ExportError(
            f"{file}: the policy reads no camera, and one without is not served", SETTING_REFUSED
        )
    for key, wanted, why in _REFUSED.get(family, ()):
        if config.get(key, wanted) != wanted:
            raise ExportError(f"{file}: '{key}' is {shown(config[key])}: {why}", SETTING_REFUSED)
    if family == "diffusion" and not features.state_dim:
        raise ExportError(
            f"{file}: a policy of type diffusion reads observation.state, and lists none", SETTING_REFUSED
        )
    if family == "xvla" and "ee6d" in str(config.get("action_mode", "ee6d")):
        raise ExportError(
            f"{file}: 'action_mode' is {shown(config.get('action_mode', 'ee6d'))}: its actions are poses of the hand (position and two"
            " columns of a rotation), and joint positions are served",
            SETTING_REFUSED,
        )
    return tuple(_notes(config))


_ALOHA = "it flips joints and converts grippers of one robot, which no step of the pipeline says"
_REFUSED: Mapping[str, tuple[tuple[str, object, str], ...]] = {
    "smolvla": (("adapt_to_pi_aloha", False, _ALOHA), ("use_delta_joint_actions_aloha", False, _ALOHA)),
    "pi0": (("adapt_to_pi_aloha", False, _ALOHA),),
    "xvla": (
        ("domain_feature_key", None, "the domain would come with every observation, and no robot sends one"),
    ),
}


def _notes(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("dtype") == "bfloat16":
        yield (
            "it was trained in bfloat16; the export computes in float32 and is compared with LeRobot in float32, which differs"
            " from LeRobot in bfloat16 by about 1 % of the normalised range"
        )
