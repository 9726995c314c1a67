# SPDX-License-Identifier: Apache-2.0
"""Why an answer is what it is, in one sentence: error, hold, fallback, clamp, or the policy's own chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reflex_core.values import HOLD, POLICY

LINES_SHOWN = 2
LINE_LENGTH = 160

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one request. word: ERROR, HELD, FALLBACK, CLAMPED or SERVED. why: the reason, empty for SERVED.

    violations: lines of the guard, as recorded. late: the deadline was exceeded.
    """

    word: str
    why: str = ""
    clamped: bool = False
    held: bool = False
    error: bool = False
    late: bool = False
    violations: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """True where the policy's chunk was served as it was made."""
        return self.word == "SERVED"

    @property
    def sentence(self) -> str:
        """Return word and reason."""
        return f"{self.word}: {self.why}" if self.why else self.word


def verdict_of(document: Document) -> Verdict:
    """Return the verdict of a request record; fields of another type than the schema's count as absent."""
    error, response, guard = (
        _block(document, "error"),
        _block(document, "response"),
        _block(document, "guard"),
    )
    late = _block(document, "deadline").get("exceeded") is True
    if error:
        why = ": ".join(_texts([error.get("slug"), error.get("message")]))
        return Verdict("ERROR", why[:LINE_LENGTH], error=True, late=late)
    violations = _lines(guard.get("violations"))
    clamped = guard.get("clamped") is True
    hold_reason, source = str(response.get("hold_reason") or ""), str(response.get("source") or POLICY)
    known: dict[str, Any] = {"clamped": clamped, "late": late, "violations": violations}
    if hold_reason or source == HOLD:
        reason = hold_reason or ("deadline exceeded" if late else "no chunk in time")
        return Verdict("HELD", _joined([reason], violations), held=True, **known)
    if source != POLICY:
        reason = "deadline exceeded, " if late else ""
        return Verdict("FALLBACK", _joined([f"{reason}answered by {source}"], violations), **known)
    if clamped:
        return Verdict("CLAMPED", _joined([], violations) or "the guard does not report what", **known)
    return Verdict("SERVED", **known)


def _joined(first: list[str], violations: tuple[str, ...]) -> str:
    shown = [*first, *violations[:LINES_SHOWN]]
    more = len(violations) - LINES_SHOWN
    return "; ".join(shown) + (f" and {more} more" if more > 0 else "")


def _lines(value: object) -> tuple[str, ...]:
    return tuple(str(line)[:LINE_LENGTH] for line in value) if isinstance(value, list) else ()


def _texts(values: list[object]) -> list[str]:
    return [str(value) for value in values if value]


def _block(document: Document, name: str) -> Document:
    found = document.get(name)
    return found if isinstance(found, dict) else {}
