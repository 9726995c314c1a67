# SPDX-License-Identifier: Apache-2.0
"""What every benchmark needs: percentiles, tables, the name of the machine, and a JSON file of the results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Bounds, Spline
from reflex_core.values import ActionChunk

Row = Mapping[str, object]


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--output", type=Path, help="write the results to this JSON file")
    return made


def motion_of(chunk: ActionChunk, stamp_ns: int) -> Spline:
    """The motion through a chunk whose robot is at rest and has no limits."""
    return Handover(Bounds.unlimited(len(chunk.names)), lambda _: None, lambda: 0.0).take_over(
        chunk, stamp_ns, 0, stamp_ns
    )


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """(p50, p99); NaN where nothing was measured."""
    if not len(values):
        return float("nan"), float("nan")
    p50, p99 = np.percentile(np.asarray(values), (50, 99))
    return float(p50), float(p99)


def milliseconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def machine() -> dict[str, object]:
    """What the figures were taken on; `load` is the 1-minute load average at the start."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def table(rows: Sequence[Row]) -> str:
    """The rows in columns that line up; floats with two decimals."""
    if not rows:
        return "(nothing)"
    columns = list(rows[0])
    lines = [columns, *([_shown(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def finish(name: str, results: Mapping[str, Any], output: Path | None) -> None:
    """Say which machine this was; write the JSON file where one is asked for."""
    where = machine()
    print(
        f"\n{where['cores']} cores ({where['cpu']}), load {where['load']}, onnxruntime {where['onnxruntime']}"
    )
    if output is not None:
        document = {"benchmark": name, "machine": where, **results}
        output.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
