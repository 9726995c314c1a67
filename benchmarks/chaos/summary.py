# SPDX-License-Identifier: Apache-2.0
"""The table of a run, a line for each kind of fault, and the line that runs it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.chaos.robots import Run, Violation
from benchmarks.chaos.schedule import Injected
from benchmarks.measure import table

SHOWN = 60


def rows(injected: Sequence[Injected], violations: Sequence[Violation]) -> list[dict[str, object]]:
    """Return a row for each kind of fault."""
    found = []
    for kind in sorted({each.kind for each in injected}):
        of = [each for each in injected if each.kind == kind]
        again = [each.again_s for each in of]
        seen = Counter(each.seen for each in of).most_common(1)[0][0]
        found.append({
            "fault": kind, "injected": len(of), "again p50 s": float(np.median(again)), "again max s": float(max(again)),
            "violations": sum(during(each, violations) for each in of), "seen (most often)": seen[:SHOWN],
        })  # fmt: skip
    return found


def during(fault: Injected, violations: Sequence[Violation]) -> int:
    """Return how many violations of a fault's server fell into it, or the time until it was served again."""
    end_s = fault.began_s + fault.took_s + fault.again_s
    return sum(
        each.server in (fault.server, "") and fault.began_s <= each.at_s <= end_s + 0.1 for each in violations
    )


def results(
    run: Run, injected: Sequence[Injected], command: str, seconds: float, more: dict[str, Any]
) -> dict[str, Any]:
    """Return what the JSON file of a run holds."""
    return {
        "command": command, "seed": run.seed, "requests": run.done, "seconds": seconds, "faults": len(injected),
        "outcomes": dict(run.outcomes.most_common()), "compared": dict(run.compared.most_common()), **more,
        "kinds": rows(injected, run.violations), "violations": [asdict(each) for each in run.violations],
        "injected": [asdict(each) for each in sorted(injected, key=lambda each: each.number)],
    }  # fmt: skip


def text(found: dict[str, Any]) -> str:
    """Return what is printed."""
    lines = [
        table(found["kinds"]),
        "",
        f"{found['requests']} requests, {found['faults']} faults in {found['seconds']:.0f} s: "
        + ", ".join(f"{count} {name}" for name, count in found["outcomes"].items()),
        "compared: " + ", ".join(f"{count} {name}" for name, count in found["compared"].items()),
        f"the node's chunks: {found.get('node chunks')}; answers looked for in the records: {found.get('records')}, "
        f"not looked for, as their server began anew meanwhile: {found.get('between lives')}",
        f"{len(found['violations'])} violations",
    ]
    for kind, count in Counter(each["kind"] for each in found["violations"]).most_common():
        first = next(each for each in found["violations"] if each["kind"] == kind)
        lines.append(
            f"  {count} x {kind}; first at {first['at_s']:.1f} s, request {first['done']}, {first['server']} {first['robot']}:"
            f" {first['text']}\n    again: {found['command']}"
        )
    return "\n".join(lines)
