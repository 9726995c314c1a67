# SPDX-License-Identifier: Apache-2.0
"""Read a LeRobot checkpoint, or say in one sentence why it cannot be exported: within two seconds, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.processors import (
    PADDED_STATE,
    PREPROCESSOR,
    STATE,
    Processors,
    read_processors,
)
from reflex_core.export.read_normalization import read_normalization
from reflex_core.files.json_fields import read_object
from reflex_core.text.untrusted import shown
from reflex_export.checkpoint import Checkpoint, DatasetInfo
from reflex_export.families.table import check_options
from reflex_export.folder.dataset_info import read_dataset
from reflex_export.folder.features import Features, read_features
from reflex_export.folder.language_files import WORDS, check_vocabulary, find_tokenizer, find_vlm
from reflex_export.folder.locate import ADAPTER, POLICY_CONFIG, WEIGHTS, locate, policy_config
from reflex_export.folder.old_layout import convert, is_old
from reflex_export.folder.policy_rules import check_settings, read_rows
from reflex_export.folder.refused_types import check_type
from reflex_export.folder.robot_facts import robot_facts
from reflex_export.folder.setting_types import check_types
from reflex_export.folder.statistics import check_statistics
from reflex_export.folder.weights import read_weights
from reflex_export.options import ExportOptions

NO_PIPELINES = "pipelines-missing"
_STATE_FILE = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors", re.ASCII)


def read_checkpoint(named: str, options: ExportOptions, work: Path) -> Checkpoint:
    """Return the checkpoint that a user names: its folder, a training run's, or a name on the Hugging Face hub.

    work: an empty folder, where one of LeRobot 0.3 is converted to. Raises ConfigurationError with one sentence for
    every reason why it cannot be exported.
    """
    located = locate(named)
    folder = located.folder
    config = policy_config(folder)
    file = folder / POLICY_CONFIG
    family = check_type(file, config.get("type"))
    check_options(family, options)
    if config.get("use_peft") is True:
        raise ExportError(
            f"{file}: 'use_peft' is true and there is no {ADAPTER} beside it: it holds only the differences to a base policy:"
            " merge them into it and save that",
            "adapter",
        )
    weights = read_weights(folder / WEIGHTS)
    old = is_old(folder, weights)
    if old:
        read_features(file, config, {})  # refuses before anything is written
        folder = convert(folder, family, config, work)
    processors = _pipelines(folder, config)
    version = "0.3" if old else _version(folder, family)
    features = read_features(file, config, processors.rename)
    check_types(file, family, config, features)
    rows = read_rows(file, family, config)
    settings = check_settings(file, family, config, features)
    normalization = read_normalization(folder, {}, str(file), processors)
    check_statistics(folder, processors, normalization, features)
    dataset = read_dataset(options.dataset) if options.dataset is not None else None
    robot = robot_facts(options, config, features, processors, dataset)
    if rows.observations > 1 and robot.frequency_hz is None:
        raise ExportError(
            f"{file}: the policy sees {rows.observations} observations one control period apart, and no checkpoint holds that"
            " period: say --dataset DIR or --fps HZ",
            "rate-missing",
        )
    data_notes = tuple(_check_dataset(dataset, features)) if dataset is not None else ()
    tokenizer = find_tokenizer(folder, options.tokenizer) if family in WORDS else None
    if tokenizer is not None:
        check_vocabulary(tokenizer, weights)
    return Checkpoint(
        name=located.name,
        folder=folder,
        family=family,
        config=config,
        version=version,
        processors=processors,
        normalization=normalization,
        cameras=features.cameras,
        state_dim=features.state_dim,
        action_dim=features.action_dim,
        horizon=rows.horizon,
        n_action_steps=rows.executed,
        observation_steps=rows.observations,
        weights=weights,
        robot=robot,
        tokenizer=tokenizer,
        vlm=find_vlm(config, folder, options.vlm) if family == "smolvla" else None,
        dataset=dataset,
        notes=(*located.notes, *_version_notes(version), *features.notes, *settings, *data_notes),
    )


def _pipelines(folder: Path, config: Mapping[str, Any]) -> Processors:
    """Read both pipelines, which LeRobot 0.4 and newer save beside the weights."""
    processors = read_processors(folder, _padded_state(config))
    if processors is None:
        raise ExportError(
            f"{folder / PREPROCESSOR}: missing, and there are no statistics among the weights either: copy it from where LeRobot"
            " saved the policy, with the files that it names",
            NO_PIPELINES,
        )
    for state_file in processors.files:
        if not _STATE_FILE.fullmatch(state_file.name):
            raise ExportError(
                f"{folder}: a state file of its pipelines must be called as LeRobot calls it, NAME.safetensors of letters, digits,"
                f" '_', '-' and '.', got {shown(state_file.name)}: under another name it could take the place of a file of the"
                " export",
                "bad-state-file",
            )
    return processors


def _version(folder: Path, family: str) -> str:
    """Return LeRobot's version, which no file names, by the steps of the pipeline."""
    steps = read_object(folder / PREPROCESSOR)["steps"]
    listed = {step.get("registry_name") for step in steps}
    if "delta_actions_processor" in listed:
        return "0.5"
    if "relative_actions_processor" in listed:
        return "0.6"
    return "0.4" if family in ("pi0", "pi05") else "0.4 to 0.6"


def _version_notes(version: str) -> Iterator[str]:
    if version == "0.3":
        yield "it was saved by LeRobot 0.3 or older; its statistics were taken out of its weights, as 0.4 and newer have them"


def _padded_state(config: Mapping[str, Any]) -> int:
    declared = config.get("max_state_dim")
    return declared if isinstance(declared, int) and 0 < declared <= 1024 else PADDED_STATE


def _check_dataset(dataset: DatasetInfo, features: Features) -> Iterator[str]:
    """Yield notes on a data set. Raises ExportError where it is not of the policy's robot."""
    for name, dim in (("action", features.action_dim), (STATE, features.state_dim)):
        shape = dataset.shapes.get(name)
        if dim and shape is not None and shape != (dim,):
            raise ExportError(
                f"{dataset.file}: its {name} has shape {list(shape)}, and the policy's has {dim} numbers: it is the data set of"
                " another robot",
                "dataset-mismatch",
            )
    lacks = [
        camera.observation
        for camera in features.cameras
        if not camera.empty and camera.observation not in dataset.shapes
    ]
    if lacks:
        yield f"{dataset.file} lists no {', '.join(lacks)}, which the policy reads: it may be another data set than the policy's"
