# SPDX-License-Identifier: Apache-2.0
"""What was found about one file of an earlier version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

READ, COMMAND, REFUSED = "read", "command", "refused"
VERDICTS = (READ, COMMAND, REFUSED)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One file.

    kind: what it is by its content, '' where it is unknown. verdict: read as it is, read after a command, or refused.
    said: what was found, one sentence. do: the command or what else to do, '' exactly when it is read.
    notes: what is done with it and was not before.
    """

    path: str
    kind: str
    verdict: str
    said: str
    do: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.verdict == READ) == bool(self.do):
            raise ValueError(f"{self.path}: {self.verdict} {'needs no' if self.do else 'needs a'} way out")


def worst(judgements: Iterable[Judgement]) -> str:
    """Return the worst verdict among them; read when there are none."""
    return max((one.verdict for one in judgements), key=VERDICTS.index, default=READ)
