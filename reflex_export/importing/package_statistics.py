# SPDX-License-Identifier: Apache-2.0
"""Statistics of a policy_package: a safetensors file whose tensors are called `<feature>/<statistic>`, or numbers in the manifest.

Formulas: physicalai 0.3.0, the same as LeRobot's but for an eps of 1e-8 that float32 does not hold beside a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonFields, is_number, leaves
from reflex_core.normalization.affine import IDENTITY, MODES
from reflex_export.importing.description_of import REFUSED

PACKAGE_MODES = ("mean_std", "min_max", "quantiles")
BAD = "bad-statistics"
MASK = "mask"  # of the dimensions that are normalised, where not all are
MOST_BYTES = 16 << 20
# numbers with which a formula changes nothing, for the dimensions outside a mask
_UNCHANGED = {"mean_std": (0.0, 1.0), "min_max": (-1.0, 1.0), "quantiles": (-1.0, 1.0)}

Numbers = NDArray[np.float64]
Table = Mapping[str, Mapping[str, Numbers]]  # feature -> statistic -> flat numbers


def read_statistics_file(path: Path) -> Table:
    """Return the statistics of a file. Raises ExportError for a large one, and for what is no safetensors file of numbers."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ExportError(f"{path}: statistics must have at most {MOST_BYTES} bytes, got {size}", REFUSED)
    table: dict[str, dict[str, Numbers]] = {}
    try:
        with safe_open(str(path), framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (not a mapping)
                feature, _, statistic = key.rpartition("/")
                if feature:
                    found = tensors.get_tensor(key)
                    if found.dtype.kind not in "iufb":
                        raise ValueError(f"{key} must hold numbers, it holds {found.dtype}")
                    table.setdefault(feature, {})[statistic] = found.astype(np.float64).reshape(-1)
    # AttributeError: 8 bit floats
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path}: not readable as safetensors: {error}", REFUSED) from error
    return table


def written_statistics(block: JsonFields) -> Table:
    """Return the statistics that a manifest holds itself. Raises ExportError."""
    table: dict[str, dict[str, Numbers]] = {}
    for feature in block:
        own = block.fields(feature)
        table[feature] = {statistic: _flat(own, statistic) for statistic in own}
    return table


def statistics_block(
    statistics: Mapping[str, Numbers], mode: str, width: int, where: str, feature: str
) -> dict[str, Any]:
    """Return a block of `normalization` in reflex_config.json: mode, and one number per dimension.

    Raises ExportError where a statistic is missing, or is not `width` finite numbers.
    """
    if mode == IDENTITY:
        return {"mode": IDENTITY}
    block: dict[str, Any] = {"mode": mode}
    mask = statistics.get(MASK)
    for name, unchanged in zip(MODES[mode], _UNCHANGED[mode], strict=True):
        numbers = statistics.get(name)
        if numbers is None:
            raise ExportError(
                f"{where}: {mode} of '{feature}' needs its {name}, and the statistics hold only {', '.join(statistics)}",
                BAD,
            )
        if mask is not None and mask.shape == numbers.shape:
            numbers = np.where(mask != 0, numbers, unchanged)
        if numbers.shape != (width,) or (mask is not None and mask.shape != (width,)):
            raise ExportError(
                f"{where}: {name} of '{feature}' must be {width} numbers, as the graph has, got {numbers.size}",
                REFUSED,
            )
        if not np.isfinite(numbers).all():
            raise ExportError(f"{where}: {name} of '{feature}' holds NaN or Inf", BAD)
        block[name] = numbers.tolist()
    return block


def _flat(block: JsonFields, key: str) -> Numbers:
    flat = list(leaves(block[key]))
    if not flat or not all(map(is_number, flat)):
        raise block.refusal(key, "numbers")
    return np.array(flat, dtype=np.float64)
