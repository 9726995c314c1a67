# SPDX-License-Identifier: Apache-2.0
"""How long `reflex serve demo --no-ros` takes until /health answers 200, its processor time until then, and the memory it holds.

Each start is a process of its own. RSS holds pages of shared libraries, which other processes may use as well; `own` has none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.cpu_per_request import cpu_s
from benchmarks.exports import embedded
from benchmarks.measure import finish, parser, table
from benchmarks.server import serving


def started() -> dict[str, float]:
    """One start."""
    began = time.monotonic()
    with serving(embedded()) as (pid, _):
        ready_s = time.monotonic() - began
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        kilobytes = {
            name: int(rest.split()[0])
            for name, _, rest in (line.partition(":") for line in lines if "kB" in line)
        }
        return {
            "ready s": ready_s, "CPU s": cpu_s(pid),
            "RSS MB": kilobytes["VmRSS"] * 1.024e-3, "own MB": kilobytes["RssAnon"] * 1.024e-3,
        }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print the medians of all starts and the largest."""
    options = parser(__doc__ or "")
    options.add_argument("--starts", type=int, default=7, help="how often (default %(default)s)")
    arguments = options.parse_args(argv)
    found = [started() for _ in range(arguments.starts)]
    rows = [
        {"of all starts": name, **{key: choose([one[key] for one in found]) for key in found[0]}}
        for name, choose in (("median", median), ("largest", max))
    ]
    print(table(rows))
    finish("startup", {"starts": found}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
