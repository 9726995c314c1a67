# SPDX-License-Identifier: Apache-2.0
"""/diagnostics: a line per concern, each with a place in rqt_robot_monitor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from repository import ROOT
from ros_world import BEYOND, world
from servers import ExportDir, MakeEngine

from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_ros.node import diagnostics
from reflex_ros.node.diagnostics import ERROR, OK, WARN, Finding
from reflex_ros.node.progress import Progress

CONFIG = ROOT / "config" / "diagnostic_aggregator.yaml"
ALWAYS = {"policy", "guard", "cache", "cloud fallback", "recorders"}


def analyzers() -> Mapping[str, list[str]]:
    """Path of each analyzer -> what the names that it takes contain."""
    document = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["analyzers"]["ros__parameters"]
    found = {entry["path"]: entry["contains"] for entry in document.values() if isinstance(entry, dict)}
    kinds = {entry["type"] for entry in document.values() if isinstance(entry, dict)}
    assert kinds == {"diagnostic_aggregator/GenericAnalyzer"}
    return found


def takers(name: str) -> list[str]:
    """Which analyzers take a name, as GenericAnalyzer decides it."""
    return [path for path, parts in analyzers().items() if any(part in name for part in parts)]


def of_engine(engine: Engine, **progress: Any) -> dict[str, Finding]:
    loaded = engine.loaded
    assert loaded is not None
    found = [
        diagnostics.policy_finding(engine, ""),
        *diagnostics.wedge_findings(loaded, Progress(**progress), engine.metrics.recorders.watched),
        diagnostics.queue_finding(engine),
    ]
    return {finding.concern: finding for finding in found}


def test_cameras_that_the_robot_lacks_are_named(make_engine: MakeEngine) -> None:
    found = of_engine(make_engine("mono_pi0_7", embodiment="franka"))["policy"]
    assert found.level == diagnostics.OK
    assert "no camera of the robot feeds wrist_l, wrist_r" in found.message
    assert found.values["masked cameras"] == "wrist_l, wrist_r"


def fail(engine: Engine, slot: str, times: int) -> None:
    """Ask a slot whose model raises where the robot is BEYOND."""
    loaded = engine.loaded
    assert loaded is not None
    observation = replace(loaded.policy.canary(), state=np.array(BEYOND, np.float32))
    for _ in range(times):
        with suppress(ReflexError):
            loaded.slots[slot].act(engine.request(observation))


def pair(make_engine: MakeEngine, export_dir: ExportDir) -> Engine:
    policies = {"policy_a": str(export_dir("calm")), "policy_b": str(export_dir("calm_raise"))}
    return make_engine(
        "calm", export_dir="", **policies, rtc=False, embodiment="franka", max_consecutive_crashes=3
    )


def test_every_name_that_a_node_publishes_has_one_place_in_the_monitor(export_dir: ExportDir) -> None:
    settings: dict[str, Any] = {"export_dir": str(export_dir("calm")), "embodiment": "franka"}
    with world(robot_id="arm7", **settings) as scene:
        scene.activate()
        scene.robot.next_chunk()
        scene.robot.diagnosed("timing", OK)
        published = dict(scene.robot.diagnostics)
    assert {*ALWAYS, "circuit breaker", "observations", "timing", "commands"} <= set(published)
    assert {status.hardware_id for status in published.values()} == {"arm7"}
    assert {status.name: len(takers(status.name)) for status in published.values()} == {
        status.name: 1 for status in published.values()
    }


def test_what_two_policies_add_has_a_place_too(make_engine: MakeEngine, export_dir: ExportDir) -> None:
    found = of_engine(pair(make_engine, export_dir))
    message = diagnostics.array_message(list(found.values()), "reflex", "arm7")
    assert {"reflex: circuit breaker a", "reflex: circuit breaker b", "reflex: queue"} <= {
        status.name for status in message.status
    }
    for status in message.status:
        assert len(takers(status.name)) == 1, status.name


def test_no_analyzer_waits_for_a_name_that_never_comes(make_engine: MakeEngine) -> None:
    names = {f"reflex: {concern}" for concern in of_engine(make_engine("calm", embodiment="franka"))}
    names |= {"reflex: observations", "reflex: timing", "reflex: commands"}  # while a node is active
    assert {
        path for path, parts in analyzers().items() if not any(p in n for p in parts for n in names)
    } == set()


def test_the_policy_says_which_provider_runs_it(make_engine: MakeEngine) -> None:
    values = of_engine(make_engine("calm", embodiment="franka"))["policy"].values
    assert values["active_providers"] == "CPUExecutionProvider"
    assert values["embodiment"] == "franka"
    assert "@" in str(values["model_version"])


def test_what_is_switched_off_says_so(make_engine: MakeEngine) -> None:
    found = of_engine(make_engine("calm", embodiment="franka", max_consecutive_crashes=0))
    for concern in ("cache", "cloud fallback", "recorders", "circuit breaker"):
        assert (found[concern].level, found[concern].message) == (OK, "off"), concern


def test_the_guard_says_between_which_limits_it_keeps_each_joint(make_engine: MakeEngine) -> None:
    values = of_engine(make_engine("calm", embodiment="franka"))["guard"].values
    assert values["panda_joint1 range"] == "-2.8973 to 2.8973 rad"


def test_one_failing_policy_of_two_is_a_warning_for_its_slot(
    make_engine: MakeEngine, export_dir: ExportDir
) -> None:
    engine = pair(make_engine, export_dir)
    fail(engine, "b", 3)
    found = of_engine(engine)
    assert found["circuit breaker a"].level == OK
    assert found["circuit breaker b"].level == WARN
    assert "the other policy answers" in found["circuit breaker b"].message
    assert found["circuit breaker b"].values["failures in a row"] == 3


def test_the_breaker_of_the_only_policy_is_an_error(make_engine: MakeEngine) -> None:
    engine = make_engine("calm_raise", embodiment="franka", max_consecutive_crashes=2)
    fail(engine, "prod", 1)
    assert of_engine(engine)["circuit breaker"].level == WARN
    fail(engine, "prod", 1)
    found = of_engine(engine)["circuit breaker"]
    assert found.level == ERROR
    assert "the robot holds" in found.message


def test_the_cache_says_how_often_it_helped(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", embodiment="franka")
    loaded = engine.loaded
    assert loaded is not None

    class Cache:
        counts: Mapping[str, int] = {"hit": 5, "image": 2}
        size_bytes = 3_000_000

    slot = replace(loaded.first, cache=Cache())  # type: ignore[arg-type]
    found = diagnostics.wedge_findings(replace(loaded, slots={"prod": slot}), Progress(), ())
    [cache] = [finding for finding in found if finding.concern == "cache"]
    assert cache.message == "5 prefixes were not computed again"
    assert cache.values == {"prod hit": 5, "prod image": 2, "prod size MB": "3.0"}


@pytest.mark.parametrize(("inside", "level"), [(0, OK), (3, OK), (4, WARN)])
def test_the_queue_warns_when_every_thread_is_taken(
    make_engine: MakeEngine, inside: int, level: bytes
) -> None:
    engine = make_engine("calm", embodiment="franka", http_threads=4)
    engine.metrics.in_flight.labels("franka", "a").inc(inside)
    found = of_engine(engine)["queue"]
    assert (found.level, found.values["requests in the engine"]) == (level, inside)


def test_the_queue_counts_who_was_turned_away(make_engine: MakeEngine) -> None:
    engine = make_engine("calm", embodiment="franka")
    for slug, times in (("queue_full", 2), ("too_many_requests", 3), ("bad-image", 7)):
        engine.metrics.errors.labels(slug).inc(times)
    assert of_engine(engine)["queue"].values["turned away"] == 5


def test_levels_are_those_of_ros() -> None:
    assert (OK, WARN, ERROR) == (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR)


def test_the_diagnostic_of_a_dry_run_says_when_the_robot_moves() -> None:
    still, moving = (
        diagnostics.dry_run_finding({"a": "moved"}, first_motion=moves) for moves in (False, True)
    )
    assert "no robot is commanded" in still.message
    assert moving.message == "DRY RUN: the first motion moves the robot; ~/stop ends it"
    assert still.values == moving.values == {"a": "moved"}
