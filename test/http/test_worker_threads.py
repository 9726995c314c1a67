# SPDX-License-Identifier: Apache-2.0
"""The hop from the event loop to a worker thread: results, errors, callers that leave, and the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from reflex_ros.sidecar.worker_threads import WorkerThreads


@asynccontextmanager
async def workers(count: int = 1) -> AsyncIterator[WorkerThreads]:
    made = WorkerThreads(count, "test-worker")
    try:
        yield made
    finally:
        made.shutdown()


class Busy:
    """A call that keeps its thread until it is released."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.release.wait(30)
        return "busy"


async def thread_sets(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, 30)


def test_results_and_errors_arrive_and_every_call_is_made_once() -> None:
    made: list[int] = []

    def square(number: int) -> int:
        made.append(number)
        if number == 7:
            raise KeyError(number)
        return number * number

    async def main() -> list[object]:
        async with workers(3) as pool:
            calls = (pool.run(partial(square, number)) for number in range(50))
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(main())
    assert isinstance(answers.pop(7), KeyError)
    assert answers == [number * number for number in range(50) if number != 7]
    assert sorted(made) == list(range(50))


def test_one_thread_takes_jobs_in_order_on_a_thread_of_that_name() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        async with workers() as pool:

            def note(text: str) -> None:
                order.append(f"{text} {threading.current_thread().name}")

            await asyncio.gather(*(pool.run(partial(note, str(number))) for number in range(20)))
        return order

    assert asyncio.run(main()) == [f"{number} test-worker_0" for number in range(20)]


def test_a_caller_that_leaves_before_its_turn_costs_no_work_and_is_over_at_once() -> None:
    async def main() -> tuple[list[str], list[str]]:
        ran: list[str] = []
        over: list[str] = []
        busy = Busy()
        async with workers() as pool:
            first = asyncio.ensure_future(pool.run(busy))
            await thread_sets(busy.begun)
            job = pool.submit(lambda: ran.append("left"))
            job.when_over(lambda: over.append("left"))
            waiting = asyncio.ensure_future(pool.wait(job))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            before_release = list(over)
            busy.release.set()
            assert await first == "busy"
            assert await pool.run(lambda: "next") == "next"
        return ran, before_release

    assert asyncio.run(main()) == ([], ["left"])


def test_a_caller_that_leaves_a_running_job_lets_it_finish_and_only_then_it_is_over() -> None:
    async def main() -> tuple[list[str], list[str]]:
        busy, over = Busy(), []
        ended = threading.Event()

        def note() -> None:
            over.append("over")
            ended.set()

        async with workers() as pool:
            job = pool.submit(busy)
            waiting = asyncio.ensure_future(pool.wait(job))
            await thread_sets(busy.begun)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            job.when_over(lambda: over.append("memory"))
            job.when_over(note)
            during = list(over)
            busy.release.set()
            await thread_sets(ended)
            assert await pool.run(lambda: 5) == 5
        job.when_over(lambda: over.append("again"))
        return during, over

    assert asyncio.run(main()) == ([], ["memory", "over", "again"])


def test_a_shutdown_cancels_what_has_not_begun_and_ends_the_threads() -> None:
    async def main() -> list[threading.Thread]:
        busy = Busy()
        pool = WorkerThreads(2, "test-worker")
        running = [asyncio.ensure_future(pool.run(busy)) for _ in range(2)]
        await thread_sets(busy.begun)
        queued = [asyncio.ensure_future(pool.run(lambda: "never")) for _ in range(5)]
        await asyncio.sleep(0)
        pool.shutdown()
        found = await asyncio.gather(*queued, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)
        busy.release.set()
        assert await asyncio.gather(*running) == ["busy", "busy"]
        return pool._threads

    for thread in asyncio.run(main()):
        thread.join(30)
        assert not thread.is_alive()


def test_a_result_that_comes_after_the_loop_has_ended_harms_nothing() -> None:
    busy = Busy()
    pools: list[WorkerThreads] = []

    async def main() -> None:
        pools.append(WorkerThreads(1, "test-worker"))
        pools[0].submit(busy)
        await thread_sets(busy.begun)

    asyncio.run(main())
    busy.release.set()
    pools[0].shutdown()
    pools[0]._threads[0].join(30)
    assert not pools[0]._threads[0].is_alive()


def test_an_error_that_no_future_takes_still_ends_the_wait() -> None:
    async def main() -> None:
        async with workers() as pool:
            await asyncio.wait_for(pool.run(partial(next, iter(()))), 10)

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(main())


def test_jobs_that_come_one_after_another_are_done_by_one_thread() -> None:
    async def main() -> set[str]:
        async with workers(4) as pool:
            return {await pool.run(thread_name) for _ in range(20)}

    assert len(asyncio.run(main())) == 1


def thread_name() -> str:
    return threading.current_thread().name


def test_a_call_that_comes_after_the_end_is_cancelled_and_not_left_waiting() -> None:
    made: list[int] = []
    over: list[bool] = []

    async def main() -> None:
        async with workers() as pool:
            pool.shutdown()
            job = pool.submit(partial(made.append, 1))
            job.when_over(partial(over.append, True))
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(pool.wait(job), 30)

    asyncio.run(main())
    assert (made, over) == ([], [True])
