# SPDX-License-Identifier: Apache-2.0
"""The order of the wedges, written here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from reflex_core.errors import InferenceError
from reflex_core.values import Request, Served
from reflex_core.wedges.wedge import Proceed, Wedge

# outermost first; a wedge that these settings do not need is simply absent
ORDER = (
    "history", "telemetry", "admission", "latency", "guard", "deadline", "cloud", "router", "breaker", "a2c2", "policy",
)  # fmt: skip


def middleware_chain(wedges: Mapping[str, Wedge]) -> Proceed:
    """Return the wedges as one call, in ORDER. Raises ValueError for a wedge that has no place."""
    unplaced = set(wedges) - set(ORDER)
    if unplaced:
        raise ValueError(f"no place in the middleware chain for {', '.join(sorted(unplaced))}")
    call: Proceed = _no_policy
    for name in reversed(ORDER):
        if name in wedges:
            call = partial(wedges[name], proceed=call)
    return call


def _no_policy(_: Request) -> Served:
    raise InferenceError("the middleware chain has no policy")
