# SPDX-License-Identifier: Apache-2.0
"""From the stamp of a camera image to the ActionChunk that answers it, over ROS, every program a process of its own.

The real node serves the embedded policy with execution_horizon 1, so that it asks for a chunk with every row (20 Hz).
A camera publishes 224x224 and 640x480, raw and compressed, best effort, with the shipped shared-memory profile and
without. Images are counted in runs of their own, by a listener that does nothing else.

stamp to chunk = age of the image when it was taken + chunk latency + publishing and transport of the chunk.
The age is most of it and is not waste: a camera at 30 Hz has no newer picture (0 to 33 ms).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.exports import ROOT
from benchmarks.measure import finish, parser, percentiles, table
from reflex_ros.demo import processes
from reflex_ros.graph.dds_profile import PROFILE_VARIABLES
from reflex_ros.launch_args import MALLOC

SIZES = ((224, 224), (480, 640))
TRANSPORTS = ("raw", "compressed")
CAMERA_TIMEOUT_S = 120.0


def environment(profile: bool) -> dict[str, str]:
    """What the launch files set, or the same without the shared-memory profile. Loopback and a free domain."""
    base = {name: value for name, value in os.environ.items() if name not in (*PROFILE_VARIABLES, *MALLOC)}
    made = processes.ros_environment({**base, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"})
    if not profile:
        made[PROFILE_VARIABLES[0]] = ""  # set to nothing: else the node sets it itself
    return made


def run_role(
    role: str, options: Mapping[str, object], environment_: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start benchmarks/camera.py in one of its roles."""
    command = [sys.executable, "-m", "benchmarks.camera", role, json.dumps(options)]
    return subprocess.Popen(
        command, cwd=ROOT, env=dict(environment_), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result_of(process: subprocess.Popen[str]) -> list[dict[str, list[float]]]:
    """What a role printed. Raises RuntimeError with its last words when it failed."""
    out, err = process.communicate(timeout=CAMERA_TIMEOUT_S)
    if process.returncode != 0:
        raise RuntimeError(f"benchmarks.camera ended with {process.returncode}: {err[-1500:]}")
    return list(json.loads(out.splitlines()[-1]))


def measure_chunks(
    transport: str, profile: bool, seconds: float, sizes: Sequence[tuple[int, int]]
) -> list[dict[str, object]]:
    """The node and the camera: one row per size."""
    ros = environment(profile)
    command = [
        sys.executable, "-m", "reflex_ros.cli.main", "serve", "demo", "--no-http", "--image-transport", transport,
        "--execution-horizon", "1", "--margin-ms", "0", "--device", "cpu", "--intra-op-threads", "1",
        "--instruction", "reach the red cube",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "node.log"
        node = processes.start("node", command, log, {**ros, "PYTHONPATH": str(ROOT)})
        try:
            options = {"transport": transport, "sizes": sizes, "seconds": seconds, "expects_chunks": True}
            found = result_of(run_role("camera", options, ros))
        except RuntimeError as error:
            raise RuntimeError(f"{error}\nthe node's log:\n{processes.tail(log)}") from error
        finally:
            processes.stop([node])
    return [_chunk_row(transport, profile, entry) for entry in found]


def _chunk_row(transport: str, profile: bool, entry: Mapping[str, list[float]]) -> dict[str, object]:
    total, age, latency = ([chunk[part] for chunk in entry["chunks"]] for part in range(3))  # type: ignore[index]
    rest = [whole - a - b for whole, a, b in zip(total, age, latency, strict=True)]
    return {
        "image": _name(entry), "kind": transport, "profile": "shipped" if profile else "none", "chunks": len(total),
        "stamp to chunk p50": percentiles(total)[0], "stamp to chunk p99": percentiles(total)[1],
        "age p50": percentiles(age)[0], "latency p50": percentiles(latency)[0], "latency p99": percentiles(latency)[1],
        "rest p50": percentiles(rest)[0], "rest p99": percentiles(rest)[1],
    }  # fmt: skip


def measure_images(
    transport: str, profile: bool, seconds: float, sizes: Sequence[tuple[int, int]]
) -> list[dict[str, object]]:
    """A camera and a listener: one row per size."""
    ros = environment(profile)
    listener = run_role("listener", {"transport": transport, "sizes": sizes}, ros)
    options = {"transport": transport, "sizes": sizes, "seconds": seconds, "expects_chunks": False}
    sent = result_of(run_role("camera", options, ros))
    heard = result_of(listener)
    rows: list[dict[str, object]] = []
    for camera, ears in zip(sent, heard, strict=True):
        count, arrivals = int(camera["sent"]), ears["arrivals_ms"]  # type: ignore[call-overload]
        rows.append({
            "image": _name(camera), "kind": transport, "profile": "shipped" if profile else "none",
            "sent": count, "lost": count - len(arrivals), "lost %": 100 * (count - len(arrivals)) / max(count, 1),
            "transport p50": percentiles(arrivals)[0], "transport p99": percentiles(arrivals)[1],
            "publish p50": percentiles(camera["publish_ms"])[0],
        })  # fmt: skip
    return rows


def _name(entry: Mapping[str, list[float]]) -> str:
    height, width = entry["size"]
    return f"{width}x{height}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables; all times in ms."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--seconds", type=float, default=3.0, help="how long each size is measured (default 3)"
    )
    options.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=list(TRANSPORTS))
    options.add_argument("--only-shipped", action="store_true", help="leave out the runs without the profile")
    arguments = options.parse_args(argv)
    chunks: list[dict[str, object]] = []
    images: list[dict[str, object]] = []
    for profile in (True,) if arguments.only_shipped else (True, False):
        for transport in arguments.transports:
            chunks += measure_chunks(transport, profile, arguments.seconds, SIZES)
            images += measure_images(transport, profile, arguments.seconds, SIZES)
    print("stamp of an image to the arrival of its chunk, ms")
    print(table(chunks))
    print("\nimages between two processes, best effort, 30 Hz, ms")
    print(table(images))
    finish("camera_to_chunk", {"chunks": chunks, "images": images}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
