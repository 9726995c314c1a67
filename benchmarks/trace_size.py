# SPDX-License-Identifier: Apache-2.0
"""What recording costs: bytes per 1000 requests, time on the request path and on the background thread.

Requests are answered by real policies, each with a picture, a state and a seed of its own, and handed over in groups
of 20, as many as a second has at 20 Hz. The audit log is measured beside the trace.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.exports import Measured, embedded, made_export, policy_of
from benchmarks.measure import finish, parser, table
from benchmarks.server import picture
from reflex_core.policy.base import Policy
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.trace.header import session_of
from reflex_core.records.trace.reader import TraceReader
from reflex_core.records.trace.writer import TraceWriter
from reflex_core.values import ActionChunk, Frame, Inference, Observation, Request, Served

SIZE = 224
PER_FLUSH = 20
FLUSH_S = 0.05  # shorter than the server's second, so that the benchmark ends; the groups are the same
POLL_S = 0.005
COLUMNS = (
    ("full", True),
    ("full", False),
    ("hash_only", True),
    ("hash_only", False),
    ("none", True),
    ("none", False),
)

Pair = tuple[Request, Served]


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row per policy and mode."""
    options = parser(__doc__ or "")
    options.add_argument("--requests", type=int, default=1000)
    chosen = options.parse_args(argv)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for measured in (made_export(Path(folder)), embedded()):
            rows += measure(measured, chosen.requests, Path(folder))
    print(table(rows))
    finish("trace_size", {"rows": rows}, chosen.output)
    return 0


def measure(measured: Measured, count: int, folder: Path) -> list[dict[str, object]]:
    """The rows of one policy."""
    policy = policy_of(measured)
    pairs = [pair(policy, number) for number in range(count)]
    shape = "x".join(map(str, pairs[0][1].chunk.actions.shape))
    jpeg_bytes = statistics.mean(len(next(iter(r.observation.frames.values())).data) for r, _ in pairs)
    rows = []
    for images, packed in COLUMNS:
        where = folder / f"{measured.name}-{images}-{packed}"
        trace = TraceWriter(
            where, session_of(policy, None), images=images, gzip=packed, flush_interval_s=FLUSH_S
        )
        put_us, busy_us = drive(trace, pairs)
        trace.close(60)
        (path,) = where.iterdir()
        rows.append(
            {
                "policy": f"{measured.name} {shape}, JPEG {jpeg_bytes / 1e3:.1f} kB",
                "file": f"trace {images}{' gzip' if packed else ''}",
                "MB per 1000": path.stat().st_size / 1e3 / count,
                "request path us p50": put_us[0],
                "p99 ": put_us[1],
                "thread us per request": busy_us,
                "read per s": round(count / read_s(path)),
            }
        )
    where = folder / f"{measured.name}-audit"
    audit = AuditLog(where, robot_id="arm7", flush_interval_s=FLUSH_S)
    put_us, busy_us = drive(audit, pairs)
    audit.close(60)
    size = sum(path.stat().st_size for path in where.iterdir())
    rows.append(
        rows[0]
        | {
            "file": "audit log",
            "MB per 1000": size / 1e3 / count,
            "request path us p50": put_us[0],
            "p99 ": put_us[1],
            "thread us per request": busy_us,
            "read per s": "",
        }
    )
    return rows


def pair(policy: Policy, number: int) -> Pair:
    """One request with everything of its own, and the policy's real answer."""
    rng = np.random.default_rng(number)
    pixels = np.clip(picture(SIZE, SIZE).astype(np.int16) + rng.normal(0, 2, (SIZE, SIZE, 3)), 0, 255)
    jpeg = simplejpeg.encode_jpeg(pixels.astype(np.uint8), quality=85, colorspace="RGB")
    canary = policy.canary()
    frames = {camera: Frame(jpeg, "jpeg", SIZE, SIZE) for camera in canary.frames}
    state = (
        None
        if canary.state is None
        else canary.state + rng.normal(0, 0.1, canary.state.shape).astype(np.float32)
    )
    stamp_ns = 1_700_000_000_000_000_000 + number * 50_000_000
    observation = Observation(frames, state, "pick up the red cup", stamp_ns, float(rng.uniform(5, 30)))
    predicted = policy.predict(observation, seed=number)
    first = dict(
        [next(iter(frames.items()))]
    )  # one camera is counted: the others would repeat the same picture
    request = Request(replace(observation, frames=first), 0, f"0a1b2c3d-{number}", f"episode-{number // 200}")
    return request, Served(
        chunk=ActionChunk(predicted.actions, policy.binding.action_names, policy.binding.dt_s),
        raw_actions=predicted.actions,
        request_id=request.request_id,
        episode_id=request.episode_id,
        seed=274_877_906_944 + number,
        slot="prod",
        model_version=policy.export.model_version,
        inference=Inference(
            policy.inference_mode,
            predicted.denoise_steps,
            predicted.denoise_steps,
            stages_ms=predicted.stages_ms,
        ),
        latency_ms=float(rng.uniform(8, 20)),
    )


def drive(listener: TraceWriter | AuditLog, pairs: Sequence[Pair]) -> tuple[tuple[float, float], float]:
    """Hand everything over; returns (p50, p99) us on the request path, and us of processor time behind it."""
    put_us: list[float] = []
    done = listener.written
    began_cpu_s = time.process_time()
    for number, (request, served) in enumerate(pairs, 1):
        began = time.perf_counter()
        listener(request, served)
        put_us.append((time.perf_counter() - began) * 1e6)
        if number % PER_FLUSH == 0:
            while listener.written < done + number:
                time.sleep(POLL_S)
    behind_us = (time.process_time() - began_cpu_s) * 1e6 - sum(put_us)
    p50, p99 = np.percentile(put_us, (50, 99))
    return (float(p50), float(p99)), behind_us / len(pairs)


def read_s(path: Path) -> float:
    """How long a whole read takes."""
    began = time.perf_counter()
    with TraceReader(path) as trace:
        for _ in trace:
            pass
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
