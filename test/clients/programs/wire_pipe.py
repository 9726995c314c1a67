# SPDX-License-Identifier: Apache-2.0
"""The pipe between a test and a program that has a client of another project: arrays each way, one after another."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np


def send(stream: BinaryIO, **arrays: Any) -> None:
    """Write named arrays."""
    held = io.BytesIO()
    np.savez(held, **arrays)
    data = held.getvalue()
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """Return the next arrays, None at the end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    with np.load(io.BytesIO(stream.read(struct.unpack(">I", head)[0])), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def serve(infer: Callable[[Any, Any, str, int, bool], Any]) -> None:
    """Answer observations with rows (n, 7), until the test ends: `infer(image, state, instruction, seed, first)`.

    first: the observation is an episode's first.
    """
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # clients print
    while (wanted := receive(sys.stdin.buffer)) is not None:
        try:
            rows = infer(
                wanted["image"],
                wanted["state"],
                str(wanted["instruction"]),
                int(wanted["seed"]),
                bool(wanted["first"]),
            )
            send(out, rows=np.asarray(rows))
        except Exception as error:
            send(out, error=f"{type(error).__name__}: {error}")
