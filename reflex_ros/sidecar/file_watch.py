# SPDX-License-Identifier: Apache-2.0
"""Read files again when they change, so that keys and certificates are replaced without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflex_core.errors import ReflexError
from reflex_core.metrics.metrics import Metrics

LOOKED_EVERY_S = 0.5
READ, FAILED = "read", "failed"

Stamp = tuple[tuple[int, ...] | None, ...]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchedFiles:
    """Files that belong together. load: reads them in a worker thread, raises ReflexError; apply: takes that, on the event loop.

    name: of them in metrics and log lines.
    """

    name: str
    paths: Sequence[Path]
    load: Callable[[], Any]
    apply: Callable[[Any], None]


@asynccontextmanager
async def watching(
    watched: WatchedFiles, metrics: Metrics, every_s: float = LOOKED_EVERY_S
) -> AsyncIterator[None]:
    """Look at the files twice a second until this is left. What cannot be used changes nothing but a counter and a log line."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(_watch(watched, metrics, every_s))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch(watched: WatchedFiles, metrics: Metrics, every_s: float) -> None:
    """Read what has changed once it stays the same for one more look: a file that is being written begins empty."""
    loop = asyncio.get_running_loop()
    used: Stamp | None = None
    before: Stamp | None = None
    first = await loop.run_in_executor(None, _stamp, watched.paths)
    while True:
        stamp = await loop.run_in_executor(None, _stamp, watched.paths)
        if stamp == before and stamp != used:
            await _read(watched, metrics, quiet=used is None and stamp == first)
            used = stamp
        before = stamp
        await asyncio.sleep(every_s)


async def _read(watched: WatchedFiles, metrics: Metrics, *, quiet: bool) -> None:
    """Read and apply. quiet: they were read at the start already, so that a success is no news."""
    try:
        watched.apply(await asyncio.get_running_loop().run_in_executor(None, watched.load))
    except ReflexError as error:
        metrics.file_reloads.labels(watched.name, FAILED).inc()
        log.error("%s: %s; the earlier ones stay in use", watched.name, error)
    except Exception as error:
        metrics.file_reloads.labels(watched.name, FAILED).inc()
        log.exception(
            "%s: reading failed (%s); the earlier ones stay in use", watched.name, type(error).__name__
        )
    else:
        if not quiet:
            metrics.file_reloads.labels(watched.name, READ).inc()
            log.info("%s: read again, as the file has changed", watched.name)


def _stamp(paths: Sequence[Path]) -> Stamp:
    """Return what changes with the content of each file: also where a link in the path points elsewhere, as Kubernetes does it."""
    return tuple(_of(path) for path in paths)


def _of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
