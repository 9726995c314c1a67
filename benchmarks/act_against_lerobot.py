# SPDX-License-Identifier: Apache-2.0
"""An answer of the server against LeRobot's own: POST /act of an export, and `select_action` of its checkpoint.

    .venv-export/bin/python -m benchmarks.act_against_lerobot [act] [diffusion] [smolvla]      (make venv-export)

Both take turns, with the same number of threads. LeRobot gets raw pictures within its process and is reset before each call, so
that every call is an inference; its preprocessor and postprocessor count. The server is a process of its own and gets PNG
pictures in JSON. The checkpoints are those of benchmarks.export_cost: real sizes, random weights, two cameras of 640x480.
CPU is the mean time of all threads, which hardly depends on what else the machine does; with one thread it is the latency of an
idle machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks.cpu_per_request import cpu_s
from benchmarks.export_cost import POLICIES, add_folder, exported, kept_in
from benchmarks.exports import ROOT, Measured
from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from benchmarks.server import Answer, Client, serving


def posted(document: dict[str, object]) -> bytes:
    """A POST /act."""
    body = orjson.dumps(document)
    head = f"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def asked(port: int, request: bytes) -> Answer:
    """Ask on a new connection: the server closes one on which nothing comes for as long as some inferences take."""
    client = Client(port)
    try:
        return client.ask(request)
    finally:
        client.close()


def compared(name: str, folder: Path, rounds: int, threads: int) -> dict[str, object]:
    """Make and export one checkpoint, and return how long both take for an answer."""
    sys.path[:0] = [str(ROOT / "test" / "support"), str(ROOT / "test" / "export" / "support")]
    import torch
    from checkpoints import Made
    from exported import fill, sent
    from lerobot_answers import load
    from raw_observations import observation

    export = folder / f"{name}_export"
    if not export.is_dir():  # which benchmarks.export_cost may have left
        exported(name, folder, "--observations=1")
    fill(export)
    made = Made.at(folder / name)
    torch.set_num_threads(threads)
    theirs, seen = load(made), observation(0)
    request = posted(sent(seen) | {"instruction": seen.task, "seed": 1})

    def select_action() -> None:
        theirs.policy.reset()
        theirs.postprocess(theirs.policy.select_action(theirs.preprocess(theirs.batch(seen))))

    lerobot_ms, act_ms = [], []
    with serving(Measured(name, export, ""), threads) as (server, port):
        lerobot_cpu_s = act_cpu_s = 0.0
        for number in range(rounds + 1):
            own_before_s, before_s = time.process_time(), cpu_s(server)
            theirs_ms, answer = milliseconds(select_action), asked(port, request)
            if answer.status != 200:
                raise RuntimeError(f"{name}: {answer.body[:300]!r}")
            if number:  # the first round warms both
                lerobot_ms.append(theirs_ms)
                act_ms.append(answer.duration_ms)
                lerobot_cpu_s += time.process_time() - own_before_s
                act_cpu_s += cpu_s(server) - before_s
    lerobot, act = percentiles(lerobot_ms)[0], percentiles(act_ms)[0]
    return {
        "policy": name, "rounds": rounds, "select_action p50": lerobot, "/act p50": act, "ratio": act / lerobot,
        "CPU of select_action": 1e3 * lerobot_cpu_s / rounds, "CPU of /act": 1e3 * act_cpu_s / rounds,
        "ratio of CPU": act_cpu_s / lerobot_cpu_s,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table, in milliseconds."""
    options = parser(__doc__ or "")
    options.add_argument("policies", nargs="*", metavar="POLICY", help=f"{', '.join(POLICIES)} (all of them)")
    add_folder(options)
    options.add_argument("--rounds", type=int, default=20, help="answers of each (20)")
    options.add_argument("--threads", type=int, default=1, help="of one operator, on both sides (1)")
    chosen = options.parse_args(argv)
    if unknown := sorted(set(chosen.policies) - set(POLICIES)):
        options.error(f"there is no {unknown[0]} among {', '.join(POLICIES)}")
    with kept_in(chosen.folder) as folder:
        rows = [compared(name, folder, chosen.rounds, chosen.threads) for name in chosen.policies or POLICIES]
    print(table(rows))
    finish("act_against_lerobot", {"policies": rows}, chosen.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
