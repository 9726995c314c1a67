# SPDX-License-Identifier: Apache-2.0
"""Type and shape of one input or output of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, numpy type and shape of one graph input or output; a dimension that may vary is None."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int | None, ...]

    def sized(self, rows: int = 1) -> tuple[int, ...]:
        """Return the shape for so many requests: a free first dimension is `rows`, every other free one 1."""
        first = tuple(rows if size is None else size for size in self.shape[:1])
        return first + tuple(1 if size is None else size for size in self.shape[1:])

    def takes(self, shape: Sequence[int]) -> bool:
        """Return whether an array of this shape fits."""
        return len(shape) == len(self.shape) and all(
            size in (None, given) for size, given in zip(self.shape, shape, strict=True)
        )
