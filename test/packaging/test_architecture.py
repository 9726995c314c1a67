# SPDX-License-Identifier: Apache-2.0
"""The rules of the house: who may import whom (the contracts in pyproject.toml), names, sizes and licences of files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

from reflex_core.settings.cli import markdown

PACKAGES = ("reflex_client", "reflex_core", "reflex_export", "reflex_ros")
FOLDERS = (*PACKAGES, "test", "training", "benchmarks", "launch", "config")
MOST_LOOSE_MODULES = 8
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lint(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120, check=False)


def test_imports_keep_to_the_contracts() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_contract_is_broken_by_an_import_that_it_forbids(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.npz", "msg", "srv", "action"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in (
        ("reflex_client/policy.py", "import reflex_core.values"),
        ("reflex_core/values.py", "import aiohttp"),
        ("reflex_core/files/atomic.py", "import reflex_core.robot.presets"),
        ("reflex_core/wedges/guard.py", "import reflex_core.wedges.admission"),
        ("reflex_core/engine/engine.py", "import reflex_export.options"),
        ("reflex_export/options.py", "import rclpy, torch"),
        ("reflex_core/wedges/deadline.py", "import reflex_core.settings.table"),
        ("reflex_ros/sidecar/app.py", "import reflex_core.wedges.guard, rclpy"),
        ("reflex_ros/graph/qos.py", "import reflex_ros.node.watchdog"),
    ):
        with (tmp_path / path).open("a") as file:
            file.write(f"\n{line}\n")
    done = lint(tmp_path)
    verdicts = re.findall(r"^(.+) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE)
    assert len(verdicts) == 11, done.stdout + done.stderr
    assert {verdict for _, verdict in verdicts} == {"BROKEN"}, done.stdout


IMPORT_ALL = """
import importlib, pkgutil, sys

package, blocked = sys.argv[1], sys.argv[2:]

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is not for {package}")

sys.meta_path.insert(0, Blocker())
root = importlib.import_module(package)
for module in pkgutil.walk_packages(root.__path__, package + "."):
    importlib.import_module(module.name)
    print(module.name)
"""
SERVERS = ("reflex_ros", "rclpy", "aiohttp")
TRAINING = ("diffusers", "lerobot", "onnx", "torch", "torchvision", "transformers")


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("reflex_client", ("reflex_core", "reflex_ros", "aiohttp", "orjson", "cv2", "PIL", "msgpack")),
        ("reflex_core", SERVERS),
        ("reflex_export", (*SERVERS, *TRAINING)),
    ],
)
def test_every_module_can_be_imported_where_what_it_must_not_need_is_missing(
    package: str, blocked: tuple[str, ...]
) -> None:
    """The core without ROS and HTTP, the exporter also without torch, which it imports only when it exports."""
    command = [sys.executable, "-c", IMPORT_ALL, package, *blocked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(modules(package)) - 1  # all but the package's own __init__.py


def test_only_the_metrics_file_makes_metrics() -> None:
    kinds = {
        f"prometheus_client.{kind}" for kind in ("Counter", "Gauge", "Histogram", "Summary", "Info", "Enum")
    }
    kinds |= {"prometheus_client.metrics", "prometheus_client.core"}
    makers = [
        name_of(path) for package in PACKAGES for path in modules(package) if kinds & set(imports(path))
    ]
    assert makers == ["reflex_core/metrics/metrics.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_of_a_module_is_used_twice_in_a_package(package: str) -> None:
    times = Counter(path.stem for path in modules(package) if path.stem != "__init__")
    assert [name for name, count in times.items() if count > 1] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_few_modules_are_in_no_folder(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) - 1 <= MOST_LOOSE_MODULES


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_says_in_one_line_what_is_in_it(package: str) -> None:
    folders = {path.parent for path in modules(package)}
    assert [name_of(folder) for folder in sorted(folders) if len(first_line(folder)) < 20] == []


def first_line(folder: Path) -> str:
    """Of the docstring of a package; empty where there is none."""
    init = folder / "__init__.py"
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) if init.is_file() else None
    return (text or "").partition("\n")[0]


def test_no_file_is_longer_than_400_lines() -> None:
    files = [path for folder in (*PACKAGES, "launch", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_every_file_names_its_licence() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    bare = [
        name_of(path)
        for path in files
        if path.read_text(encoding="utf-8").strip()
        and "SPDX-License-Identifier: Apache-2.0" not in path.read_text(encoding="utf-8")[:300]
    ]
    assert bare == []


def test_every_page_names_its_licence() -> None:
    """But the manifest of an export, which its exporter writes."""
    folders = ("docs", "models", "benchmarks", "deploy", "dashboards", *FOLDERS)
    found = {
        path for folder in folders for path in (ROOT / folder).rglob("*.md") if path.name != "VERIFICATION.md"
    }
    bare = [
        name_of(path)
        for path in sorted(found | set(ROOT.glob("*.md")))
        if not path.read_text(encoding="utf-8").startswith("<!-- SPDX-License-Identifier: Apache-2.0 -->")
    ]
    assert bare == []


def test_the_page_about_settings_is_made_from_the_table() -> None:
    """`python -m reflex_core.settings.cli > docs/reference/settings.md` brings it up to date."""
    assert (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8") == markdown()
