# SPDX-License-Identifier: Apache-2.0
"""A copy of the packages in which something is added, as a contributor would, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from repository import ROOT

COPIED = ("reflex_core", "reflex_ros", "config", "models")


class ScratchCopy:
    """touched: the files that were added or changed so far, by their names in the repository."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.touched: set[str] = set()
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "msg"))
        shutil.copy(ROOT / "package.xml", folder)  # says the version

    def add(self, name: str, text: str) -> None:
        """Write a file that there was not."""
        path = self.root / name
        assert not path.exists(), f"{name} is there already"
        path.write_text(text, encoding="utf-8")
        self.touched.add(name)

    def insert(self, name: str, after: str, text: str) -> None:
        """Write `text` behind the one place that reads `after`."""
        path = self.root / name
        before = path.read_text(encoding="utf-8")
        assert before.count(after) == 1, f"{name} has {before.count(after)} times {after!r}"
        path.write_text(before.replace(after, after + text), encoding="utf-8")
        self.touched.add(name)

    def run(self, code: str, *arguments: str | Path) -> str:
        """Run Python that imports the copy; its standard output."""
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=self.root, capture_output=True, text=True, timeout=120,
            env=os.environ | {"PYTHONPATH": str(self.root)}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
