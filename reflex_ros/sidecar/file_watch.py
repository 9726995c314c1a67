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
AGAIN_AFTER_LOOKS = 10
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
    """Look at the files twice a second until this is left. What cannot be used changes nothing but a counter and a log line.

    It is read again every few seconds also while it stays the same: the cause may have been this process, without a file
    descriptor left, and a key that was revoked must not stay because of that. What is found again is not logged again.
    """
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
    failure, looks = "", 0
    first = await loop.run_in_executor(None, _stamp, watched.paths)
    while True:
        stamp = await loop.run_in_executor(None, _stamp, watched.paths)
        looks += 1
        if stamp == before and (stamp != used or (failure and looks >= AGAIN_AFTER_LOOKS)):
            known = failure if stamp == used else ""
            failure = await _read(watched, metrics, known, quiet=used is None and stamp == first)
            used, looks = stamp, 0
        before = stamp
        await asyncio.sleep(every_s)


async def _read(watched: WatchedFiles, metrics: Metrics, known: str, *, quiet: bool) -> str:
    """Read and apply; return why that failed, "" where it did not.

    known: the failure of the last time, which is no news; quiet: they were read at the start already, so that a success is none.
    """
    try:
        watched.apply(await asyncio.get_running_loop().run_in_executor(None, watched.load))
    except Exception as error:
        failure = str(error) if isinstance(error, ReflexError) else f"reading failed ({type(error).__name__})"
        if failure != known:
            metrics.file_reloads.labels(watched.name, FAILED).inc()
            unexpected = None if isinstance(error, ReflexError) else error
            log.error("%s: %s; the earlier ones stay in use", watched.name, failure, exc_info=unexpected)
        return failure
    if not quiet:
        metrics.file_reloads.labels(watched.name, READ).inc()
        log.info("%s: read again, as the file has changed", watched.name)
    return ""


def _stamp(paths: Sequence[Path]) -> Stamp:
    """Return what changes with the content of each file: also where a link in the path points elsewhere, as Kubernetes does it."""
    return tuple(_of(path) for path in paths)


def _of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
