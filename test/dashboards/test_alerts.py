# SPDX-License-Identifier: Apache-2.0
"""The alert rules: promtool accepts them, each fires and stays quiet as it should, and all ask for what is exposed."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from debian_tools import promtool
from promql import TARGET_LABELS, exposed, unknown
from repository import ROOT
from rules import DASHBOARDS, RECORDED, RULES

from reflex_core.errors import ObservationError
from reflex_core.robot.joint_gate import IMPLAUSIBLE, NOT_FINITE

ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
PAGES = ROOT / "docs" / "how-to"
PAGE = (PAGES / "answer-an-alert.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^promtool (.+)$", (PAGES / "fleet.md").read_text(encoding="utf-8"), re.MULTILINE)
UNIT_TESTS = yaml.safe_load((DASHBOARDS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
WATCHED = {
    "ReflexLatencyHigh", "ReflexBudgetBurnsFast", "ReflexGuardTripped", "ReflexBreakerOpen", "ReflexCamerasStale",
    "ReflexRecorderDegraded", "ReflexRobotDown", "ReflexPolicyDrained",
}  # fmt: skip


def ask_promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [promtool(), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_rules_scrape_example_and_unit_tests_pass_as_the_fleet_page_says(command: str) -> None:
    done = ask_promtool(*command.split())
    assert done.returncode == 0, done.stdout + done.stderr


def reasons() -> set[str]:
    """Every slug with which an observation may be refused: of the gates, of the loop around them, and of pictures."""
    found = {ObservationError.slug, NOT_FINITE, IMPLAUSIBLE}
    for name in (
        "reflex_ros/node/observation_buffer.py",
        "reflex_ros/node/chunk_loop.py",
        "reflex_core/images/raw_encodings.py",
    ):
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and len(node.args) == 2
                and "ObservationError" in ast.dump(node.func)
            ):
                found |= written_as(node.args[1])
            if isinstance(node, ast.Assign) and "id='reason'" in ast.dump(node.targets[0]):
                found |= written_as(node.value)
    return found


def written_as(value: ast.expr) -> set[str]:
    """The texts that an expression may be."""
    either = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
    return {part.value for part in either if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_whatever_refuses_observations_wakes_a_person_but_a_missing_instruction(tmp_path: Path) -> None:
    slugs = reasons()
    assert slugs >= {
        "camera_missing",
        "state_missing",
        "joint_names",
        "state_not_finite",
        "implausible_state",
        "stale",
        "bad-image",
    }
    tests = []
    for slug in sorted(slugs):
        labels = f'robot_id="arm-1",instance="a:8000",reason="{slug}"'
        fires = [{"labels": f'{{reason="{slug}"}}', "value": 1}] if slug != "no_instruction" else []
        tests.append({
            "name": slug, "interval": "15s",
            "input_series": [
                {"series": f"reflex_observations_refused_total{{{labels}}}", "values": "0x4 0+30x20"}
            ],
            "promql_expr_test": [{
                "expr": 'count by (reason) (ALERTS{alertname="ReflexCamerasStale",alertstate="firing"})',
                "eval_time": "4m", "exp_samples": fires,
            }],
        })  # fmt: skip
    rules = {"rule_files": [str(DASHBOARDS / "alerts.yml")], "tests": tests}
    (tmp_path / "alerts_test.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    done = ask_promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_reader_is_sent_to_health_for_the_reason_that_it_does_not_give() -> None:
    for text in (ALERTS["ReflexNotServing"]["annotations"]["what_to_do"], PAGE):
        assert "says why" not in text
        assert "journalctl -u reflex" in text


def test_the_unit_tests_notice_an_alert_that_is_gone(tmp_path: Path) -> None:
    rules = yaml.safe_load((DASHBOARDS / "alerts.yml").read_text(encoding="utf-8"))
    [alerts] = [group for group in rules["groups"] if group["name"] == "reflex_alerts"]
    alerts["rules"] = [rule for rule in alerts["rules"] if rule["alert"] != "ReflexGuardTripped"]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    tests = yaml.safe_load((DASHBOARDS / "alerts_test.yml").read_text(encoding="utf-8"))
    tests["tests"] = [test for test in UNIT_TESTS if test["name"].startswith("ReflexGuardTripped")]
    (tmp_path / "alerts_test.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    done = ask_promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert done.returncode == 1
    assert "ReflexGuardTripped" in done.stdout + done.stderr


def expectations(test: dict[str, Any]) -> list[tuple[str, bool]]:
    """What a unit test asks, and whether it expects something to fire."""
    queries = [(str(check), bool(check["exp_samples"])) for check in test["promql_expr_test"]]
    return queries + [
        (check["alertname"], bool(check["exp_alerts"])) for check in test.get("alert_rule_test", [])
    ]


@pytest.mark.parametrize("alert", ALERTS)
def test_the_unit_tests_of_an_alert_see_it_silent_and_then_firing(alert: str) -> None:
    about_it = [test for test in UNIT_TESTS if alert in str(test)]
    assert any(
        fires and alert in expectation for test in about_it for expectation, fires in expectations(test)
    )
    assert any(not fires for test in about_it for _, fires in expectations(test))


def test_what_a_fleet_needs_is_watched() -> None:
    assert set(ALERTS) >= WATCHED
    assert [command.split()[:2] for command in COMMANDS] == [
        ["check", "rules"],
        ["check", "config"],
        ["test", "rules"],
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert", rule.get("record")))
def test_rules_ask_for_metrics_and_labels_that_are_exposed(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"], exposed() | RECORDED) == []


def test_a_metric_or_label_that_is_not_exposed_is_noticed() -> None:
    known = exposed()
    assert unknown("sum by (slug) (rate(reflex_act_errors_total[5m])) > 1", known) == []
    assert unknown("rate(reflex_act_errors[5m])", known) == ["reflex_act_errors"]
    assert unknown('reflex_act_errors_total{policy="a"}', known) == ["reflex_act_errors_total: policy"]
    assert unknown("sum by (slot) (reflex_act_errors_total)", known) == ["grouped by slot"]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_whom_it_wakes_and_what_to_do_then(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["what_to_do"].endswith(".")


@pytest.mark.parametrize("alert", ALERTS)
def test_the_words_of_an_alert_use_labels_that_it_has(alert: str) -> None:
    rule = ALERTS[alert]
    aggregated = re.match(r"\W*(?:\w+\(0\.99, )?(?:sum|min|max|count) by \(([^)]*)\)", rule["expr"])
    if aggregated:
        labels = {label.strip() for label in aggregated[1].split(",")} - {"le"}
    else:
        known = exposed() | RECORDED
        labels = known[re.findall(r"[\w:]+", rule["expr"])[0]]
    used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert used <= labels


def test_every_target_brings_the_labels_that_the_rules_count_on() -> None:
    config = yaml.safe_load((DASHBOARDS / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = config["scrape_configs"]
    assert job["job_name"] == "reflex"
    assert job["honor_labels"] is True, "reflex_robot_info has a robot_id of its own"
    for place in (DASHBOARDS / "robots.yml", ROOT / "deploy" / "robots.yml"):
        targets = yaml.safe_load(place.read_text(encoding="utf-8"))
        assert all(set(entry["labels"]) | {"job", "instance"} == TARGET_LABELS for entry in targets)


def test_the_fleet_page_has_every_alert() -> None:
    assert set(re.findall(r"^\| `(Reflex\w+)` \|", PAGE, re.MULTILINE)) == set(ALERTS)
    for alert, rule in ALERTS.items():
        [line] = re.findall(rf"^\| `{alert}` \| (\w+) \|", PAGE, re.MULTILINE)
        assert line == rule["labels"]["severity"]
