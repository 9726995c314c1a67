# SPDX-License-Identifier: Apache-2.0
"""Make Trigger services of plain calls."""

from __future__ import annotations

from collections.abc import Callable

from std_srvs.srv import Trigger

from reflex_core.errors import ReflexError


def answering(action: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    """Return the callback of a Trigger service for a call that returns its message or raises ReflexError."""

    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = action(), True
        except ReflexError as error:
            response.message, response.success = str(error), False
        return response

    return answer
