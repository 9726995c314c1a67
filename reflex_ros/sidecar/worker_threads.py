# SPDX-License-Identifier: Apache-2.0
"""Threads that work for an event loop: one future of asyncio for each job.

A ThreadPoolExecutor makes two futures with a condition each for the same hop, and takes twice as long for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
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

    def run(self) -> Callable[[], None]:
        """Make the call on this thread, unless it was given up; return what hands the result to the event loop."""
        with self._lock:
            if self._begun or self._call is None:
                return _nothing
            self._begun, call = True, self._call
        found, error = None, None
        try:
            found = call()
        except BaseException as raised:
            error = raised
        del call
        self._ended()
        return partial(_hand_over, self.answer, found, error)

    def _ended(self) -> None:
        with self._lock:
            self._over, self._call = True, None
            callbacks, self._when_over = self._when_over, []
        for callback in callbacks:
            callback()


class WorkerThreads:
    """`count` threads that take jobs in order. Jobs are submitted on the event loop.

    A job goes to the idle thread that worked last: its stack, and the pictures' memory that it freed, are in the processor's cache.
    """

    def __init__(self, count: int, name: str) -> None:
        """name: of the threads, which are numbered."""
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()  # empty while a thread is idle
        self._ended = False
        inboxes = [SimpleQueue[Job | None]() for _ in range(count)]
        self._idle = inboxes[::-1]  # the one that worked last at the end
        self._threads = [
            threading.Thread(target=self._work, args=(inbox,), name=f"{name}_{number}")
            for number, inbox in enumerate(inboxes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Any]) -> Job:
        """Queue a call; await the job's answer. After `shutdown` it is cancelled at once."""
        job = Job(asyncio.get_running_loop().create_future(), call)
        with self._lock:
            ended = self._ended
            inbox = self._idle.pop() if self._idle else None
            if inbox is None and not ended:
                self._waiting.append(job)
        if ended:  # no thread would ever take it
            job.give_up()
            job.answer.cancel()
        elif inbox is not None:
            inbox.put(job)
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
        with self._lock:
            self._ended = True
            jobs, idle = list(self._waiting), list(self._idle)
            self._waiting.clear()
            self._idle.clear()
        for job in jobs:
            job.give_up()
            job.answer.cancel()
        for inbox in idle:
            inbox.put(None)

    def _work(self, inbox: SimpleQueue[Job | None]) -> None:
        while (job := inbox.get()) is not None:
            while job is not None:
                hand_over = job.run()
                del job  # it holds the images of its request until the next one comes
                job = self._next(
                    inbox
                )  # before the answer goes out: its client's next request finds this thread idle
                hand_over()
                del hand_over

    def _next(self, inbox: SimpleQueue[Job | None]) -> Job | None:
        """Return the job that has waited longest; None where none does, and then the thread is idle, or is to end."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._ended:
                inbox.put(None)
            else:
                self._idle.append(inbox)
            return None


def _nothing() -> None:
    pass


def _hand_over(answer: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    """Have the event loop deliver a result, from a worker."""
    with suppress(RuntimeError):  # the loop has ended, and the caller with it
        answer.get_loop().call_soon_threadsafe(_deliver, answer, found, error)


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
