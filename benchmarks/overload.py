# SPDX-License-Identifier: Apache-2.0
"""Goodput of one server under more and more callers: answers inside their deadline, per second.

Each caller is a robot with a session of its own that sends the next request as soon as the last is answered, states its
deadline in X-Reflex-Deadline-Ms, and after a refusal waits as long as `retry_after_ms` says, with jitter. The levels are run in
turn, in another order each time, and the median of the repeats counts. With --blind the callers state no deadline and try again
after 50 ms: what the same server does where its answers are not heeded.

    python -m benchmarks.overload --repeats 5 --picture docs/pictures/overload.svg
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import orjson

from benchmarks.exports import made_export
from benchmarks.measure import finish, parser, table
from benchmarks.server import post_act, served

CALLERS = (1, 2, 4, 8, 16, 50, 100, 200)
BLIND_PAUSE_S = 0.05
RUN_WORK = (
    10  # products of the export: an inference of about 20 ms, far more than what sends the requests costs
)
STATE = [0.0, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0]  # where the export is calm, so that the guard has nothing to do
STATED = 0.8  # of the deadline: the rest is for the way there and back
SETTLE_S = 0.5  # of each level, before it counts


@dataclass
class Level:
    """What the callers of one run got."""

    good: int = 0
    late: int = 0
    refused: int = 0
    failed: int = 0
    latencies_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One level's goodput per second, its share of late answers and of refusals, and the median latency of the good ones."""

    goodput: float
    late: float
    refused: float
    failed: int
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measure, print a table, and write the picture."""
    made = parser(__doc__ or "")
    made.add_argument("--repeats", type=int, default=3, help="runs of each level [default: 3]")
    made.add_argument("--seconds", type=float, default=4.0, help="length of a run [default: 4]")
    made.add_argument("--deadline-ms", type=float, default=300.0, help="deadline of a request [default: 300]")
    made.add_argument(
        "--blind", action="store_true", help="callers state no deadline and heed no Retry-After"
    )
    made.add_argument("--picture", type=Path, help="write the goodput as SVG")
    options = made.parse_args()
    with TemporaryDirectory() as folder, served(made_export(Path(folder), run_work=RUN_WORK)) as port:
        found = asyncio.run(_levels(port, options))
    peak = max(run.goodput for run in found.values())
    rows = [
        {
            "callers": callers, "goodput/s": f"{run.goodput:.1f}", "of the peak": f"{run.goodput / peak:.0%}",
            "late": f"{run.late:.1%}", "refused/s": f"{run.refused:.1f}", "failed": run.failed,
            "p50 ms": f"{run.p50_ms:.1f}", "p99 ms": f"{run.p99_ms:.1f}",
        }
        for callers, run in found.items()
    ]  # fmt: skip
    print(table(rows))
    least = found[CALLERS[-1]].goodput / peak
    print(f"\nwith {CALLERS[-1]} callers: {least:.0%} of the peak goodput")
    if options.picture:
        options.picture.write_text(
            picture({callers: run.goodput for callers, run in found.items()}), encoding="utf-8"
        )
    finish("overload", {"rows": rows}, options.output)


async def _levels(port: int, options: Any) -> dict[int, Run]:
    runs: dict[int, list[Run]] = {callers: [] for callers in CALLERS}
    for _ in range(options.repeats):
        for callers in random.sample(CALLERS, len(CALLERS)):
            runs[callers].append(await _run(port, callers, options))
    return {callers: _median(of) for callers, of in runs.items()}


async def _run(port: int, callers: int, options: Any) -> Run:
    level, body = Level(), orjson.loads(post_act("camera", STATE, 224, 224, "jpeg").partition(b"\r\n\r\n")[2])
    connector = aiohttp.TCPConnector(limit=0)
    began_s = time.monotonic()
    counts_s, end_s = began_s + SETTLE_S, began_s + SETTLE_S + options.seconds
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        await asyncio.gather(
            *(
                _caller(
                    session,
                    f"robot-{number}",
                    orjson.dumps(body | {"robot_id": f"robot-{number}"}),
                    level,
                    counts_s,
                    end_s,
                    options,
                )
                for number in range(callers)
            )
        )
    answered = max(level.good + level.late, 1)
    ordered = sorted(level.latencies_ms) or [float("nan")]
    return Run(
        level.good / options.seconds, level.late / answered, level.refused / options.seconds, level.failed,
        statistics.median(ordered), ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)],
    )  # fmt: skip


async def _caller(
    session: aiohttp.ClientSession,
    name: str,
    body: bytes,
    level: Level,
    counts_s: float,
    end_s: float,
    options: Any,
) -> None:
    headers = {"X-Session-Id": name, "Content-Type": "application/json"}
    if not options.blind:
        headers["X-Reflex-Deadline-Ms"] = f"{STATED * options.deadline_ms:g}"
    await asyncio.sleep(random.random() * 0.1)
    while (began_s := time.monotonic()) < end_s:
        pause_s = 0.0
        try:
            async with session.post("/act", data=body, headers=headers) as answer:
                reply = await answer.read()
        except aiohttp.ClientError:
            level.failed += 1
            await asyncio.sleep(BLIND_PAUSE_S)
            continue
        now_s = time.monotonic()
        counted = counts_s <= now_s < end_s
        if answer.status == 200:
            in_time = (now_s - began_s) * 1e3 <= options.deadline_ms
            level.good += counted and in_time
            level.late += counted and not in_time
            if counted:
                level.latencies_ms.append((now_s - began_s) * 1e3)
        elif answer.status in (429, 503):
            level.refused += counted
            given_s = orjson.loads(reply).get("retry_after_ms", 1000.0) * 1e-3
            pause_s = BLIND_PAUSE_S if options.blind else given_s * random.uniform(1.0, 1.5)
        else:
            level.failed += 1
        await asyncio.sleep(min(pause_s, max(end_s - time.monotonic(), 0.0)))


def _median(runs: Sequence[Run]) -> Run:
    def of(name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs)

    return Run(
        of("goodput"), of("late"), of("refused"), sum(run.failed for run in runs), of("p50_ms"), of("p99_ms")
    )


def picture(goodput: dict[int, float]) -> str:
    """Return bars of goodput by callers as SVG."""
    most, width, height = max(goodput.values()), 60, 160
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(goodput) + 20} {height + 60}" font-family="sans-serif"'
        ' font-size="12" text-anchor="middle"><title>Answers inside their deadline per second, by number of callers</title>'
    ]
    for place, (callers, value) in enumerate(goodput.items()):
        tall, left = height * value / most, 10 + width * place
        lines.append(
            f'<rect x="{left + 10}" y="{height + 20 - tall:.1f}" width="40" height="{tall:.1f}" fill="#2a6f97"/>'
            f'<text x="{left + 30}" y="{height + 14 - tall:.1f}">{value:.0f}</text>'
            f'<text x="{left + 30}" y="{height + 38}">{callers}</text>'
        )
    lines.append(f'<text x="{(width * len(goodput) + 20) / 2}" y="{height + 54}">callers</text></svg>\n')
    return "".join(lines)


if __name__ == "__main__":
    main()
