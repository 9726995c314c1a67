# SPDX-License-Identifier: Apache-2.0
"""Threads that work for an event loop: one queue, and one future of asyncio for each job.

A ThreadPoolExecutor makes two futures with a condition each for the same hop, and takes twice as long for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any


class Job:
    """One call on a worker. answer: what the event loop awaits; cancelled there, a job that has not begun is not run."""

    __slots__ = ("_begun", "_call", "_lock", "_over", "_when_over", "answer")

    def __init__(self, answer: asyncio.Future[Any], call: Callable[[], Any]) -> None:
        self.answer = answer
        self._call: Callable[[], Any] | None = call
        self._lock = threading.Lock()
        self._begun = self._over = False
        self._when_over: list[Callable[[], None]] = []

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call back once, as soon as nothing uses the job's arguments any more, on whichever thread that is; at once if so now.

        Several callbacks are called in the order in which they came.
        """
        with self._lock:
            if not self._over:
                self._when_over.append(callback)
                return
        callback()

    @property
    def over(self) -> bool:
        """Whether nothing uses the job's arguments any more."""
        with self._lock:
            return self._over

    def give_up(self) -> None:
        """Drop a job whose answer is not wanted any more, if it has not begun."""
        with self._lock:
            if self._begun:
                return
            self._begun = True
        self._ended()

    def run(self) -> None:
        """Make the call on this thread, unless it was given up, and hand the result to the event loop."""
        with self._lock:
            if self._begun or self._call is None:
                return
            self._begun, call = True, self._call
        found, error = None, None
        try:
            found = call()
        except BaseException as raised:
            error = raised
        del call
        self._ended()
        with suppress(RuntimeError):  # the loop has ended, and the caller with it
            self.answer.get_loop().call_soon_threadsafe(_deliver, self.answer, found, error)

    def _ended(self) -> None:
        with self._lock:
            self._over, self._call = True, None
            callbacks, self._when_over = self._when_over, []
        for callback in callbacks:
            callback()


class WorkerThreads:
    """`count` threads that take jobs in order. Jobs are submitted on the event loop."""

    def __init__(self, count: int, name: str) -> None:
        """name: of the threads, which are numbered."""
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{number}") for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Any]) -> Job:
        """Queue a call; await the job's answer."""
        job = Job(asyncio.get_running_loop().create_future(), call)
        self._jobs.put(job)
        return job

    async def run(self, call: Callable[[], Any]) -> Any:
        """Make a call on a worker and return its result. Not run if the caller is cancelled before it began."""
        return await self.wait(self.submit(call))

    async def wait(self, job: Job) -> Any:
        """Return the result of a job, and give it up if the caller is cancelled."""
        try:
            return await job.answer
        except asyncio.CancelledError:
            job.give_up()
            raise

    def shutdown(self) -> None:
        """End the threads after their present jobs; jobs that have not begun are cancelled. Does not wait. On the event loop."""
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.give_up()
                    job.answer.cancel()
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # it holds the images of its request until the next one comes


def _deliver(answer: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    if answer.done():
        return  # cancelled: its client has gone
    if isinstance(error, StopIteration):  # no future takes it, and its caller would wait for ever
        raised = RuntimeError("the call raised StopIteration")
        raised.__cause__ = error
        error = raised
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(found)
