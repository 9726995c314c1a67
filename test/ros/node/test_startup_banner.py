# SPDX-License-Identifier: Apache-2.0
"""What is printed once it serves: where everything is, once, as a table or as lines."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from described_panda import described
from lifecycle_msgs.msg import Transition
from repository import ROOT
from ros_world import world
from servers import Server

from reflex_core.files.share import embedded_policy
from reflex_ros.console import startup_banner
from reflex_ros.node.node import ReflexNode


def lines_of(server: Server) -> list[str]:
    lines: list[str] = []
    startup_banner.show(server.engine, server.sidecar, lines.append, stream=io.StringIO())
    return lines


def test_the_lines_name_policy_robot_provider_and_url(serve) -> None:  # type: ignore[no-untyped-def]
    server = serve("calm")
    title, *lines = lines_of(server)
    assert title.startswith("serving pi0-mono@")
    assert title.endswith(f" for franka on CPUExecutionProvider at {server.sidecar.url}")
    description = dict(line.split(maxsplit=1) for line in lines if not line.startswith("  runs on"))
    assert description["page"] == f"{server.sidecar.url}/"
    assert description["deadline"] == "none"
    assert description["guard"] == "the embodiment's ranges; mode clip, trips after 10 in a row"
    assert description["records"] == "none"


def test_the_banner_says_what_is_not_checked(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "not checked  max_ee_velocity (1.7 m/s): the embodiment has no kinematics" in "\n".join(
        " ".join(line.split(maxsplit=2)[:2]) + "  " + line.split(maxsplit=2)[2]
        for line in lines_of(serve("calm"))
        if "max_ee_velocity" in line
    )
    knows = {"embodiment": "", "custom_embodiment_config": str(described(tmp_path, 0.3))}
    assert "max_ee_velocity" not in "\n".join(lines_of(serve("mono_pi0_7", **knows)))


def test_what_is_switched_on_is_said(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "key").write_text("secret")
    folders = {"record": str(tmp_path / "traces"), "audit_log": str(tmp_path / "audit")}
    server = serve(
        "calm",
        api_key_file=str(tmp_path / "key"),
        deadline_ms=150.0,
        slo="p99=90ms",
        slo_mode="503",
        **folders,
    )
    description = "\n".join(lines_of(server))
    assert "(with the key)" in description
    assert "150 ms, then the last good chunk; objective p99=90ms (503)" in description
    assert f"traces to {folders['record']}, audit log to {folders['audit_log']}" in description


def test_without_limits_it_says_so(serve) -> None:  # type: ignore[no-untyped-def]
    description = "\n".join(lines_of(serve("mono_pi0_7", embodiment="")))
    assert "no embodiment: actions are served raw" in description
    assert "checks for NaN and Inf only" in description


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_gets_a_table_and_no_log_lines(serve, monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:  # type: ignore[no-untyped-def]
    if not rich:
        for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "rich", None)
    server, screen, lines = serve("calm"), _Screen(), list[str]()
    startup_banner.show(server.engine, server.sidecar, lines.append, stream=screen)
    assert lines == []
    assert "CPUExecutionProvider" in screen.getvalue()
    assert server.sidecar.url in screen.getvalue()


@pytest.fixture
def description(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What nodes hand to their loggers as plain lines."""
    lines: list[str] = []
    monkeypatch.setattr(ReflexNode, "_log_line", lambda _, line: lines.append(line))
    return lines


def test_the_page_shows_what_the_embedded_policy_really_says(description: list[str]) -> None:
    page = (ROOT / "docs" / "reference" / "startup.md").read_text(encoding="utf-8")
    [shown] = [block for block in page.split("```") if block.startswith("\nserving ")]
    with world(export_dir=str(embedded_policy()), http=True, port=0) as scene:
        scene.activate()
        assert scene.server.sidecar is not None
        own = scene.server.sidecar.url
    text = "\n".join(description)
    assert shown.strip() in text[text.index("serving ") :].replace(own, "http://127.0.0.1:8000")


def test_the_node_tells_its_real_topics_once(description: list[str], export_dir) -> None:  # type: ignore[no-untyped-def]
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as scene:
        scene.activate()
        banner = "\n".join(description)
        assert "serving pi0-mono@" in banner
        assert "/camera/image_raw" in banner or "/base/image_raw" in banner
        assert "/joint_states" in banner
        assert "/reflex/action_chunk" in banner
        assert "/parameter_events" not in banner
        for step in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            assert scene.robot.transition(step)
        assert "\n".join(description).count("serving pi0-mono@") == 1
        assert any("loading" in line for line in description)
        assert any("warming up" in line for line in description)
