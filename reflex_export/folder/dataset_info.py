# SPDX-License-Identifier: Apache-2.0
"""Read meta/info.json of a LeRobot data set (v2.1, v3.0): names, control rate and kind of robot, which no checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.processors import ACTION, STATE
from reflex_core.files.json_fields import JsonError, JsonFields, is_whole, read_object, refusing
from reflex_core.text.untrusted import escaped, is_name
from reflex_export.checkpoint import DatasetInfo

INFO = Path("meta") / "info.json"
FASTEST_HZ = 1000.0


def read_dataset(path: Path) -> DatasetInfo:
    """Return what a data set says about its robot. path: its folder, or its info.json. Raises ExportError."""
    file = path / INFO if path.is_dir() else path
    try:
        document = read_object(file)
    except JsonError as error:
        raise ExportError(f"{file}: {error}", "bad-dataset") from error
    except OSError as error:
        raise ExportError(
            f"{file}: cannot be read: {error.strerror or error}: --dataset takes the folder of a LeRobot data set, or its"
            " meta/info.json",
            "bad-dataset",
        ) from error
    fields = JsonFields(document, refusing(str(file), lambda message: ExportError(message, "bad-dataset")))
    features = fields.fields("features")
    names = {key: _names(features.get(key)) for key in (ACTION, STATE)}
    folder = file.parent.parent if file.parent.name == INFO.parent.name else None
    return DatasetInfo(
        file=file,
        folder=folder,
        codebase_version=fields.text("codebase_version", ""),
        fps=fields.number("fps", 1e-3, FASTEST_HZ) if fields.get("fps") is not None else None,
        robot_type=escaped(str(fields.get("robot_type") or "")),
        shapes=MappingProxyType(dict(_shapes(features))),
        action_names=names[ACTION],
        state_names=names[STATE],
    )


def _shapes(features: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, entry in features.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if isinstance(shape, list) and all(is_whole(size, 0) for size in shape):
            yield name, tuple(shape)


def _names(entry: Any) -> tuple[str, ...]:
    """Return the names of a feature's numbers; () where it has none, or not one for each."""
    names = entry.get("names") if isinstance(entry, dict) else None
    if isinstance(names, dict) and len(names) == 1:  # {"motors": [...]} of older data sets
        names = next(iter(names.values()))
    if not isinstance(names, list) or not all(map(is_name, names)) or len(set(names)) != len(names):
        return ()
    return tuple(names) if entry.get("shape") == [len(names)] else ()
