# SPDX-License-Identifier: Apache-2.0
"""docs/reference/rqt.md says what is true: its files, topics, concerns and commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from domains import free_domain
from repository import ROOT

from reflex_core.settings.table import TABLE
from reflex_ros.outputs.debug import NAMES

PAGE = (ROOT / "docs" / "reference" / "rqt.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)\n```", PAGE, re.DOTALL)


def rows_of(section: str) -> list[str]:
    """The first column of the table of a section."""
    text = PAGE[PAGE.index(f"## {section}") :]
    text = text[: text.find("\n## ", 4)] if "\n## " in text[4:] else text
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:]


def command(start: str) -> str:
    [found] = [line for line in COMMANDS if line.startswith(start)]
    return found


def test_the_window_command_is_understood(tmp_path: Path) -> None:
    words = shlex.split(command("python3 -m"))
    assert words[0] == "python3"
    picture = tmp_path / "panel.png"
    environment = dict(
        os.environ,
        QT_QPA_PLATFORM="offscreen",
        ROS_DOMAIN_ID=str(free_domain()),
        XDG_RUNTIME_DIR=str(tmp_path),
    )
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    done = subprocess.run(
        [sys.executable, *words[1:], "--picture", str(picture), "--after", "0"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize(
    ("start", "name"), [("rqt ", "reflex.perspective"), ("ros2 run", "diagnostic_aggregator.yaml")]
)
def test_the_file_that_a_command_names_is_installed(start: str, name: str) -> None:
    [file] = re.findall(r'"\$\(ros2 pkg prefix --share reflex_ros\)/([^"]+)"', command(start))
    assert file == f"config/{name}"
    assert (ROOT / file).is_file()
    assert "install(DIRECTORY launch config" in (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


def test_what_the_plot_command_draws_is_published() -> None:
    topics = shlex.split(command("rqt_plot"))[1:]
    assert topics
    assert set(topics) <= {f"/reflex/debug/{name}/data" for name in NAMES}


def test_the_debug_topics_are_all_on_the_page() -> None:
    assert rows_of("Plots") == [f"`~/debug/{name}`" for name in NAMES]


def test_the_concerns_on_the_page_are_those_in_the_monitor() -> None:
    document = yaml.safe_load((ROOT / "config" / "diagnostic_aggregator.yaml").read_text(encoding="utf-8"))
    entries = document["analyzers"]["ros__parameters"].values()
    monitored = {
        part.split(": ")[1] for entry in entries if isinstance(entry, dict) for part in entry["contains"]
    }
    assert set(rows_of("The monitor")) == monitored


def test_the_parameters_on_the_page_can_be_changed_while_it_runs() -> None:
    live = {row.name for row in TABLE if row.when == "live"}
    assert {"deadline_ms", "slo", "split"} <= live
    for name in ("deadline_ms", "slo", "split"):
        assert f"`{name}`" in PAGE


def test_the_label_in_rqts_menu_is_the_one_on_the_page() -> None:
    manifest = (ROOT / "plugin.xml").read_text(encoding="utf-8")
    assert "Plugins > Robot Tools > Reflex Policy" in PAGE
    assert "<label>Robot Tools</label>" in manifest
    assert "<label>Reflex Policy</label>" in manifest
