# SPDX-License-Identifier: Apache-2.0
"""Time and size of `reflex trace view --headless` and `report` of a long trace: python -m benchmarks.view_cost."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg

from reflex_core.files.json_lines import json_line
from reflex_core.records.trace.schema import FULL, Session, header_record, request_record
from reflex_core.reports import GuardReport
from reflex_core.values import ActionChunk, Frame, Inference, Observation, Request, Served
from reflex_ros.cli.main import main as reflex

NAMES = tuple(f"panda_joint{number}" for number in range(1, 8))
ROWS, DT_S, PERIOD_S = 50, 0.05, 0.5


def write(path: Path, records: int, pixels: int) -> None:
    """Write a trace of one episode in which every tenth chunk is clamped."""
    rng = np.random.default_rng(0)
    session = Session("0123456789abcdef", "fedcba9876543210", "export", state_names=NAMES, action_names=NAMES)
    scene = rng.integers(0, 255, (pixels, pixels, 3)).astype(np.uint8)
    picture = simplejpeg.encode_jpeg(np.ascontiguousarray(scene // 8 + 100), quality=90)
    with path.open("wb") as file:
        header = header_record(
            session, session_id="s", started_at="2026-01-01T00:00:00Z", images=FULL, part=0, dropped=0
        )
        file.write(json_line(header) + b"\n")
        for seq in range(records):
            observation = Observation(
                {"wrist": Frame(picture, "jpeg")}, rng.normal(size=7).astype(np.float32), "reach"
            )
            request = Request(observation, 0, f"r-{seq}", "one")
            rows = np.cumsum(rng.normal(size=(ROWS, 7)), axis=0).astype(np.float32) * np.float32(0.01)
            chunk = ActionChunk(rows, NAMES, DT_S)
            served = Served(
                chunk=chunk, raw_actions=rows, request_id=f"r-{seq}", episode_id="one", seed=7, slot="prod",
                model_version="v", latency_ms=12.0, inference=Inference("cpu", 10, 10),
            )  # fmt: skip
            if seq % 10 == 9:
                guard = GuardReport(True, 5, ("panda_joint1 velocity: 3 > 2 rad/s",))
                served = replace(served, chunk=replace(chunk, actions=rows * np.float32(0.5)), guard=guard)
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1.77e9 + seq * PERIOD_S))
            made = request_record(
                request,
                served,
                seq=seq,
                timestamp=f"{at}.{500 * (seq % 2):03d}Z",
                images=FULL,
                vlm_conditioning="real",
            )
            file.write(json_line(made) + b"\n")


def main() -> int:
    """Print seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--pixels", type=int, default=224)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        trace = Path(name) / "trace.jsonl"
        write(trace, options.records, options.pixels)
        print(f"trace of {options.records} records: {trace.stat().st_size / 1e6:.1f} MB")
        for words, out in (
            (["view", str(trace), "--headless", "--out"], Path(name) / "view.rrd"),
            (["report", str(trace), "--plot"], Path(name) / "report.html"),
            (["ls", str(trace)], None),
        ):
            began_s = time.perf_counter()
            status = reflex(["trace", *words, *([str(out)] if out else [])])
            taken_s = time.perf_counter() - began_s
            size = f", {out.stat().st_size / 1e6:.1f} MB" if out else ""
            print(f"{words[0]}: status {status}, {taken_s:.1f} s{size}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
