# SPDX-License-Identifier: Apache-2.0
"""Exports that an earlier version served: loaded as `reflex serve` would, and compared with what they bring."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from reflex_core.doctor.finding import FAIL
from reflex_core.doctor.upgrade.judgement import COMMAND, READ, REFUSED, Judgement
from reflex_core.doctor.upgrade.kinds import EXPORT

if TYPE_CHECKING:
    from reflex_core.policy.base import Policy

CORRECT = "correct what the sentence names (docs/reference/exports.md), or export the policy again"


def judge_export(path: Path, robot: Mapping[str, object]) -> Judgement:
    """Judge an export. robot: the settings that name one; without, the one that it brings, if any."""
    from reflex_core.doctor.export_files import export
    from reflex_core.engine.load_policy import load
    from reflex_core.errors import ConfigurationError
    from reflex_core.metrics.metrics import Metrics
    from reflex_core.settings.table import settings_from

    logging.getLogger("reflex_core").addHandler(logging.NullHandler())  # what matters is reported here
    try:
        broken = [finding for finding in export(path) if finding.level == FAIL]
        if broken:
            do = CORRECT if broken[0].name == "export" else broken[0].do
            return Judgement(str(path), EXPORT, REFUSED, broken[0].said, do)
        # a folder that is called demo is meant, and not the embedded policy
        policy = load(settings_from({**robot, "export_dir": f"{path}/", "device": "cpu"}), Metrics()).policy
    except ConfigurationError as error:
        return Judgement(str(path), EXPORT, REFUSED, str(error), CORRECT)
    return _loaded(path, policy)


def _loaded(path: Path, policy: Policy) -> Judgement:
    from reflex_core.export.earlier import changes

    export, notes = policy.export, list(changes(policy.export, policy.contract))
    if export.weights_hash != export.model_hash:
        notes.append(
            f"model_hash is {export.model_hash}; the first version, which hashed only the weights, recorded"
            f" {export.weights_hash}"
        )
    if policy.binding.embodiment is None:
        notes.append("judged without an embodiment: name one with --embodiment or --custom-embodiment-config")
    to_do = list(_to_do(policy))
    if not to_do:
        return Judgement(str(path), EXPORT, READ, f"{export.model_version} loads", notes=tuple(notes))
    message = "; ".join(why for why, _ in to_do)
    return Judgement(str(path), EXPORT, COMMAND, message, "; ".join(do for _, do in to_do), tuple(notes))


def _to_do(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield (what is no longer valid, the command that fixes it)."""
    from reflex_core.doctor.parity import parity

    export, where = policy.export, quote(str(policy.export.path))
    for key, command in (("adaptive", "calibrate-adaptive"), ("prefix_cache", "calibrate-prefix")):
        block = export.config.get(key)
        measured = block.get("measured") if isinstance(block, dict) else None
        of = measured.get("model_hash") if isinstance(measured, dict) else None
        if of not in (None, export.model_hash):
            yield (
                f"its threshold '{key}' {export.why_stale(str(of))}",
                f"reflex {command} {where} --observations FOLDER --write",
            )
    compared = parity(policy)
    if compared.level == FAIL:
        yield (
            compared.said,
            f"reflex manifest {where} --force, once its answers are those of the training library",
        )
