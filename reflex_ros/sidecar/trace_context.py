# SPDX-License-Identifier: Apache-2.0
"""Parse the W3C trace context headers of a request. Malformed ones are ignored, as W3C requires."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # comes with aiohttp
    from multidict import CIMultiDictProxy

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
PARENT_CHARACTERS = 256  # a later version may add fields to the 55 characters of version 00
STATE_CHARACTERS = 2048
STATE_MEMBERS = 32

_PARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)
_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"({_KEY})={_VALUE}")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The caller's span; both empty without one."""

    traceparent: str = ""
    tracestate: str = ""


NO_PARENT = TraceContext()


def trace_context(headers: CIMultiDictProxy[str]) -> TraceContext:
    """Return the valid traceparent of a request and its tracestate. A bad tracestate does not cost the traceparent."""
    if TRACEPARENT not in headers:
        return NO_PARENT
    parents = headers.getall(TRACEPARENT)
    if len(parents) != 1 or not _is_parent(parents[0].strip(" \t")):
        return NO_PARENT
    return TraceContext(parents[0].strip(" \t"), _state(",".join(headers.getall(TRACESTATE, ()))))


def _is_parent(text: str) -> bool:
    found = _PARENT.fullmatch(text) if len(text) <= PARENT_CHARACTERS else None
    return found is not None and (found["version"] != "00" or found["more"] is None)


def _state(text: str) -> str:
    if len(text) > STATE_CHARACTERS:
        return ""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    matched = [_MEMBER.fullmatch(member) for member in members]
    keys = {found[1] for found in matched if found is not None}
    # one key twice, or one member that is none, makes the whole list worthless
    return ",".join(members) if len(keys) == len(members) <= STATE_MEMBERS else ""
