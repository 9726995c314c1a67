# SPDX-License-Identifier: Apache-2.0
"""Weights that are made anew from their names, so that a fixture of a network needs none; needs numpy alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def weights(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The tensor of a policy: bits of a counter-based generator, the same with every numpy.

    What a layer multiplies with keeps the size of its input; norms are near 1, what is added near 0.
    """
    count = math.prod(shape)
    raw = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(count)
    spread = ((raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)).reshape(shape)
    if len(shape) > 1:
        inputs = math.prod(shape[1:])
        return spread * np.float32(math.sqrt(3 / inputs))
    if name.endswith("running_var") or (name.endswith("weight") and "norm" in name):
        return np.float32(1) + np.float32(0.2) * spread
    if name.endswith("weight"):  # of a batch norm within a numbered layer
        return np.float32(1) + np.float32(0.1) * spread
    return np.float32(0.1) * spread
