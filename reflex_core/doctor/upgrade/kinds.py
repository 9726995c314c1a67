# SPDX-License-Identifier: Apache-2.0
"""Detect the kind of a file by its content: names are unreliable after years of copying.

Nothing is trusted yet. The reader of each kind checks everything again; here only a bounded part is read.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from reflex_core.export.export import CONFIG_NAME, TETHER_NAME, config_path
from reflex_core.files.json_fields import MOST_BYTES, JsonError, read_bounded
from reflex_core.files.regular_file import unreadable
from reflex_core.records.audit.chain import audit_files
from reflex_core.settings.table import TABLE

PARAMETERS, EMBODIMENT, SAFETY, EXPORT = "parameter file", "embodiment", "safety configuration", "export"
TRACE, BAG, AUDIT, CALIBRATION = "trace", "bag", "audit log", "calibration"
HEAD, OBSERVATION, FOLDER, UNKNOWN = "correction head", "observation", "folder", ""

_MCAP, _SQLITE3, _ZIP, _GZIP = b"\x89MCAP0\r\n", b"SQLite format 3\x00", b"PK\x03\x04", b"\x1f\x8b"
_BEGIN_BYTES = 1 << 20
MOST_FILES = 10_000  # that are judged in one folder
_HEAD_ARRAYS = {"action_dim", "hidden_dim", "num_hidden_layers", "w0", "b0"}
_PARITY_ARRAYS = {"instruction", "tolerance"}
_LIMITS = {"position_min", "position_max", "velocity_max", "acceleration_max", "workspace_min", "max_consecutive_clamps"}  # fmt: skip
_DESCRIPTION = {"export_kind", "model_type", "num_denoising_steps", "graphs", "decomposed", "model_id"}


@dataclass(frozen=True, slots=True)
class Found:
    """kind: one of those above. path: what is judged, the folder where a file is a part of it.

    why: of UNKNOWN. damaged: it may well have been a file of this program, so that it is not passed over in a folder.
    """

    kind: str
    path: Path
    why: str = ""
    damaged: bool = False


def found(path: Path) -> Found:
    """Return what a file or directory is. Reads at most 16 MiB of it, and opens nothing but regular files."""
    if path.is_dir():
        return Found(_of_directory(path), path)
    if why := unreadable(path):
        message = why if why == "not there" else f"must be a regular file, it is {why}"
        return Found(UNKNOWN, path, message, damaged=True)
    try:
        return _of_file(path)
    except OSError as error:
        return Found(UNKNOWN, path, f"cannot be read: {error.strerror or error}", damaged=True)


def _of_directory(path: Path) -> str:
    try:
        if config_path(path).exists():
            return EXPORT
        if _is_bag(path):
            return BAG
        if any(_is_audit(_begin(file)) for file in audit_files(path)[:1] if not unreadable(file)):
            return AUDIT
    except OSError:
        return FOLDER  # what is in it is judged one by one, and says why it cannot be read
    return FOLDER


def _is_bag(path: Path) -> bool:
    """Return whether a directory holds recordings and their metadata; one that was cut off holds nothing but recordings."""
    files = [entry for entry in entries(path) if not unreadable(entry)]
    recordings = [file for file in files if _begin(file, 64).startswith((_MCAP, _SQLITE3))]
    return bool(recordings) and (len(recordings) == len(files) or (path / "metadata.yaml").is_file())


def bag_suffix(path: Path) -> str:
    """Return the ending that the file of a bag should have, by its content."""
    return ".mcap" if _begin(path, 64).startswith(_MCAP) else ".db3"


def entries(path: Path) -> list[Path]:
    """Return the entries of a directory by name, without hidden ones; at most MOST_FILES + 1 of them."""
    visible = (entry for entry in path.iterdir() if not entry.name.startswith("."))
    return sorted(islice(visible, MOST_FILES + 1))


def _of_file(path: Path) -> Found:
    begin = _begin(path)
    if begin.startswith((_MCAP, _SQLITE3)):
        return Found(BAG, path)
    if begin.startswith(_ZIP):
        return _of_arrays(path)
    text = _unpacked(begin) if begin.startswith(_GZIP) else begin
    if _is_trace(text):
        return Found(TRACE, path)
    if _is_audit(text):
        return Found(AUDIT, path)
    try:
        whole = read_bounded(path, MOST_BYTES).decode("utf-8")
    except (JsonError, UnicodeDecodeError):
        return Found(UNKNOWN, path, "is not a file that reflex reads or writes")
    return _of_json(path, whole) if whole.lstrip()[:1] == "{" else _of_text(path, whole)


def _of_json(path: Path, text: str) -> Found:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _is_parameters(text):  # YAML may begin with a brace too
            return Found(PARAMETERS, path)
        return Found(UNKNOWN, path, f"is not valid JSON: {error}", damaged=True)
    keys = set(document)
    if {"hardware_fingerprint", "calibration_date"} & keys:
        return Found(CALIBRATION, path)
    if isinstance(document.get("action_space"), dict) or {"embodiment", "cameras"} <= keys:
        return Found(EMBODIMENT, path)
    if _LIMITS & keys:
        return Found(SAFETY, path)
    if _DESCRIPTION & keys or isinstance(document.get("steps"), list):
        return _part_of_export(path)
    if "instruction" in keys and {"images", "state"} & keys:
        return Found(OBSERVATION, path)
    if _is_parameters(text):
        return Found(PARAMETERS, path)
    return Found(UNKNOWN, path, "is JSON of an unknown kind")


def _of_text(path: Path, text: str) -> Found:
    if "rosbag2_bagfile_information" in text:
        return Found(BAG, path.parent)
    if text.startswith("# Verification of "):
        return _part_of_export(path)
    if _is_parameters(text):
        return Found(PARAMETERS, path)
    return Found(UNKNOWN, path, "is not a file that reflex reads or writes")


def _is_parameters(text: str) -> bool:
    from reflex_core.settings.parameter_file import (
        resembles,  # only here: the doctor runs where there is no yaml
    )

    return resembles(text, {row.name for row in TABLE})


def _of_arrays(path: Path) -> Found:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        return Found(UNKNOWN, path, f"is not a valid .npz file: {error}", damaged=True)
    if sum(sizes.values()) > 1 << 30:
        message = "unpacks to more than 1 GiB, more than any file of reflex"
        return Found(UNKNOWN, path, message, damaged=True)
    if sizes.keys() >= _HEAD_ARRAYS:
        return Found(HEAD, path)
    if sizes.keys() >= _PARITY_ARRAYS:
        return _part_of_export(path)
    return Found(UNKNOWN, path, "holds arrays of an unknown kind")


def _part_of_export(path: Path) -> Found:
    if config_path(path.parent).exists():
        return Found(EXPORT, path.parent)
    names = f"{CONFIG_NAME} or {TETHER_NAME}"
    return Found(UNKNOWN, path, f"is a part of an export, and there is no {names} beside it", damaged=True)


def _begin(path: Path, most: int = _BEGIN_BYTES) -> bytes:
    with path.open("rb") as stream:
        return stream.read(most)


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data, _BEGIN_BYTES)
    except zlib.error:
        return b""


def _is_trace(data: bytes) -> bool:
    line = _first(data)
    return line.get("kind") == "header" and "schema_version" in line


def _is_audit(data: bytes) -> bool:
    return {"seq", "prev", "hash"} <= set(_first(data))


def _first(data: bytes) -> Mapping[str, Any]:
    """Return the first line as an object, {} where it is none."""
    try:
        document = json.loads(data.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def files_below(path: Path, depth: int = 4) -> Iterator[Path]:
    """Yield what there is to judge in a folder: files, and directories that are something as a whole.

    Links to other folders are not followed: a few that lead back would make millions of paths.
    """
    for entry in entries(path):
        if entry.is_dir() and _of_directory(entry) == FOLDER:
            if depth > 0 and not entry.is_symlink():
                yield from files_below(entry, depth - 1)
        else:
            yield entry
