# SPDX-License-Identifier: Apache-2.0
"""What a wedge is: it may act before, after, or instead of `proceed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reflex_core.values import Request, Served

Proceed = Callable[[Request], Served]


class Wedge(Protocol):
    """One link of the middleware chain. Called from several threads at once."""

    def __call__(self, request: Request, proceed: Proceed) -> Served:
        """Answer the request, usually by calling `proceed` and adding to its answer."""
        ...
