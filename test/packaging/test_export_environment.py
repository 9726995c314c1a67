# SPDX-License-Identifier: Apache-2.0
"""What `make venv-export` relies on, without the network: versions, rewritten syntax, refusals of one sentence."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from repository import ROOT

REQUIREMENTS = ROOT / "requirements"
MODULE = '''"""A module."""
from __future__ import annotations
from typing import Any, Protocol

type Names = dict[str, Any]

class Readable(Protocol): ...

class Pair[A: Readable, B]:
    """Two."""
    def __init__(self, first: A, second: B) -> None:
        self.both = (first, second)

class Sorted[T](list, Protocol):
    def first[K](self, key: K) -> K:
        return self[0]

def same[T: str](given: T) -> T:
    return given
'''


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", REQUIREMENTS / "export" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def refusal(*command: str | Path) -> str:
    """The one line on standard error of a script of requirements/ that refuses."""
    name, *arguments = map(str, command)
    finished = subprocess.run(
        [str(REQUIREMENTS / name), *arguments], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    return line


def versions(text: str) -> list[tuple[str, str]]:
    """(name, version and marker) of each line of a constraints file."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition("==")[0], line.partition("==")[2]) for line in lines]


def test_syntax_of_python_312_is_written_as_python_311_reads_it(prepare: ModuleType) -> None:
    rewritten = prepare.without_pep695(MODULE.replace("(list, Protocol)", "(list)"))
    names: dict[str, Any] = {}
    exec(compile(rewritten, "rewritten", "exec"), names)
    assert names["Names"] is not None
    assert names["Pair"][int, str](1, "a").both == (1, "a")
    assert names["Sorted"]([3, 4]).first("any") == 3
    assert names["same"]("as before") == "as before"
    assert prepare.without_pep695(rewritten) == rewritten


def test_a_class_that_has_bases_keeps_them_before_its_parameters(prepare: ModuleType) -> None:
    assert "class Sorted(list, Protocol, _Generic[T]):" in prepare.without_pep695(MODULE)


def test_only_modules_that_need_it_are_written_and_a_second_run_writes_none(
    prepare: ModuleType, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.py", tmp_path / "deep" / "new.py"
    new.parent.mkdir()
    new.write_text("type Number = int\n", encoding="utf-8")
    old.write_text("type_of = {}\n", encoding="utf-8")
    stamp = old.stat().st_mtime_ns
    assert prepare.rewrite_lerobot(tmp_path) == 1
    assert prepare.rewrite_lerobot(tmp_path) == 0
    assert new.read_text(encoding="utf-8") == "Number = int\n"
    assert old.stat().st_mtime_ns == stamp


def test_operators_of_torchvision_are_declared_once(prepare: ModuleType, tmp_path: Path) -> None:
    extension = tmp_path / "extension.py"
    extension.write_text("import torch\n", encoding="utf-8")
    prepare.declare_operators(tmp_path)
    prepare.declare_operators(tmp_path)
    compile(extension.read_text(encoding="utf-8"), "extension", "exec")
    assert extension.read_text(encoding="utf-8").count("if not _has_ops():") == 1


def test_what_exports_has_the_versions_of_what_serves_but_those_that_lerobot_needs_otherwise() -> None:
    printed = subprocess.run(
        [str(REQUIREMENTS / "export.sh"), "constraints"], capture_output=True, text=True, check=True
    ).stdout
    merged = versions(printed)
    own = versions((REQUIREMENTS / "export" / "constraints.txt").read_text(encoding="utf-8"))
    served = versions((REQUIREMENTS / "constraints.txt").read_text(encoding="utf-8"))
    other = {name for name, _ in own}
    assert merged == [*own, *(pair for pair in served if pair[0] not in other)]
    assert {"torch", "lerobot", "numpy"} <= other
    assert not set(own) & set(served), "a version that is the same need not be repeated"


def test_every_requirement_of_what_exports_has_one_tested_version() -> None:
    wanted = (REQUIREMENTS / "export" / "requirements.txt").read_text(encoding="utf-8").split("\n")
    names = {line.replace("_", "-") for line in wanted if line and not line.startswith("#")}
    printed = subprocess.run(
        [str(REQUIREMENTS / "export.sh"), "constraints"], capture_output=True, text=True, check=True
    ).stdout
    assert names <= {name for name, _ in versions(printed)}


def test_a_python_that_is_too_old_for_lerobot_is_one_clear_line(tmp_path: Path) -> None:
    old = script(tmp_path / "python3.10", "echo 3.10")
    assert (
        refusal("system.sh", "python", old, "3.11")
        == f"reflex_ros: PYTHON={old} does not run or is not Python 3.11 or 3.12."
    )


def test_a_failed_installation_is_one_clear_line(tmp_path: Path) -> None:
    python = script(
        tmp_path / "python", '[ "$1" = -c ] || { echo "Looking"; echo "ERROR: no network"; exit 1; }'
    )
    line = refusal("export.sh", "install", python, tmp_path / "constraints.txt")
    assert re.fullmatch(r"reflex_ros: `pip \w+ .*` failed: ERROR: no network", line)


def test_lerobot_that_cannot_be_imported_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "lerobot").mkdir()
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "extension.py").touch()
    python = script(
        tmp_path / "python",
        f'case "$1" in -c) echo {tmp_path} ;; -) echo "Traceback"; echo "ImportError: no torch"; exit 1 ;; esac',
    )
    line = refusal("export.sh", "install", python, tmp_path / "constraints.txt")
    assert line == "reflex_ros: LeRobot is installed and cannot be imported: ImportError: no torch"


WITHOUT_LEROBOT = """
import importlib.util, sys, pytest
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "lerobot" else found(name, *rest)
sys.exit(pytest.main(["--collect-only", "-p", "no:xdist", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def collected(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What pytest collects where there is no LeRobot."""
    command = [sys.executable, "-c", WITHOUT_LEROBOT, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_tests_that_need_lerobot_are_collected_only_where_they_are_named() -> None:
    others = [path for path in (ROOT / "test").iterdir() if path.is_dir() and path.name != "export"]
    assert len(others) > 10
    finished = collected("test", *(f"--ignore={path}" for path in others))
    assert finished.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, finished.stdout


def test_the_tests_that_need_lerobot_say_where_they_run() -> None:
    finished = collected("test/export")
    assert finished.returncode != 0
    output = finished.stdout + finished.stderr
    assert "test/export needs torch and LeRobot: `make test-export` runs it in .venv-export." in output
