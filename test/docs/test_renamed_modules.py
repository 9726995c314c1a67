# SPDX-License-Identifier: Apache-2.0
"""The table of Python names that moved: every new name exists, every old one is gone."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pkgutil import resolve_name

import pytest
from repository import ROOT

PAGE = (ROOT / "docs" / "reference" / "renamed-modules.md").read_text(encoding="utf-8")
MODULES, NAMES = (
    re.findall(r"^\| (reflex_[\w.]+) \| `(reflex_[\w.]+)` \|$", part, re.MULTILINE)
    for part in PAGE.split("\n## ")[1:]
)


@pytest.mark.parametrize(("old", "new"), MODULES)
def test_a_module_that_moved_is_where_the_page_says(old: str, new: str) -> None:
    assert find_spec(new) is not None
    assert is_gone(old) or find_spec(old).submodule_search_locations, f"{old} is still a module"  # type: ignore[union-attr]


@pytest.mark.parametrize(("old", "new"), NAMES)
def test_a_name_that_moved_is_where_the_page_says(old: str, new: str) -> None:
    module, _, name = new.rpartition(".")
    assert getattr(resolve_name(module), name).__module__ == module
    assert old not in {f"{module}.{name}", new}


def test_the_changelog_leads_to_the_page() -> None:
    assert "docs/reference/renamed-modules.md" in (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")


def is_gone(module: str) -> bool:
    """True where nothing of that name can be imported."""
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:
        return True
