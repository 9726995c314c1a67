# SPDX-License-Identifier: Apache-2.0
"""A few threads for work that its caller may stop waiting for. They are reused, and end when idle."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

IDLE_S = 30.0


class Task(Generic[Result]):
    """One call on a worker. The thread that started it may wait for it, or leave."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._context = contextvars.copy_context()  # a trace's span is the caller's on the worker too
        self._call: Callable[[], Result] | None = call
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._finished = False
        self._signal = (
            threading.Lock()
        )  # half the price of an Event, which is a Condition around one of these
        self._signal.acquire()

    def run(self) -> None:
        """Make the call and store its result; on the worker."""
        call, self._call = self._call, None
        assert call is not None
        try:
            self._result = self._context.run(call)
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Wake the caller; on the worker, after `run`."""
        self._finished = True
        self._signal.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait, and return True when the call is over. Only for the thread that started it."""
        if not self._finished and timeout_s > 0:
            self._signal.acquire(timeout=timeout_s)
        return self._finished

    def outcome(self) -> Result:
        """Return the call's result or raise its exception. Only after `wait` returned True."""
        try:
            if self._error is not None:
                raise self._error
            result: Any = self._result
            return result  # type: ignore[no-any-return]
        finally:
            del self  # an exception holds this frame: keep the two from holding each other


class WorkerPool:
    """At most `most` daemon threads. Thread-safe; needs no closing: a thread without work for `idle_s` ends."""

    def __init__(self, most: int, name: str, idle_s: float = IDLE_S) -> None:
        self._most, self._name, self._idle_s = most, name, idle_s
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[Task[Any]] = SimpleQueue()
        self._threads = 0
        self._free = 0

    @property
    def busy(self) -> int:
        """How many calls are being made now."""
        return self._threads - self._free

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._threads

    def start(self, call: Callable[[], Result]) -> Task[Result] | None:
        """Make the call on a thread of its own; None, and nothing happens, when all of them are busy."""
        task = Task(call)
        with self._lock:
            if self._free:
                self._free -= 1
            elif self._threads < self._most:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._threads += 1
            else:
                return None
            self._tasks.put(task)
        return task

    def _work(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=self._idle_s)
            except Empty:
                with self._lock:
                    if not self._tasks.empty():
                        continue  # a caller counted on this thread meanwhile
                    self._free -= 1
                    self._threads -= 1
                return
            task.run()
            with self._lock:
                self._free += 1  # first, so that a caller who asks again at once finds this thread
            task.finish()
            del task  # or an idle thread would keep the whole policy in memory
