# SPDX-License-Identifier: Apache-2.0
"""Parse .msg files far enough to compare them with the compiled messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_GENERATED = {"float32": "float", "float64": "double", "bool": "boolean", "byte": "octet", "char": "uint8"}
_LINE = re.compile(r"^(?P<type>[\w/]+)(?P<array>\[[^]]*\])?\s+(?P<name>\w+)\s*(?P<constant>=)?")


def differences(folder: Path, built: Any) -> list[str]:
    """Return one sentence per message of `folder` that module `built` lacks or has with other fields.

    Raises:
        ValueError: A file cannot be parsed.
        OSError: A file cannot be read.
    """
    files = sorted(folder.glob("*.msg"))
    if not files:
        raise ValueError(f"{folder} holds no .msg file")
    problems = []
    for file in files:
        message = getattr(built, file.stem, None)
        if message is None:
            problems.append(f"{file.stem} is not compiled")
            continue
        written, compiled = fields(file), dict(message.get_fields_and_field_types())
        if written == compiled:
            continue
        other = sorted(
            name for name in written.keys() | compiled.keys() if written.get(name) != compiled.get(name)
        )
        problems.append(f"{file.stem} differs in {', '.join(other) or 'the order of its fields'}")
    return problems


def fields(file: Path) -> dict[str, str]:
    """Return field types by name, as rosidl's Python messages spell them; constants left out. Raises ValueError."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        match = _LINE.match(text)
        if match is None:
            raise ValueError(f"{file}: cannot read {text!r}")
        if match["constant"]:
            continue
        kind = match["type"].replace("/msg/", "/")
        kind = _GENERATED.get(kind, kind)
        size = (match["array"] or "")[1:-1]
        if size.isdecimal():
            kind = f"{kind}[{size}]"
        elif match["array"]:
            kind = f"sequence<{kind}{', ' + size[2:] if size else ''}>"
        found[match["name"]] = kind
    return found
