# SPDX-License-Identifier: Apache-2.0
"""A bounded queue with one background thread behind it: what a request pays is putting an item in."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")

MAX_ITEMS = 4096
MAX_BYTES = 256 << 20
BATCH_ITEMS = 64
BATCH_BYTES = 8 << 20

log = logging.getLogger(__name__)


class BatchQueue(Generic[Item]):
    """Calls `handler(batch)` on its own thread, in order, at least every `flush_interval_s` while there is anything.

    Bounded by items and by bytes, because one item may hold camera frames. A full queue drops the NEW item and counts
    it. An exception in the handler is logged once, counted, and ends nothing.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[[Sequence[Item]], None],
        *,
        flush_interval_s: float = 1.0,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        at_once: bool = False,
    ) -> None:
        """Start the thread. at_once: for callers that wait for the handler; the thread is woken for every item."""
        self._name = name
        self._handler = handler
        self._flush_interval_s = flush_interval_s
        self._max_items, self._max_bytes = max_items, max_bytes
        # half full is early enough to start, whatever the interval is
        self._early_items = min(BATCH_ITEMS, max(1, max_items // 2))
        self._at_once = at_once
        self._early_bytes = min(BATCH_BYTES, max(1, max_bytes // 2))
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._failures = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"batch-queue-{name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Items refused because the queue was full or closed."""
        return self._dropped

    @property
    def failures(self) -> int:
        """Batches that the handler raised on."""
        return self._failures

    @property
    def waiting(self) -> int:
        """Items not yet taken by the thread."""
        return len(self._items)

    def put(self, item: Item, size_bytes: int = 0) -> bool:
        """Hand one item over without ever waiting for the handler. False when it was dropped."""
        with self._lock:
            # an item larger than the whole bound is still taken when nothing else waits, or it could never be
            full = len(self._items) >= self._max_items or (
                self._items and self._bytes + size_bytes > self._max_bytes
            )
            if full or self._closing:
                self._dropped += 1
                return False
            self._items.append((item, size_bytes))
            self._bytes += size_bytes
            early = self._at_once or len(self._items) == self._early_items or self._bytes >= self._early_bytes
        # waking the thread for every item would make it compete with the request for the interpreter
        if early:
            self._wake.set()
        return True

    def close(self, timeout_s: float = 5.0) -> bool:
        """Refuse new items and hand what waits to the handler. False when that took longer than `timeout_s`."""
        with self._lock:
            self._closing = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error(
                "batch queue %s: %d items not handled within %.1f s", self._name, self.waiting, timeout_s
            )
            return False
        return True

    def _run(self) -> None:
        while True:
            self._wake.wait(self._flush_interval_s)
            self._wake.clear()
            closing = self._closing  # read before emptying: nothing can be put after it became true
            self._empty()
            if closing:
                return

    def _empty(self) -> None:
        while batch := self._take():
            try:
                self._handler(batch)
            except Exception:
                self._failures += 1
                if self._failures == 1:
                    log.exception(
                        "batch queue %s: %d items lost; later failures are only counted",
                        self._name,
                        len(batch),
                    )

    def _take(self) -> list[Item]:
        with self._lock:
            batch: list[Item] = []
            size_bytes = 0
            while self._items and len(batch) < BATCH_ITEMS and size_bytes < BATCH_BYTES:
                item, item_bytes = self._items.popleft()
                batch.append(item)
                size_bytes += item_bytes
            self._bytes -= size_bytes
            return batch
