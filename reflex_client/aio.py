# SPDX-License-Identifier: Apache-2.0
"""The same for asyncio. Each request runs in a thread; one that is cancelled is given up at once."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable, Mapping, TypeVar

from reflex_client.errors import ReflexClientError
from reflex_client.play.pacing import Pace, require_rate
from reflex_client.play.playback import Playback, Row
from reflex_client.play.player import AGAIN_S, MARGIN_S
from reflex_client.policy import Episode, Policy
from reflex_client.reply import Reply
from reflex_client.request import Images
from reflex_client.transport.connection import Call

THREADS = 8

T = TypeVar("T")


class AsyncPolicy:
    """The asyncio twin of Policy, with the same arguments; `async with` closes it."""

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str | None = None, **options: Any) -> None:
        self._policy = Policy(url, key, **options)
        self._threads = ThreadPoolExecutor(THREADS, "reflex-client")

    async def __aenter__(self) -> AsyncPolicy:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._policy.close()
        self._threads.shutdown(wait=False)

    async def act(
        self, images: Images = None, state: Any = None, instruction: str = "", **more: Any
    ) -> Reply:
        """Return the action chunk for one observation; as `Policy.act`."""
        call = Call()
        work = functools.partial(self._policy.act, images, state, instruction, call=call, **more)
        return await self._run(work, call.abort)

    def episode(self, episode_id: str | None = None, instruction: str = "") -> AsyncEpisode:
        """Return an episode; as `Policy.episode`."""
        return AsyncEpisode(self, self._policy.episode(episode_id, instruction))

    async def config(self) -> Mapping[str, Any]:
        """Return the server's `/config`."""
        return await self._run(self._policy.config)

    async def health(self) -> Mapping[str, Any]:
        """Return the server's `/health`. Raises UnavailableError while it is not ready."""
        return await self._run(self._policy.health)

    async def wait_until_ready(self, timeout_s: float = 120.0) -> None:
        """Return once the server is ready. Raises OutOfTimeError."""
        await self._run(functools.partial(self._policy.wait_until_ready, timeout_s))

    async def _run(self, work: Callable[[], T], give_up: Callable[[], None] = lambda: None) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except asyncio.CancelledError:
            give_up()
            raise


class AsyncEpisode:
    """The asyncio twin of Episode."""

    def __init__(self, policy: AsyncPolicy, episode: Episode) -> None:
        self._policy, self._episode = policy, episode

    async def __aenter__(self) -> AsyncEpisode:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._episode.abort()

    @property
    def id(self) -> str:
        """Its `episode_id`."""
        return self._episode.id

    async def act(
        self, images: Images = None, state: Any = None, instruction: str | None = None, **more: Any
    ) -> Reply:
        """Return the next chunk of the episode; as `Episode.act`."""
        work = functools.partial(self._episode.act, images, state, instruction, **more)
        return await self._policy._run(work, self._episode.abort)  # noqa: SLF001 - its twin

    async def observe(
        self, images: Images = None, state: Any = None, instruction: str | None = None
    ) -> Mapping[str, Any]:
        """Have the server keep an observation for the next chunks; as `Episode.observe`."""
        work = functools.partial(self._episode.observe, images, state, instruction)
        return await self._policy._run(work, self._episode.abort)  # noqa: SLF001 - its twin

    async def outcome(
        self, *, success: bool, score: float | None = None, note: str = ""
    ) -> Mapping[str, Any]:
        """Report how the episode ended."""
        work = functools.partial(self._episode.outcome, success=success, score=score, note=note)
        return await self._policy._run(work)  # noqa: SLF001 - its twin

    async def play(
        self,
        observe: Callable[[], Awaitable[Mapping[str, Any]]],
        *,
        execution_horizon: int | None = None,
        margin_s: float = MARGIN_S,
    ) -> AsyncIterator[Row | None]:
        """Yield one row per `dt_s`, None where there is none and the robot is to hold; as ChunkPlayer.

        observe: a coroutine function that returns the arguments of `act` as they are now.
        """
        playback, pace, clock = Playback(), Pace(), asyncio.get_running_loop().time
        asking: asyncio.Task[None] | None = None

        async def ask() -> None:
            began_s = clock()
            mark = playback.mark(pace.share(began_s))
            observation = await observe()
            try:
                reply = await self.act(
                    **observation,
                    elapsed_rows=mark.elapsed_rows,
                    previous_request_id=mark.previous_request_id,
                )
                require_rate(reply)
            except ReflexClientError as error:
                if not error.temporary and error.slug != "out-of-time":
                    raise
                await asyncio.sleep(AGAIN_S)
                return
            pace.learn(clock() - began_s)
            playback.join(reply, mark)

        try:
            while True:
                if asking is not None and asking.done():
                    asking.result()
                    asking = None
                if asking is None and playback.due(execution_horizon, pace.latency_s, margin_s):
                    asking = asyncio.ensure_future(ask())
                await asyncio.sleep(pace.wait_s(clock()))
                if asking is not None and playback.rows_left == 0:
                    await asyncio.wait({asking}, timeout=_waiting_s(playback))
                row = playback.next()
                if row is not None:
                    pace.handed(clock(), row.dt_s)
                yield row
        finally:
            if asking is not None and not asking.cancel() and not asking.cancelled():
                asking.exception()  # it is over, and its failure of no interest any more


def _waiting_s(playback: Playback) -> float:
    reply = playback.reply
    return reply.dt_s if reply is not None and reply.dt_s > 0 else AGAIN_S
