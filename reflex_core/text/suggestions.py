# SPDX-License-Identifier: Apache-2.0
"""Suggest the known name that is most similar to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

CUTOFF = 0.6  # of difflib's ratio: `safety` still finds `safety_config`, `limits` finds nothing


def nearest(name: str, known: Collection[str], cutoff: float = CUTOFF) -> str:
    """Return the known name that is most like `name`, or '' where none is.

    Case, dashes and the groups of a nested name (`time.deadline`) do not count.
    """
    plain = name.lower().replace("-", "_")
    for tried in dict.fromkeys((plain, plain.rpartition(".")[2])):
        if found := difflib.get_close_matches(tried, known, n=1, cutoff=cutoff):
            return found[0]
    return ""


def no_such(what: str, names: Sequence[str], known: Collection[str]) -> str:
    """Return the message that refuses unknown names: "no such setting 'prot'; did you mean port?"."""
    if len(names) == 1:
        meant = nearest(names[0], known)
        return f"no such {what} {names[0]!r:.100}" + (f"; did you mean {meant}?" if meant else "")
    meant_by = {name: nearest(name, known) for name in names}
    message = (
        f"{name!r:.100}" + (f" (did you mean {near}?)" if near else "") for name, near in meant_by.items()
    )
    return f"no such {what}s: {', '.join(message)}"
