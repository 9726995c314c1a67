# SPDX-License-Identifier: Apache-2.0
"""What one check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"
LEVELS = (OK, WARN, FAIL)


@dataclass(frozen=True, slots=True)
class Finding:
    """name: of the check. level: ok, warn (it works, but), fail. said: what was seen. do: the way out, '' when ok."""

    name: str
    level: str
    said: str
    do: str = ""

    def __post_init__(self) -> None:
        if (self.level == OK) == bool(self.do):
            raise ValueError(f"{self.name}: {self.level} {'needs no' if self.do else 'needs a'} way out")


def worst(findings: Iterable[Finding]) -> str:
    """Return the worst level among the findings; ok when there are none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=OK)
