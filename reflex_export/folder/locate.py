# SPDX-License-Identifier: Apache-2.0
"""Find the folder of a checkpoint: the one that is named, below the one that is named, or on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

from reflex_core.errors import ExportError
from reflex_core.export.export import CONFIG_NAME
from reflex_core.files.json_fields import JsonError, read_object
from reflex_core.text.untrusted import escaped
from reflex_export.folder.refused_types import check_type

POLICY_CONFIG, WEIGHTS = "config.json", "model.safetensors"
ADAPTER = "adapter_config.json"
TRAINING_FOLDER = "pretrained_model"
# `last` is a link that LeRobot keeps; steps are numbers with leading zeros, so that the last one sorts last
_BELOW = (
    TRAINING_FOLDER,
    f"last/{TRAINING_FOLDER}",
    f"checkpoints/last/{TRAINING_FOLDER}",
    f"checkpoints/*/{TRAINING_FOLDER}",
    f"*/{TRAINING_FOLDER}",
    "snapshots/*",
)
_HUB_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-]+))?")
_DESCRIPTION = ("*.json", "*processor*.safetensors")


@dataclass(frozen=True, slots=True)
class Located:
    """A checkpoint's folder, what to call its policy, and notes on how it was found."""

    folder: Path
    name: str
    notes: tuple[str, ...] = ()


def locate(named: str) -> Located:
    """Return where a checkpoint is. Raises ExportError for what is none."""
    path = Path(named)
    if path.is_dir():
        return _folder(path)
    if path.name in (POLICY_CONFIG, WEIGHTS) and path.is_file():
        return _folder(path.parent)
    if path.exists():
        raise ExportError(
            f"{path}: is a file: name the folder of a LeRobot checkpoint, which holds {POLICY_CONFIG} and {WEIGHTS}",
            "no-checkpoint",
        )
    if (hub := _HUB_NAME.fullmatch(named)) and not path.parent.is_dir():
        return _downloaded(named, hub["name"], hub["revision"])
    raise ExportError(f"{path}: there is no such folder", "no-checkpoint")


def policy_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint. Raises ExportError where it cannot be read."""
    file = folder / POLICY_CONFIG
    try:
        return read_object(file)
    except JsonError as error:
        raise ExportError(f"{file}: {error}") from error
    except OSError as error:
        raise ExportError(f"{file}: cannot be read: {error.strerror or error}") from error


def _name(folder: Path) -> str:
    """Return what to call the policy of a folder: for a training run's, the run and the step."""
    path = folder.absolute()
    if path.name != TRAINING_FOLDER:
        return path.name
    step = path.parent.name
    return f"{path.parents[2].name}_{step}" if path.parents[1].name == "checkpoints" else step


def _folder(path: Path) -> Located:
    if (path / ADAPTER).is_file():
        raise _adapter(path)
    if (path / POLICY_CONFIG).is_file():
        return Located(path, _name(path))
    if (path / CONFIG_NAME).is_file():
        raise ExportError(
            f"{path}: is an export already: serve it with `reflex serve {path}`", "no-checkpoint"
        )
    for pattern in _BELOW:
        for below in sorted(path.glob(pattern), reverse=True):
            if (below / ADAPTER).is_file():
                raise _adapter(below)
            if (below / POLICY_CONFIG).is_file():
                return Located(
                    below, _name(below), (f"{path} is not the checkpoint itself: {below} in it is taken",)
                )
    if (path / "meta" / "info.json").is_file():
        raise ExportError(
            f"{path}: is a LeRobot data set and no checkpoint: name the checkpoint, and this with --dataset",
            "no-checkpoint",
        )
    raise ExportError(
        f"{path}: is no LeRobot checkpoint: it holds no {POLICY_CONFIG}, and no {TRAINING_FOLDER}/ below it does",
        "no-checkpoint",
    )


def _adapter(folder: Path) -> ExportError:
    """Return the refusal of a LoRA folder: it holds differences to weights that are elsewhere."""
    try:
        base = read_object(folder / ADAPTER).get("base_model_name_or_path")
    except (JsonError, OSError):
        base = None
    of = f" to {escaped(base, 120)}" if isinstance(base, str) and base else ""
    return ExportError(
        f"{folder}: holds an adapter (PEFT, LoRA){of}, and not the policy: merge it into its base policy"
        " (`PeftModel.merge_and_unload`), save that with save_pretrained, and export the result",
        "adapter",
    )


def _downloaded(named: str, name: str, revision: str | None) -> Located:
    """Fetch a checkpoint of the hub: its description first, so that one that cannot be exported costs no download."""
    if find_spec("huggingface_hub") is None:
        raise ExportError(
            f"{named}: no such folder; if it is the name of a model on the Hugging Face hub: pip install huggingface_hub,"
            " or download it and name its folder",
            "no-checkpoint",
        )
    folder = _snapshot(named, name, revision, _DESCRIPTION)
    if (folder / ADAPTER).is_file():
        raise _adapter(folder)
    if not (folder / POLICY_CONFIG).is_file():
        raise ExportError(
            f"{named}: the model of this name on the hub has no {POLICY_CONFIG}", "no-checkpoint"
        )
    check_type(folder / POLICY_CONFIG, policy_config(folder).get("type"))
    folder = _snapshot(named, name, revision, (*_DESCRIPTION, WEIGHTS))
    note = f"{named} was fetched from the Hugging Face hub to {folder}"
    return Located(folder, name.rpartition("/")[2], (note,))


def _snapshot(named: str, name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # of the network, of the hub, of its cache: many kinds of several libraries
        raise ExportError(
            f"{named}: no such folder, and the Hugging Face hub does not give it:"
            f" {escaped(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 200)}",
            "no-checkpoint",
        ) from error


def is_hub_name(name: object) -> TypeGuard[str]:
    """Return whether this is the name of a model on the Hugging Face hub, with or without its owner's revision."""
    return isinstance(name, str) and _HUB_NAME.fullmatch(name) is not None


def hub_snapshots(name: object) -> list[Path]:
    """Return what the cache of the Hugging Face hub has of a model, the newest first; nothing where it was never fetched."""
    if not is_hub_name(name):
        return []
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or user / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    found = [path for path in cache.glob(f"models--{name.replace('/', '--')}/snapshots/*") if path.is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
