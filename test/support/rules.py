# SPDX-License-Identifier: Apache-2.0
"""The rules of Prometheus that are shipped, and the series that they record."""

from __future__ import annotations

import yaml
from repository import ROOT

DASHBOARDS = ROOT / "dashboards"
RULES = [
    rule
    for group in yaml.safe_load((DASHBOARDS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"]: {"cell", "robot_id", "instance"} for rule in RULES if "record" in rule}
