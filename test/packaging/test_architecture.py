# SPDX-License-Identifier: Apache-2.0
"""The rules of the house, held by tests: who may import whom, who knows what, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

from reflex_core.settings.cli import markdown
from reflex_core.wedges.order import ORDER

CORE = sorted((ROOT / "reflex_core").rglob("*.py"))
WEDGES = sorted((ROOT / "reflex_core" / "wedges").glob("*.py"))
ROOMS = ("reflex_core", "reflex_ros", "test", "training", "benchmarks", "launch", "config")
FOREIGN = ("reflex_ros", "rclpy", "aiohttp")


def room_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file, relative imports made absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *([node.module] if node.module else [])))
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def words(path: Path) -> set[str]:
    """Every string that a file writes out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("path", CORE, ids=room_of)
def test_the_core_imports_neither_ros_nor_http(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] in FOREIGN] == []


BLOCKED = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("reflex_ros", "rclpy", "aiohttp"):
            raise ImportError(f"{name} is not for the core")

sys.meta_path.insert(0, Blocker())
import reflex_core
for module in pkgutil.walk_packages(reflex_core.__path__, "reflex_core."):
    importlib.import_module(module.name)
    print(module.name)
"""


def test_every_module_of_the_core_can_be_imported_where_there_is_no_ros_and_no_http() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(CORE) - 1  # all but reflex_core/__init__.py itself


@pytest.mark.parametrize("path", WEDGES, ids=room_of)
def test_a_wedge_knows_no_other_wedge(path: Path) -> None:
    others = {name for name in imports(path) if name.startswith("reflex_core.wedges.")}
    allowed = {"reflex_core.wedges.wedge"}
    assert {
        name for name in others if not any(name == good or name.startswith(good + ".") for good in allowed)
    } == set()


@pytest.mark.parametrize("path", WEDGES, ids=room_of)
def test_a_wedge_reads_no_settings(path: Path) -> None:
    assert "reflex_core.settings.table" not in set(imports(path))


def test_the_wedges_are_named_in_two_places_their_order_and_their_making() -> None:
    everywhere = [*CORE, *(ROOT / "reflex_ros").rglob("*.py")]
    knows = [room_of(path) for path in everywhere if len(words(path) & set(ORDER)) >= 6]
    assert sorted(knows) == ["reflex_core/engine/build.py", "reflex_core/wedges/order.py"]


def test_only_the_engine_and_its_assembly_know_wedges() -> None:
    everywhere = [*CORE, *(ROOT / "reflex_ros").rglob("*.py")]
    builders = {
        room_of(path)
        for path in everywhere
        for name in imports(path)
        if name.startswith("reflex_core.wedges.") and not name.startswith("reflex_core.wedges.wedge")
    }
    homes = ("reflex_core/engine/", "reflex_core/wedges/")
    assert [name for name in sorted(builders) if not name.startswith(homes)] == []


def test_only_the_metrics_file_makes_metrics() -> None:
    everywhere = [*CORE, *(ROOT / "reflex_ros").rglob("*.py")]
    kinds = {
        f"prometheus_client.{kind}" for kind in ("Counter", "Gauge", "Histogram", "Summary", "Info", "Enum")
    }
    kinds |= {"prometheus_client.metrics", "prometheus_client.core"}
    makers = [room_of(path) for path in everywhere if kinds & set(imports(path))]
    assert makers == ["reflex_core/metrics/metrics.py"]


def test_no_file_is_two_rooms() -> None:
    files = [
        path
        for room in ("reflex_core", "reflex_ros", "launch", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
    ]
    lengths = {room_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_every_file_names_its_licence() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    bare = [
        room_of(path)
        for path in files
        if path.read_text(encoding="utf-8").strip()
        and "SPDX-License-Identifier: Apache-2.0" not in path.read_text(encoding="utf-8")[:300]
    ]
    assert bare == []


def test_every_page_names_its_licence() -> None:
    """But the receipt of an export, which its exporter writes."""
    rooms = ("docs", "models", "benchmarks", "deploy", "dashboards", *ROOMS)
    found = {path for room in rooms for path in (ROOT / room).rglob("*.md") if path.name != "VERIFICATION.md"}
    bare = [
        room_of(path)
        for path in sorted(found | set(ROOT.glob("*.md")))
        if not path.read_text(encoding="utf-8").startswith("<!-- SPDX-License-Identifier: Apache-2.0 -->\n")
    ]
    assert bare == []


def test_the_page_about_settings_is_made_from_the_table() -> None:
    """`python -m reflex_core.settings.cli > docs/reference/settings.md` brings it up to date."""
    assert (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8") == markdown()
