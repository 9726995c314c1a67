# SPDX-License-Identifier: Apache-2.0
"""What OpenTelemetry costs: on the caller's clock, and on the thread that makes and sends the spans.

The receiver is a process of its own that takes everything. `header` rows are what /act pays for looking for a
traceparent, whether there is tracing or not.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from multidict import CIMultiDict, CIMultiDictProxy

from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from reflex_core.values import ActionChunk, Frame, Inference, Observation, Request, Served
from reflex_ros.otel.connect import traces_url
from reflex_ros.otel.tracing import Tracing
from reflex_ros.sidecar.trace_context import trace_context

BATCH = 20  # calls per measurement: one alone is near the resolution of the clock
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RECEIVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def request(traceparent: str) -> Request:
    """Two 640x480 JPEG cameras and seven joints."""
    frames = {name: Frame(bytes(60_000), "jpeg", 480, 640) for name in ("base", "wrist")}
    observation = Observation(frames, np.zeros(7, np.float32), "reach the red block")
    return Request(observation, time.monotonic_ns(), "request-1", "episode-1", traceparent=traceparent)


def answer() -> Served:
    """A chunk of 50 rows and four stages."""
    actions = np.zeros((50, 7), np.float32)
    stages_ms = {"preprocess_ms": 1.0, "queue_ms": 0.0, "vlm_prefix_ms": 20.0, "expert_denoise_ms": 8.0}
    return Served(
        ActionChunk(actions, ("joint",) * 7, 0.05), actions, "request-1", "episode-1", 1, "prod", "model@hash",
        Inference("onnx_cpu", 10, 10, stages_ms=stages_ms), latency_ms=30.0, trace_seq=1,
    )  # fmt: skip


def calls_us(call: Callable[[], object], rounds: int, pause_s: float = 0.0) -> list[float]:
    """Microseconds per call, one value per batch."""
    found = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            time.sleep(pause_s)
            found.append(milliseconds(lambda: [call() for _ in range(BATCH)]) / BATCH * 1e3)
    finally:
        gc.enable()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the costs."""
    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=100, help="batches of 20 calls (default 100)")
    arguments = options.parse_args(argv)
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    try:
        assert receiver.stdout is not None
        url = traces_url(f"http://127.0.0.1:{int(receiver.stdout.readline())}")
        tracing = Tracing(url, models={"prod": "/exports/pi0"}, embodiment="franka", max_items=10**6)
        served, caller = answer(), request(PARENT)
        none = CIMultiDictProxy(CIMultiDict({"Content-Type": "application/json", "Content-Length": "60000"}))
        some = CIMultiDictProxy(CIMultiDict({**none, "traceparent": PARENT, "tracestate": "vendor=1"}))
        costs = {
            "enqueue an answer": calls_us(lambda: tracing(caller, served), arguments.rounds, 0.02),
            "header: none": calls_us(lambda: trace_context(none), arguments.rounds),
            "header: traceparent and tracestate": calls_us(lambda: trace_context(some), arguments.rounds),
        }
        tracing.close(60.0)
        background_ms = _background_ms(url, caller, served)
        rows = []
        for name, values in costs.items():
            p50, p99 = percentiles(values)
            rows.append({"cost": name, "p50 us": p50, "p99 us": p99})
        print(table(rows))
        print(
            f"making and sending the spans of a request, in the background: {background_ms:.2f} ms of a core"
        )
        results = {"costs": rows, "background_ms": background_ms, "lost": tracing.dropped}
        finish("otel_cost", results, arguments.output)
    finally:
        receiver.kill()
        receiver.communicate()
    return 0


def _background_ms(url: str, caller: Request, served: Served) -> float:
    """Processor time per request of everything after the enqueuing."""
    tracing = Tracing(url, models={"prod": "/exports/pi0"}, embodiment="franka", flush_interval_s=3600.0)
    for _ in range(BATCH):  # fewer than wake the thread
        tracing(caller, served)
    began_s = time.process_time()
    tracing.close(60.0)
    return (time.process_time() - began_s) * 1e3 / BATCH


if __name__ == "__main__":
    sys.exit(main())
