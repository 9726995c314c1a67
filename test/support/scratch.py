# SPDX-License-Identifier: Apache-2.0
"""A copy of the packages that a test may change as a developer would: what it touched, and processes that run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repository import ROOT

PACKAGES = ("reflex_core", "reflex_ros")
SHARED = ("config", "models", "package.xml")


class Scratch:
    """The copy. Files are named from its root, as in the repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, root / package, ignore=ignored)
        for name in SHARED:
            (root / name).symlink_to(ROOT / name)

    def add(self, name: str, text: str) -> None:
        """Write a file that was not there."""
        path = self.root / name
        assert not path.exists(), name
        path.write_text(text, encoding="utf-8")

    def change(self, name: str, before: str, after: str) -> None:
        """Replace a text that is in a file once."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, (name, before, text.count(before))
        path.write_text(text.replace(before, after), encoding="utf-8")

    @property
    def touched(self) -> list[str]:
        """The files that differ from those of the repository."""
        ours = {
            str(path.relative_to(self.root)) for package in PACKAGES for path in _sources(self.root / package)
        }
        theirs = {str(path.relative_to(ROOT)) for package in PACKAGES for path in _sources(ROOT / package)}
        same = {
            name for name in ours & theirs if (self.root / name).read_bytes() == (ROOT / name).read_bytes()
        }
        return sorted((ours | theirs) - same)

    def run(self, code: str, *arguments: object) -> str:
        """What a program prints that imports the copy."""
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=self.root, env=self._environment(), text=True,
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """`reflex serve --no-ros` of the copy, as long as it is needed."""
        command = [
            sys.executable,
            "-m",
            "reflex_ros.cli.main",
            "serve",
            "--no-ros",
            "--port",
            "0",
            "--device",
            "cpu",
        ]
        process = subprocess.Popen(
            [*command, *map(str, arguments)], cwd=self.root, env=self._environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}


def _sources(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
