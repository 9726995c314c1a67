# SPDX-License-Identifier: Apache-2.0
"""The Grafana dashboards: what Grafana needs to load them, and queries that ask for what is exposed."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from boards import BOARDS, queries, resolved, shown
from debian_tools import promtool
from prometheus_client.parser import text_string_to_metric_families
from promql import exposed, selectors, unknown
from repository import ROOT
from rules import RECORDED

from reflex_core.metrics.metrics import Metrics

DASHBOARDS = ROOT / "dashboards"
COLUMNS = 24
KINDS = {"row", "stat", "table", "timeseries", "heatmap"}
PICKING = {"fleet": ("cell", "robot_id", "instance"), "robot": ("robot_id", "instance")}
# what a query is made of, and no answer to an operator's question
INTERNAL = re.compile(r"reflex_|_total|\brate\b|quantile|bucket|slug|label", re.IGNORECASE)

NO_GOOD_OR_BAD = {"Policy", "Episodes now"}
CHARACTERS = 5  # of a title, for each column of the grid: what a screen of 1440 pixels shows

each_board = pytest.mark.parametrize("name", BOARDS)


@each_board
def test_grafana_finds_what_it_needs(name: str) -> None:
    board = BOARDS[name]
    assert board["schemaVersion"] >= 36  # from there on a data source is named by type and uid
    assert board["uid"] == f"reflex-{name}"
    assert "id" not in board  # a number of some Grafana's database
    assert [panel["type"] for panel in board["panels"] if panel["type"] not in KINDS] == []
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in shown(name):
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        assert {"defaults", "overrides"} == set(panel["fieldConfig"])


@each_board
def test_an_operator_understands_what_a_panel_shows(name: str) -> None:
    """A title in words and an explanation; a unit on every axis; a colour that means good or bad on every figure."""
    for panel in shown(name):
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        assert not INTERNAL.search(title), title
        assert len(title) <= CHARACTERS * panel["gridPos"]["w"], title
        assert panel["description"].endswith("."), title
        if panel["type"] == "timeseries":
            assert defaults["unit"] != "none", title
        if panel["type"] == "stat":
            assert len(defaults["thresholds"]["steps"]) > 1 or title in NO_GOOD_OR_BAD, title


@each_board
def test_every_row_is_a_question(name: str) -> None:
    assert BOARDS[name]["panels"][0]["type"] == "row"
    rows = [panel["title"] for panel in BOARDS[name]["panels"] if panel["type"] == "row"]
    assert len(rows) > 4
    assert [title for title in rows if not title.endswith("?")] == []


@each_board
def test_links_to_the_documentation_lead_to_its_pages(name: str) -> None:
    board = BOARDS[name]
    links = [*board["links"], *(link for panel in shown(name) for link in panel["links"])]
    pages = [link["url"].removeprefix("${docs}/") for link in links if link["url"].startswith("${docs}")]
    assert len(pages) > 10
    assert [page for page in pages if not (ROOT / "docs" / page).is_file()] == []


def test_no_panel_of_the_fleet_has_a_line_or_an_unlimited_row_for_each_robot() -> None:
    """Two hundred robots: lines are of the fleet, of cells or of reasons; robots are ranked, or listed for a problem."""
    for panel in shown("fleet"):
        for target in panel["targets"]:
            expression = target["expr"]
            if panel["type"] == "timeseries":
                assert "robot_id" not in target["legendFormat"], panel["title"]
                assert re.match(r"(sum|count|max|quantile)\b(?! by \([^)]*robot_id)", expression), expression
            if panel["type"] == "table" and "by (" not in expression.partition("{")[0]:
                assert expression.startswith(("topk($top, ", "ALERTS{")), expression
            if panel["title"] == "Robots in trouble":
                assert re.search(r" (==|>) [01]$", expression), expression


@each_board
def test_panels_lie_side_by_side_and_not_on_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert cells, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


@each_board
def test_a_robot_can_be_picked_and_every_query_keeps_to_it(name: str) -> None:
    variables = {entry["name"]: entry for entry in BOARDS[name]["templating"]["list"]}
    picking = PICKING[name]
    assert list(variables) == ["datasource", *picking, *(["top"] if name == "fleet" else []), "docs"]
    for picked in picking:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variables[picked]["query"]["query"])
        assert found is not None
        assert found[2] == picked
        assert unknown(found[1], exposed()) == []
        # two hundred names would be a query that some proxies cut; and fleet-wide alerts have no robot_id
        assert not variables[picked]["includeAll"] or variables[picked]["allValue"] == ".*"
    for expression in queries(name):
        for metric, labels in selectors(resolved(expression))[0]:
            assert set(picking) <= labels, f"{metric} in {expression}"


@each_board
def test_queries_ask_for_metrics_and_labels_that_are_exposed(name: str) -> None:
    known = exposed() | RECORDED
    assert {expression: unknown(resolved(expression), known) for expression in queries(name)} == {
        expression: [] for expression in queries(name)
    }


@each_board
def test_legends_name_labels_that_the_query_keeps(name: str) -> None:
    known = exposed() | RECORDED
    for panel in shown(name):
        for target in panel["targets"]:
            metrics, grouped = selectors(resolved(target["expr"]))
            kept = grouped or {label for metric, _ in metrics for label in known[metric]}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_promtool_accepts_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:query{number}", "expr": resolved(expression)}
        for number, expression in enumerate([*queries("fleet"), *queries("robot")])
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}), encoding="utf-8")
    command = [promtool(), "check", "rules", "--lint=none", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_is_on_a_dashboard() -> None:
    """A figure on no dashboard was not worth counting: a new one gets its place in robot.json."""
    drawn = " ".join([*queries("fleet"), *queries("robot")])
    families = text_string_to_metric_families(Metrics().exposition().decode())
    names = [family.name for family in families if not family.name.endswith("_created")]
    assert [name for name in names if not re.search(rf"\b{name}(_total|_bucket|_sum|_count)?\b", drawn)] == []


def test_the_fleet_leads_to_its_robots_and_back() -> None:
    assert "/d/reflex-robot?var-robot_id=" in json.dumps(BOARDS["fleet"])
    assert BOARDS["robot"]["links"][0]["url"] == "/d/reflex-fleet"
