# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml says of the distribution."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from repository import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there


def read(path: Path) -> dict[str, Any]:
    """Every table of such a file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    """The table [project]."""
    table: dict[str, Any] = read(ROOT / "pyproject.toml")["project"]
    return table


def requirements(*extras: str) -> dict[str, Requirement]:
    """What pip installs with these extras, and with those that they name, by name."""
    lines = list(project()["dependencies"])
    for extra in extras:
        lines += project()["optional-dependencies"][extra]
    found = {each.name: each for each in map(Requirement, lines)}
    own = found.pop("reflex_ros", None)
    return found if own is None else found | requirements(*own.extras)
