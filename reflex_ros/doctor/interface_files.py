# SPDX-License-Identifier: Apache-2.0
"""Parse .msg, .srv and .action files far enough to compare them with what is compiled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

# parts of an interface, as files separate them by lines of ---, and what its class calls them
PARTS = {"msg": ("",), "srv": ("Request", "Response"), "action": ("Goal", "Result", "Feedback")}
PACKAGE = "reflex_ros"

_GENERATED = {"float32": "float", "float64": "double", "bool": "boolean", "byte": "octet", "char": "uint8"}
_LINE = re.compile(r"^(?P<type>[\w/]+)(?P<array>\[[^]]*\])?\s+(?P<name>\w+)\s*(?P<constant>=)?")
_SEPARATOR = "---"


def differences(root: Path, built: Mapping[str, Any]) -> list[str]:
    """Return one sentence per interface below `root` that is not compiled or has other fields.

    Args:
        root: The folder with `msg/`, `srv/` and `action/`.
        built: The compiled modules by the names of those folders.

    Raises:
        ValueError: A folder has no files, or a file cannot be parsed.
        OSError: A file cannot be read.
    """
    problems = []
    for kind, parts in PARTS.items():
        files = sorted((root / kind).glob(f"*.{kind}"))
        if not files:
            raise ValueError(f"{root / kind} holds no .{kind} file")
        for file in files:
            problems += _problems(file, getattr(built[kind], file.stem, None), parts)
    return problems


def _problems(file: Path, compiled: Any, parts: tuple[str, ...]) -> list[str]:
    """Return what is wrong with one compiled interface: nothing, or one sentence."""
    if compiled is None:
        return [f"{file.stem} is not compiled"]
    written = fields(file)
    if len(written) != len(parts):
        raise ValueError(f"{file}: expected {len(parts)} parts divided by {_SEPARATOR}, got {len(written)}")
    for part, expected in zip(parts, written, strict=True):
        has = dict((getattr(compiled, part) if part else compiled).get_fields_and_field_types())
        if expected != has:
            names = sorted(
                name for name in expected.keys() | has.keys() if expected.get(name) != has.get(name)
            )
            return [f"{file.stem} differs in {', '.join(names) or 'the order of its fields'}"]
    return []


def fields(file: Path) -> list[dict[str, str]]:
    """Return field types by name of each part, as rosidl spells them; constants left out. Raises ValueError."""
    lines = [line.split("#", 1)[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    borders = [-1, *(number for number, line in enumerate(lines) if line == _SEPARATOR), len(lines)]
    return [_fields(file, lines[first + 1 : last]) for first, last in pairwise(borders)]


def _fields(file: Path, lines: list[str]) -> dict[str, str]:
    found = {}
    for text in filter(None, lines):
        match = _LINE.match(text)
        if match is None:
            raise ValueError(f"{file}: cannot read {text!r}")
        if match["constant"]:
            continue
        kind = match["type"].replace("/msg/", "/")
        kind = _GENERATED.get(kind, kind)
        if "/" not in kind and kind[0].isupper():
            kind = f"{PACKAGE}/{kind}"
        size = (match["array"] or "")[1:-1]
        if size.isdecimal():
            kind = f"{kind}[{size}]"
        elif match["array"]:
            kind = f"sequence<{kind}{', ' + size[2:] if size else ''}>"
        found[match["name"]] = kind
    return found
