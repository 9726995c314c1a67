# SPDX-License-Identifier: Apache-2.0
"""requirements/step.sh: long steps of make show that they are at work, and what a failed one printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from http_client import wait_for
from repository import ROOT

STEP = str(ROOT / "requirements" / "step.sh")


def step(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STEP, "making it", *command], capture_output=True, text=True, check=False)


def test_a_long_step_shows_every_four_seconds_what_it_is_doing() -> None:
    done = step("bash", "-c", "echo first; echo second; sleep 5")
    lines = done.stdout.splitlines()
    assert lines[0] == "making it"
    assert re.fullmatch(r"making it: \d+ s  second", lines[1])
    assert re.fullmatch(r"making it: done in \d+ s", lines[-1])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_step_that_fails_prints_all_and_ends_with_its_status() -> None:
    done = step("bash", "-c", "echo one; echo two >&2; exit 7")
    assert done.returncode == 7
    assert done.stderr == "one\ntwo\n"
    assert re.search(r"^making it: failed after \d+ s$", done.stdout, re.M)


def test_a_short_step_is_one_line() -> None:
    assert step("true").stdout == "making it\n"


def test_nothing_is_left_behind_when_it_is_interrupted(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    words = [STEP, "making it", "bash", "-c", f"touch '{begun}'; exec sleep 1000"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "making it\n"
    wait_for(begun.exists)  # a shell that is about to start a command leaves an interrupt to the command
    os.killpg(process.pid, signal.SIGINT)
    process.stdout.read()  # ends when no process of the step holds its output any more
    assert process.wait() != 0
