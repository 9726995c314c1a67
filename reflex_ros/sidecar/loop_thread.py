# SPDX-License-Identifier: Apache-2.0
"""An event loop on a thread of its own, for exchanges with other servers that callers wait for with a limit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import CancelledError
from reflex_core.policy.cloud_server import REFUSED, TIMEOUT, CloudError

CLOSE_TIMEOUT_S = 5.0
CLOSED = "the connection was closed"

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines for callers on other threads. `end` is awaited at the close, after every exchange was cancelled."""

    def __init__(self, name: str, end: Callable[[], Awaitable[None]]) -> None:
        """name: of the thread, and in log lines."""
        self._name, self._end_exchanges = name, end
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"reflex-{name}", daemon=True)
        self._thread.start()

    def run(
        self, exchange: Coroutine[Any, Any, Result], left_s: float, cancellation: Cancellation | None
    ) -> Result:
        """Return what the exchange gives. Raises CloudError at the limit, CancelledError, and what the exchange raises."""
        try:
            future = asyncio.run_coroutine_threadsafe(exchange, self._loop)
        except RuntimeError as error:  # the loop is closed
            exchange.close()
            raise CloudError(REFUSED, CLOSED) from error
        with (cancellation or Cancellation()).calling(lambda: _cancel(future)):
            try:
                return future.result(max(left_s, 0.0))
            except concurrent.futures.TimeoutError as error:
                future.cancel()
                raise CloudError(TIMEOUT, f"no answer within {left_s * 1e3:.0f} ms") from error
            except concurrent.futures.CancelledError as error:
                if cancellation is not None and cancellation.cancelled:
                    raise CancelledError(
                        "the request was cancelled: its answer came from elsewhere"
                    ) from error
                raise CloudError(REFUSED, CLOSED) from error

    def close(self) -> None:
        """Cancel every exchange and end the thread. May be called twice."""
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CLOSE_TIMEOUT_S)
        except concurrent.futures.TimeoutError:
            log.error("%s: the connections did not close within %.0f s", self._name, CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._end_exchanges()


def _cancel(future: concurrent.futures.Future[Any]) -> None:
    future.cancel()
