# SPDX-License-Identifier: Apache-2.0
"""The Grafana dashboards that are shipped, and the queries in them."""

from __future__ import annotations

import json
from typing import Any

from rules import DASHBOARDS

BOARDS = {
    name: json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8")) for name in ("fleet", "robot")
}
MACROS = {"$__rate_interval": "5m", "$__range": "1h", "$top": "10"}


def shown(name: str) -> list[dict[str, Any]]:
    return [panel for panel in BOARDS[name]["panels"] if panel["type"] != "row"]


def queries(name: str) -> list[str]:
    """Every PromQL expression of a dashboard, its annotations among them."""
    expressions = [target["expr"] for panel in shown(name) for target in panel["targets"]]
    return expressions + [entry["expr"] for entry in BOARDS[name]["annotations"]["list"]]


def resolved(expression: str) -> str:
    for macro, value in MACROS.items():
        expression = expression.replace(macro, value)
    return expression
