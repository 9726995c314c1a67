# SPDX-License-Identifier: Apache-2.0
"""The YAML file of a LEAPP bundle as plain values: bounded, without aliases, tags of objects, and names that are there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonError, read_bounded
from reflex_core.text.untrusted import escaped, shown
from reflex_export.importing.description_of import REFUSED

MOST_BYTES = 1 << 20  # the largest bundle of a humanoid has 20 kB
MOST_DEPTH = 32
_OPEN = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSE = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a name that is there twice; the last one would win without a word."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = loader.construct_object(key, deep=True)  # type: ignore[no-untyped-call]
        if not isinstance(name, str) or name in found:
            what = "is there twice" if isinstance(name, str) else "is no text"
            raise yaml.constructor.ConstructorError(
                None, None, f"the name {shown(name)} {what}", key.start_mark
            )
        found[name] = loader.construct_object(value, deep=True)  # type: ignore[no-untyped-call]
    return found


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_leapp_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a file holds. Raises ExportError for what is none, is too large or deep, and for aliases and tags."""
    try:
        data = read_bounded(file, MOST_BYTES)
        _check_events(data, file)
        document = yaml.load(data, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ExportError(f"{file}: cannot be read: {error.strerror or error}", REFUSED) from error
    except JsonError as error:
        raise ExportError(f"{file}: {error}", REFUSED) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ExportError(f"{file}: not readable as YAML: {_why(error)}", REFUSED) from error
    if not isinstance(document, dict):
        raise ExportError(f"{file}: must hold a mapping, got {type(document).__name__}", REFUSED)
    return document


def _check_events(data: bytes, file: Path) -> None:
    """Raise ExportError before anything is built: an alias may stand for gigabytes, and depth costs a stack."""
    depth = 0
    for event in yaml.parse(data, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ExportError(
                f"{file}: YAML aliases are not read: write the value out",
                REFUSED,
            )
        depth += isinstance(event, _OPEN) - isinstance(event, _CLOSE)
        if depth > MOST_DEPTH:
            raise ExportError(f"{file}: is nested deeper than {MOST_DEPTH} levels", REFUSED)


def _why(error: Exception) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark is not None else ""
    return line + escaped(str(problem or error), 200)
