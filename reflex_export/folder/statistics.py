# SPDX-License-Identifier: Apache-2.0
"""Check that every number which a pipeline says it normalises has statistics: LeRobot feeds the others as they are, in silence."""

from __future__ import annotations

from pathlib import Path

from reflex_core.errors import ExportError
from reflex_core.export.processors import ACTION, POSTPROCESSOR, PREPROCESSOR, STATE, Normalizer, Processors
from reflex_core.export.read_normalization import Normalization
from reflex_core.normalization.affine import IDENTITY
from reflex_export.folder.features import Features

MISSING, MISMATCH = "statistics-missing", "statistics-mismatch"


def check_statistics(
    folder: Path, processors: Processors, normalization: Normalization, features: Features
) -> None:
    """Raise ExportError where statistics are missing, or are of another number of dimensions."""
    before = processors.normalizer
    if processors.unnormalizer is None:
        raise ExportError(
            f"{folder / POSTPROCESSOR}: has no unnormalizer_processor, which says what actions are in the robot's units",
            MISSING,
        )
    if features.state_dim and _normalises(before, STATE, "STATE") and normalization.state is None:
        raise _missing(folder, STATE)
    for camera in features.cameras:
        wanted = (
            _normalises(before, camera.feature, "VISUAL") and not camera.empty and not processors.imagenet
        )
        if wanted and camera.feature not in normalization.pictures:
            raise _missing(folder, camera.feature)
    for name, statistics, dim in (
        (STATE, normalization.state, features.state_dim),
        (ACTION, normalization.action, features.action_dim),
    ):
        if statistics is not None and dim and statistics.dim != dim:
            raise ExportError(
                f"{folder}: its statistics of {name} have {statistics.dim} numbers, and its config.json says {dim}",
                MISMATCH,
            )


def _normalises(step: Normalizer | None, feature: str, kind: str) -> bool:
    return step is not None and step.mode(feature, kind) != IDENTITY


def _missing(folder: Path, feature: str) -> ExportError:
    return ExportError(
        f"{folder / PREPROCESSOR}: normalises {feature}, and its state file has no statistics of it: LeRobot would feed it as it"
        " is, without a word: save the policy with the statistics of its data set (make_pre_post_processors with dataset_stats)",
        MISSING,
    )
