# SPDX-License-Identifier: Apache-2.0
"""requirements/debian.sh, with an apt-get that hands out a package made here: no test needs the network."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from repository import ROOT

SCRIPT = ROOT / "requirements" / "debian.sh"
CONTROL = "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n"
# Like apt-get, it gives nothing before an update where the machine has no lists, and says why in a line of its own.
APT_GET = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
  *" update") exit 0 ;;
  *Dir::State::lists*tool*) ;;
  *) echo "E: Unable to locate package" >&2; exit 100 ;;
esac
for word; do case "$word" in Dir::Cache::archives=*) cp "$DEB" "${word#*=}/" ;; esac; done
"""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """An environment whose apt-get is ours; its log tells how often it was asked."""
    tree = tmp_path / "tree"
    for name in ("usr/bin/tool", "usr/share/doc/tool"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name, encoding="utf-8")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(CONTROL, encoding="utf-8")
    subprocess.run(["dpkg-deb", "--build", tree, tmp_path / "tool.deb"], check=True, capture_output=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text(APT_GET, encoding="utf-8")
    (programs / "apt-get").chmod(0o755)
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "DEB": str(tmp_path / "tool.deb"),
        "LOG": str(tmp_path / "log"),
    }


def unpack(machine: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (SCRIPT, *arguments)]
    return subprocess.run(command, env=machine, capture_output=True, text=True, check=False)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def apt_calls(machine: dict[str, str]) -> int:
    log = Path(machine["LOG"])
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


def test_it_unpacks_what_was_asked_for_and_leaves_nothing_else(
    machine: dict[str, str], tmp_path: Path
) -> None:
    done = unpack(machine, "tool", tmp_path / "some", "usr/bin/tool")
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "some") == {"usr/bin/tool", ".unpacked-tool"}
    assert unpack(machine, "tool", tmp_path / "all").returncode == 0
    assert files(tmp_path / "all") == {"usr/bin/tool", "usr/share/doc/tool", ".unpacked-tool"}
    assert unpack(machine, "--with-needs", "tool", tmp_path / "needs").returncode == 0
    assert files(tmp_path / "needs") == files(tmp_path / "all")


def test_a_second_call_runs_no_apt_unless_it_wants_other_files(
    machine: dict[str, str], tmp_path: Path
) -> None:
    unpack(machine, "tool", tmp_path / "some", "usr/bin/tool")
    calls_before = apt_calls(machine)
    assert calls_before > 0
    assert unpack(machine, "tool", tmp_path / "some", "usr/bin/tool").returncode == 0
    assert apt_calls(machine) == calls_before
    assert unpack(machine, "tool", tmp_path / "some", "usr/bin/tool", "usr/share/doc/tool").returncode == 0
    assert "usr/share/doc/tool" in files(tmp_path / "some")


def test_a_package_that_cannot_be_had_is_one_clear_line(machine: dict[str, str], tmp_path: Path) -> None:
    done = unpack(machine, "another", tmp_path / "some")
    assert done.returncode == 1
    assert done.stderr == "reflex_ros: another cannot be fetched: Unable to locate package\n"
    assert files(tmp_path / "some") == set()


def test_a_machine_without_apt_gets_a_sentence_of_what_to_do(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "bash").symlink_to("/bin/bash")
    done = subprocess.run(
        ["/bin/bash", str(SCRIPT), "tool", str(tmp_path / "some")],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no apt-get here: install tool yourself and put it on PATH." in done.stderr


def test_it_says_how_it_is_used(machine: dict[str, str]) -> None:
    done = unpack(machine, "tool")
    assert (done.returncode, done.stderr) == (
        1,
        "reflex_ros: usage: debian.sh [--with-needs] PACKAGE DIRECTORY [FILE...]\n",
    )
