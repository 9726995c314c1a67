# SPDX-License-Identifier: Apache-2.0
"""Recognise what users mistake for an export: a training library's checkpoint, a name on a hub, one file of many.

Only names are read, and the few JSON files in which a library describes a folder. Sources of the layouts: the
folders that LeRobot, PEFT, transformers, huggingface_hub and openpi write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reflex_core.files.json_fields import JsonError, read_bounded, read_object
from reflex_core.files.share import EMBEDDED
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import escaped, shown

NOT_AN_EXPORT = "not-an-export"  # the slug of what is recognised
CONFIG_NAMES = ("reflex_config.json", "tether_config.json")
EXPORT_FIRST = (
    "export it to ONNX with the tools it was trained with, and name the folder that holds the graphs and their"
    " reflex_config.json (docs/reference/exports.md)"
)
# of LeRobot, whose folders and names on a hub are what `reflex export` takes
LEROBOT_FIRST = (
    "make an export of it with `reflex export`, which takes this name (docs/how-to/export-a-checkpoint.md), and name the folder"
    " that it writes"
)
# of the exports of other programs that `reflex import` reads
IMPORT_FIRST = "make an export of it with `reflex import FOLDER OUT` (docs/how-to/import-an-export.md), and name the folder that it writes"
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
WEIGHTS = {".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".npz", ".gguf", ".msgpack", ".h5"}
ENGINES = {".engine", ".plan", ".trt"}
MOST_ENTRIES = 1000  # of a folder are looked at
_LEAPP_SECTIONS, _MOST_YAML_BYTES = (b"models", b"pipeline", b"system information"), 1 << 20
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/")


def lookalike(path: Path) -> str:
    """Return a clause on what a path is that is no export, and what to do; empty where it looks like nothing known.

    To be put behind the path: `<path>: is ...`. Raises nothing.
    """
    try:
        if path.is_dir():
            return _folder(path)
        return _file(path) if path.is_file() else _absent(path)
    except OSError:  # no right to look, a link in a circle
        return ""


def _absent(path: Path) -> str:
    text = str(path)
    if _ADDRESS.match(text):
        return f"is an address, and nothing is fetched: download it; if it is a checkpoint, {EXPORT_FIRST}"
    if _HUB_NAME.fullmatch(text) and not path.parent.is_dir():
        return (
            "no such export directory; if it is the name of a model on the Hugging Face hub: nothing is fetched, and"
            f" models there are checkpoints of a training library; if it is one of LeRobot, {LEROBOT_FIRST}; else download it,"
            f" {EXPORT_FIRST}"
        )
    if meant := nearest(text, EMBEDDED):
        return f"no such export directory; did you mean {meant}, an embedded policy?"
    return ""


def _file(path: Path) -> str:
    folder, suffix = path.parent, path.suffix.lower()
    if path.name in CONFIG_NAMES:
        return f"is the description of an export: name its folder, {folder}"
    if suffix == ".onnx":
        if _describes_itself(folder):
            return f"is one graph of an export: name its folder, {folder}"
        return (
            "is one ONNX graph: name the folder that holds it and a reflex_config.json, which says what the graph takes"
            " (docs/reference/exports.md)"
        )
    if suffix in ARCHIVES or _is_zip(path):
        return "is an archive: unpack it, and name the folder that holds its reflex_config.json"
    if suffix in ENGINES:
        return "is an engine for one machine's GPU: name the folder of the ONNX export, and take --device tensorrt"
    if suffix in WEIGHTS or path.name == "config.json":
        if found := _checkpoint(folder):
            return f"is a file of {found} and not an ONNX export: {_first(found)}"
        if suffix in WEIGHTS:
            return f"holds weights, and not the network that they are for: {EXPORT_FIRST}"
    return "is a file: name the folder of an ONNX export, which holds a reflex_config.json (docs/reference/exports.md)"


def _folder(path: Path) -> str:
    entries = [entry for entry, _ in zip(path.iterdir(), range(MOST_ENTRIES), strict=False)]
    if inside := sorted(entry for entry in entries if entry.is_dir() and _describes_itself(entry)):
        return f"holds no reflex_config.json, but {_listed(inside)} in it does: name that folder"
    if found := _importable(path):
        return f"is {found} and has no reflex_config.json: {IMPORT_FIRST}"
    if graphs := sorted(entry for entry in entries if entry.suffix == ".onnx"):
        return (
            f"its reflex_config.json is missing, which says what the ONNX graphs in it ({_listed(graphs)}) take: copy it"
            " too, or write one (docs/reference/exports.md)"
        )
    if found := _checkpoint(path):
        return f"is {found} and not an ONNX export: {_first(found)}"
    if below := _checkpoints_below(path):
        found = _checkpoint(below) or "a checkpoint"
        return f"holds {found}, in {below}, and no ONNX export: {_first(found)}"
    if (path / "meta" / "info.json").is_file():
        return (
            "is a LeRobot data set, which holds recordings and no policy: name the folder of an ONNX export"
        )
    if archives := sorted(entry for entry in entries if entry.suffix.lower() in ARCHIVES):
        return f"holds an archive ({_listed(archives)}) and no reflex_config.json: unpack it, and name its folder"
    if weights := sorted(entry for entry in entries if entry.suffix.lower() in WEIGHTS):
        return f"holds weights ({_listed(weights)}), and not the network that they are for: {EXPORT_FIRST}"
    return ""


def _describes_itself(folder: Path) -> bool:
    return any((folder / name).is_file() for name in CONFIG_NAMES)


def _importable(folder: Path) -> str:
    """Return what another program's export in a folder is, with its article; empty where there is none that can be imported."""
    if _json(folder / "manifest.json").get("format") == "policy_package":
        return "a policy_package (LeRobot, physicalai)"
    return "a LEAPP bundle (Isaac Lab)" if leapp_description(folder) is not None else ""


def leapp_description(folder: Path) -> Path | None:
    """Return the YAML file that describes a LEAPP bundle, by the sections that begin in it; None where there is none."""
    for file in sorted(folder.glob("*.yaml"))[:MOST_ENTRIES]:
        try:
            text = read_bounded(file, _MOST_YAML_BYTES)
        except (OSError, JsonError):
            continue
        if all(re.search(rb"^" + section + rb":", text, re.MULTILINE) for section in _LEAPP_SECTIONS):
            return file
    return None


def _checkpoint(folder: Path) -> str:
    """Return what a training library wrote into a folder, with its article; empty where none did."""
    if (folder / "adapter_config.json").is_file():
        base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
        of = f" of {shown(base)}" if isinstance(base, str) and base else ""
        return f"an adapter (PEFT, LoRA){of}, to be merged into its base policy first,"
    config = _json(folder / "config.json")
    kind, model_type = config.get("type"), config.get("model_type")
    lerobot = any((folder / name).is_file() for name in ("policy_preprocessor.json", "train_config.json"))
    if isinstance(kind, str) or lerobot:
        return f"a LeRobot checkpoint{_of_kind(kind)}"
    if isinstance(model_type, str) or "architectures" in config:
        return f"a checkpoint of the transformers library{_of_kind(model_type)}"
    if (folder / "params").is_dir() and any(
        (folder / name).exists() for name in ("assets", "_CHECKPOINT_METADATA")
    ):
        return "an openpi checkpoint"
    return ""


def _first(found: str) -> str:
    """Return what has to be done to a checkpoint of one library before it can be served."""
    return LEROBOT_FIRST if found.startswith("a LeRobot checkpoint") else EXPORT_FIRST


def _of_kind(kind: object) -> str:
    return f" (type {shown(kind)})" if isinstance(kind, str) else ""


def _checkpoints_below(path: Path) -> Path | None:
    """Return the newest checkpoint of a training run, or the content of a hub's cache."""
    found = (each for pattern in _PLACES for each in _matching(path, pattern))
    return next((each for each in found if each.is_dir()), None)


# `last` is a link that LeRobot keeps; steps are numbers with leading zeros
_PLACES = (
    "pretrained_model",
    "last/pretrained_model",
    "checkpoints/last/pretrained_model",
    "checkpoints/*/pretrained_model",
    "*/pretrained_model",
    "snapshots/*",
)


def _matching(path: Path, pattern: str) -> Iterator[Path]:
    yield from sorted(path.glob(pattern), reverse=True)


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON object of another program; empty where there is none that can be read."""
    try:
        return read_object(path)
    except (OSError, JsonError):
        return {}


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:  # a regular file, as its caller has seen
        return stream.read(4) == b"PK\x03\x04"


def _listed(paths: list[Path]) -> str:
    names = [escaped(path.name) for path in paths[:3]]
    return ", ".join([*names, *(["..."] if len(paths) > 3 else [])])
