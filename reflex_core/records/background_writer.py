# SPDX-License-Identifier: Apache-2.0
"""Writing on a thread of its own that outlives a full disk: what every recorder is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from reflex_core.concurrency.batch_queue import MAX_BYTES, MAX_ITEMS, BatchQueue

RETRY_S = 5.0

Item = TypeVar("Item")


class BackgroundWriter(Generic[Item]):
    """A batch queue whose records are written, or lost and counted, and never waited for.

    After a failure `problem` holds the reason, and records within `retry_s` are lost without an attempt; the first attempt
    that succeeds ends that.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[[Sequence[Item]], None],
        *,
        slug: str,
        failed: Callable[[Exception], None],
        recovered: Callable[[], None],
        errors: tuple[type[Exception], ...] = (OSError,),
        retry_s: float = RETRY_S,
        flush_interval_s: float = 1.0,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        at_once: bool = False,
    ) -> None:
        """Start the thread.

        Args:
            name: of the thread and in log lines.
            handler: is given every batch, on the thread; it writes inside `attempt`.
            slug: what `problem` begins with.
            failed: is called at each failure, before `problem` changes: it is empty where all was well.
            recovered: is called when writing succeeds again, while `problem` still holds the reason.
            errors: what counts as a failure to write; anything else is a fault, which the queue logs.
            retry_s: seconds from a failure to the next attempt.
            flush_interval_s: of the queue.
            max_items: of the queue.
            max_bytes: of the queue.
            at_once: of the queue.
        """
        self._slug, self._errors, self._retry_s = slug, errors, retry_s
        self._on_failure, self._on_recovery = failed, recovered
        self._problem = ""
        self._retry_at_s = 0.0
        self._written = self._lost = 0
        self._queue: BatchQueue[Item] = BatchQueue(
            name, handler, flush_interval_s=flush_interval_s, max_items=max_items, max_bytes=max_bytes,
            at_once=at_once,
        )  # fmt: skip

    @property
    def problem(self) -> str:
        """Why nothing can be written; empty while all is well."""
        return self._problem

    @property
    def written(self) -> int:
        """What `wrote` has counted."""
        return self._written

    @property
    def dropped(self) -> int:
        """Records that no attempt wrote, and items for which the queue had no room."""
        return self._queue.dropped + self._lost

    @property
    def refused(self) -> int:
        """Items for which the queue had no room, or that came after `close`."""
        return self._queue.dropped

    def put(self, item: Item, size_bytes: int = 0) -> bool:
        """Enqueue one item without waiting. False when it was dropped."""
        return self._queue.put(item, size_bytes)

    def close(self, timeout_s: float) -> bool:
        """Refuse new items and handle what waits. False when that took longer than `timeout_s`."""
        return self._queue.close(timeout_s)

    def attempt(self, count: int, write: Callable[[], None]) -> None:
        """Write `count` records, unless it is too early after a failure. For the queue's thread.

        What `write` has counted with `wrote` or `lose` before it fails stays so; the rest of the records is lost.
        """
        if self._problem and time.monotonic() < self._retry_at_s:
            self._lost += count
            return
        settled = self._written + self._lost
        try:
            write()
        except self._errors as error:
            self._lost += max(0, count - (self._written + self._lost - settled))
            self.fail(error)
            return
        if self._problem:
            self._on_recovery()
            self._problem = ""

    def wrote(self, count: int) -> None:
        """Count records that are where they belong."""
        self._written += count

    def lose(self, count: int) -> None:
        """Count records that could not even be made."""
        self._lost += count

    def fail(self, error: Exception) -> None:
        """Begin or prolong the time without attempts, for an error from outside of one."""
        self._retry_at_s = time.monotonic() + self._retry_s
        self._on_failure(error)
        self._problem = f"{self._slug}: {getattr(error, 'strerror', None) or error}"
