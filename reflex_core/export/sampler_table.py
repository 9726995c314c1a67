# SPDX-License-Identifier: Apache-2.0
"""The `sampler` of reflex_config.json: a denoise schedule as numbers, one row per step, so that no scheduler has a name here.

Every row is one network call: x0 = clip(x0_from_x * x + x0_from_network * net(x, time)), then the next x is the sum of
next_from_x0 * x0, next_from_x * x, next_from_network * net, next_from_noise * z and next_from_start * start noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonFields, Refuse, is_number

MOST_ROWS = 1000
MOST_COEFFICIENT = 1e6  # of a step; float32 holds it and its square
_LANDED = 1e-6  # how far from 1 and 0 the last row of a schedule that ends at its estimate may be


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """One step. time: what the network is fed. The others are coefficients (see above)."""

    time: float
    x0_from_x: float
    x0_from_network: float
    next_from_x0: float
    next_from_x: float
    next_from_network: float
    next_from_noise: float
    next_from_start: float = 0.0


@dataclass(frozen=True, slots=True)
class SamplerTable:
    """A whole schedule. clip: the largest magnitude of an estimate x0, None where it is not limited."""

    rows: tuple[SamplerRow, ...]
    clip: float | None = None

    @property
    def noisy_steps(self) -> int:
        """How many steps add fresh noise."""
        return sum(row.next_from_noise != 0 for row in self.rows)

    @property
    def ends_at_estimate(self) -> bool:
        """True where the last step's result is its estimate x0 alone: DDIM without noise, X-VLA."""
        last = self.rows[-1]
        others = (last.next_from_x, last.next_from_network, last.next_from_noise, last.next_from_start)
        return abs(last.next_from_x0 - 1) <= _LANDED and all(abs(one) <= _LANDED for one in others)

    @property
    def estimates(self) -> bool:
        """True where every step's estimate comes from the network."""
        return all(row.x0_from_network != 0 for row in self.rows)


_COLUMNS = tuple(field.name for field in fields(SamplerRow))
_OPTIONAL = ("next_from_start",)


def read_sampler(block: JsonFields, written_steps: object, fail: Refuse) -> SamplerTable:
    """Return the checked table. written_steps: num_denoising_steps of the export, None where it writes none.

    Raises fail's error for columns and rows that are no schedule.
    """
    columns = block.names("columns")
    needed = [name for name in _COLUMNS if name not in _OPTIONAL]
    if len(set(columns)) < len(columns) or not set(needed) <= set(columns) <= set(_COLUMNS):
        raise block.refusal("columns", f"{', '.join(needed)}, each once, and {_OPTIONAL[0]} where it is used")
    written = block.get("rows")
    if not isinstance(written, list) or not 1 <= len(written) <= MOST_ROWS:
        got = f"{len(written)} rows" if isinstance(written, list) else written
        raise block.refusal("rows", f"a list of 1 to {MOST_ROWS} rows", got)
    rows = tuple(_row(columns, row, index, block) for index, row in enumerate(written))
    if written_steps is not None and written_steps != len(rows):
        raise fail("num_denoising_steps", f"{len(rows)}, the number of rows of 'sampler'", written_steps)
    clip = None if block.get("clip") is None else block.number("clip", 1e-6, MOST_COEFFICIENT)
    return SamplerTable(rows, clip)


def _row(columns: Sequence[str], written: object, index: int, block: JsonFields) -> SamplerRow:
    low, high = -MOST_COEFFICIENT, MOST_COEFFICIENT
    whole = isinstance(written, list) and len(written) == len(columns)
    if not isinstance(written, list) or not whole or not all(is_number(one, low, high) for one in written):
        expected = f"{len(columns)} numbers from {low:g} to {high:g}, one for each of 'columns'"
        raise block.refusal(f"rows[{index}]", expected, written)
    values: Mapping[str, Any] = dict(zip(columns, map(float, written), strict=True))
    row = SamplerRow(**values)
    into_next = row.next_from_network != 0 or (row.x0_from_network != 0 and row.next_from_x0 != 0)
    if not into_next:
        raise block.refusal(f"rows[{index}]", "a step in which the network has a part", written)
    return row


def check_times(table: SamplerTable, time: TensorInfo, fail: Refuse) -> None:
    """Raise fail's error where the graph's time input does not hold the times of the table."""
    if issubclass(time.dtype, np.floating):
        return
    limits = np.iinfo(time.dtype) if issubclass(time.dtype, np.integer) else None
    for index, row in enumerate(table.rows):
        if limits is None or not row.time.is_integer() or not limits.min <= row.time <= limits.max:
            raise fail(
                f"sampler.rows[{index}]",
                f"a time that the graph's input '{time.name}' holds, which takes {np.dtype(time.dtype)}",
                row.time,
            )
