# SPDX-License-Identifier: Apache-2.0
"""Chaos and soak: real servers, a ROS node and robots on six wires under injected faults; exit 1 on a violation.

Three `reflex serve --no-ros` processes and one node record every request while eleven robots ask as fast as they are answered. Each answer is
compared with the same export run in this process, to the last bit, or is a hold, a fallback or a refusal that gives its
reason. Faults and everything they draw come from the seed, and are paced by the number of answered requests.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.ledger import audit
from benchmarks.chaos.robots import Run
from benchmarks.chaos.scene import Scene, at_work, scene
from benchmarks.chaos.schedule import Injector, kinds_of, plan
from benchmarks.chaos.summary import results, text
from benchmarks.chaos.truth import Truth
from benchmarks.measure import finish, parser

REPORT_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table; 1 where something was violated."""
    options = parser(__doc__ or "")
    options.add_argument("--requests", type=int, default=20_000, help="answered requests [20000]")
    options.add_argument("--faults", type=int, default=100, help="injected faults [100]")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--seconds", type=float, default=0.0, help="end after so many seconds, too [0: never]"
    )
    options.add_argument("--no-node", action="store_true", help="without ROS: no node and no simulated arm")
    options.add_argument("--folder", type=Path, help="keep exports, logs and records here")
    chosen = options.parse_args(argv)
    logging.disable(logging.WARNING)  # of the policies that are run here
    run = Run(Truth(), chosen.seed)
    command = f"python -m benchmarks.chaos --requests {chosen.requests} --faults {chosen.faults} --seed {chosen.seed}"
    with tempfile.TemporaryDirectory() as made:
        folder = chosen.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        with scene(run, folder, ros=not chosen.no_node) as found:
            run.began_s = time.monotonic()
            injector = Injector(found)
            with at_work(found):
                inject(found, injector, chosen.requests, chosen.faults, chosen.seconds)
            more = last_look(found)
        document = results(run, injector.injected, command, time.monotonic() - run.began_s, more)
    print(text(document))
    finish("chaos", document, chosen.output)
    return 1 if run.violations else 0


def inject(found: Scene, injector: Injector, requests: int, faults: int, seconds: float) -> None:
    """Let the schedule happen, and the requests that are left after it."""
    run = found.run
    planned = plan(kinds_of(found), list(found.servers), requests, faults, run.seed)
    thread = threading.Thread(target=injector.run, args=(planned,), daemon=True)
    thread.start()
    reported_s = run.began_s
    while (run.done < requests or thread.is_alive()) and not run.over.is_set():
        time.sleep(0.05)
        now_s = time.monotonic()
        if seconds and now_s - run.began_s > seconds:
            run.over.set()
        if now_s - reported_s > REPORT_S:
            reported_s = now_s
            print(
                f"{now_s - run.began_s:.0f} s: {run.done} requests, {len(injector.injected)} faults,"
                f" {len(run.violations)} violations",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    thread.join()


def last_look(found: Scene) -> dict[str, object]:
    """End every server and audit its last life."""
    for each in found.servers.values():
        each.end()
        found.run.audited += len(each.life.answers)
        for kind, words in audit(each.life):
            found.run.violate(kind, words, each.name)
    lives = {each.name: len(each.lives) for each in found.servers.values()}
    chunks = dict(found.ros.chunks) if found.ros is not None else {}
    vital = {each.name: each.life.vital[-1][1:] for each in found.servers.values() if each.life.vital}
    return {
        "lives": lives,
        "node chunks": chunks,
        "records": found.run.audited,
        "between lives": found.run.between_lives,
        "memory, descriptors, threads at the end": vital,
    }


if __name__ == "__main__":
    sys.exit(main())
