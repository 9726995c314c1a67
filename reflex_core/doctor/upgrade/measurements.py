# SPDX-License-Identifier: Apache-2.0
"""What an earlier version measured or trained: calibration caches and correction heads."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from reflex_core.doctor.upgrade.judgement import COMMAND, READ, REFUSED, Judgement
from reflex_core.doctor.upgrade.kinds import CALIBRATION, HEAD
from reflex_core.errors import ReflexError

HASHES = (
    "entries whose model_hash covers only the weights, as the first version wrote them, are taken over when the export is"
    " served with --auto-calibrate"
)


def judge_calibration(path: Path) -> Judgement:
    """Judge a calibration cache: whether its entries hold on this machine today."""
    from reflex_core.doctor.calibrated import calibration

    again = f"reflex serve EXPORT --auto-calibrate --calibration-cache {quote(str(path))}"
    held = calibration(path)
    if held["problem"]:
        do = f"move it away; {again} measures again"
        return Judgement(str(path), CALIBRATION, REFUSED, held["problem"], do)
    stale = {key: entry["stale"] for key, entry in held["entries"].items() if entry["stale"]}
    if stale:
        key, why = next(iter(stale.items()))
        message = f"{len(stale)} of {len(held['entries'])} entries would be measured again: {key}: {why}"
        return Judgement(str(path), CALIBRATION, COMMAND, message, again)
    return Judgement(str(path), CALIBRATION, READ, f"{len(held['entries'])} entries in use", notes=(HASHES,))


def judge_head(path: Path) -> Judgement:
    """Judge the head of --a2c2-checkpoint."""
    from reflex_core.chunks.a2c2.checkpoint import read_checkpoint

    try:
        head = read_checkpoint(path)
    except ReflexError as error:
        do = "train it again (docs/how-to/train-a-correction-head.md)"
        return Judgement(str(path), HEAD, REFUSED, str(error), do)
    return Judgement(str(path), HEAD, READ, f"{head.action_dim} actions, features {head.features}")
