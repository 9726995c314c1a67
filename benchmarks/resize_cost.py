# SPDX-License-Identifier: Apache-2.0
"""What it costs to bring a decoded picture into the network's input: one camera, each filter, letterboxed.

CPU time of all threads, which a busy machine does not change much, and wall time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.measure import finish, milliseconds, parser, percentiles, table
from reflex_core.export.image_slots import ImageSlot
from reflex_core.images.resize import FILTERS, LETTERBOX
from reflex_core.policy.inputs import image_array
from reflex_core.values import Frame

PICTURES = ((480, 640), (720, 1280), (1080, 1920))
SIDES = (224, 512)


def call_of(height: int, width: int, side: int, how: str) -> Callable[[], object]:
    """One picture of noise, raw, into (1, 3, side, side) float32."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    frame = Frame(pixels, "rgb8", height, width)
    scale, low = np.full(3, 2 / 255, np.float32), np.full(3, -1, np.float32)
    slot = ImageSlot("camera", "image", None, side, side, False, LETTERBOX, how, scale, low, low, -1.0, True)
    return lambda: image_array(frame, slot)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__ or "")
    options.add_argument("--calls", type=int, default=300)
    chosen = options.parse_args(arguments)
    calls = {
        (f"{width}x{height}", side, how): call_of(height, width, side, how)
        for height, width in PICTURES
        for side in SIDES
        for how in FILTERS
    }
    taken: dict[tuple[str, int, str], list[tuple[float, float]]] = {key: [] for key in calls}
    for number in range(chosen.calls + 5):  # interleaved, so that a busy machine is busy for all of them
        for key, call in calls.items():
            began = time.process_time()
            wall = milliseconds(call)
            if number >= 5:
                taken[key].append(((time.process_time() - began) * 1e3, wall))
    rows = []
    for (picture, side, how), values in taken.items():
        (cpu, _), (p50, p99) = (percentiles(each) for each in zip(*values, strict=True))
        case = {"picture": picture, "to": side, "filter": how}
        rows.append(case | {"cpu p50 ms": cpu, "p50 ms": p50, "p99 ms": p99})
    print(table(rows))
    finish("resize_cost", {"rows": rows}, chosen.output)


if __name__ == "__main__":
    main(sys.argv[1:])
