# SPDX-License-Identifier: Apache-2.0
"""The search for faults that no test notices: whatever happens in a fork, the copy that all work on stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from pathlib import Path

import pytest
from benchmarks import mutants


def broken(arguments):
    raise KeyboardInterrupt


pytest.main = broken
copy_of, path = Path(sys.argv[1]), mutants.ROOT / "reflex_core" / "errors.py"
where = copy_of / "reflex_core" / "errors.py"
where.parent.mkdir()
where.write_text("whole")
mutant = mutants.Mutant(path, 1, "changed", "mutant")
try:
    lives = mutants.survives(copy_of, mutant, [], 30.0)
finally:
    (copy_of / "ends").open("a").write("one\\n")
print(lives, where.read_text())
"""


def test_a_fork_that_breaks_ends_there_and_its_mutant_counts_as_noticed(tmp_path: Path) -> None:
    run = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    ran = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "False whole\n", ran.stderr
    assert (tmp_path / "ends").read_text() == "one\n", "a fork ran what only the one that forked it may run"
