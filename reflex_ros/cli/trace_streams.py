# SPDX-License-Identifier: Apache-2.0
"""How `reflex trace export` reads bags that hold whole streams: the options, and what opens them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reflex_core.dataset.convert import LEROBOT
from reflex_core.dataset.sampled import OpenStreams
from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.comparison import Source

FASTEST_FPS = 1000


def add_rate_options(add: Callable[..., Any]) -> None:
    """Declare the options. add: `add_argument` of the parser."""
    add(
        "--fps",
        type=_rate,
        metavar="HZ",
        help="frames per second, of bags that hold whole streams [the rate of the policy's actions]",
    )
    add(
        "--per-request",
        action="store_true",
        help="one frame per request also of bags that hold whole streams, as of traces",
    )


def streams_of(options: argparse.Namespace, open_one: Callable[[Path], Source]) -> OpenStreams | None:
    """Return what opens whole streams; None where each request is a frame. Raises TraceError where the options do not fit the recordings."""
    if options.format != LEROBOT or options.per_request:
        if options.fps is not None:
            raise TraceError(
                "--fps makes frames of whole streams: for --format lerobot, without --per-request"
            )
        return None
    whole = [_holds_streams(path, open_one) for path in options.traces]
    if all(whole):
        from reflex_ros.bag.streams import BagStreams  # a trace is exported without what reads bags

        return BagStreams
    other = options.traces[whole.index(False)]
    if options.fps is not None:
        raise TraceError(
            f"--fps needs bags that hold whole streams (--record-bag with record_bag_streams full), {other} is none"
        )
    if any(whole):
        raise TraceError(
            f"{other} holds no whole streams as others do: export them apart, or all with --per-request"
        )
    return None


def _holds_streams(path: Path, open_one: Callable[[Path], Source]) -> bool:
    with open_one(path) as source:
        return bool(getattr(source, "full_rate", False))


def _rate(text: str) -> float:
    try:
        rate = int(text)
    except ValueError:
        rate = 0
    if not 1 <= rate <= FASTEST_FPS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {FASTEST_FPS}, got {text[:20]!r}")
    return float(rate)
