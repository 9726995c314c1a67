# SPDX-License-Identifier: Apache-2.0
"""Statistics in safetensors files: flat keys `<feature>.<statistic>`, perhaps of several datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ExportError
from reflex_core.files.regular_file import unreadable

STATISTICS = ("mean", "std", "min", "max", "q01", "q10", "q50", "q90", "q99")

Numbers = NDArray[np.float64]
Table = Mapping[str, Mapping[str, Numbers]]  # feature -> statistic -> flat numbers


def read_table(file: Path, keys: Iterable[str] | None = None) -> Table:
    """Read every statistic of a file by feature, flattened. Raises ExportError for a file that is none.

    keys: only tensors whose name begins with one of these; None takes all. The name is split at its LAST dot, as
    cameras and datasets have dots in theirs.
    """
    from safetensors import SafetensorError, safe_open  # only here: few exports have such a file

    if why := unreadable(file):
        raise ExportError(
            f"{file}: the statistics must be a regular file, it is {why}", "export-file-missing"
        )
    table: dict[str, dict[str, Numbers]] = {}
    begins = None if keys is None else tuple(keys)
    try:
        with safe_open(str(file), framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (not a mapping)
                feature, _, statistic = key.rpartition(".")
                if statistic in STATISTICS and feature and (begins is None or key.startswith(begins)):
                    found = tensors.get_tensor(key)
                    if found.dtype.kind not in "iuf":
                        raise ValueError(f"{key} must hold numbers, it holds {found.dtype}")
                    table.setdefault(feature, {})[statistic] = found.astype(np.float64).reshape(-1)
    except (
        OSError,
        SafetensorError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # AttributeError: 8 bit floats
        raise ExportError(f"{file}: not readable as safetensors: {error}") from error
    return table


def datasets(table: Table, feature: str) -> tuple[str, ...]:
    """Return the datasets that have this feature, as their keys begin; '' is a key without a dataset."""
    found = []
    for key in table:
        if key == feature:
            found.append("")
        elif key.endswith("." + feature):
            found.append(key.removesuffix("." + feature))
    return tuple(sorted(found))


def chosen(table: Table, feature: str, dataset: str, where: Path) -> tuple[str, Mapping[str, Numbers]] | None:
    """Return (dataset, its statistics) of a feature: of the exact key, of the requested dataset, or of the only one.

    None where the file has none of the feature. Raises ExportError with the list where several have it and none is
    requested, or where the requested one is missing.
    """
    there = datasets(table, feature)
    named = {prefix: prefix.removesuffix(".buffers").removesuffix(".buffer") for prefix in there}
    if dataset:
        wanted = [prefix for prefix in there if dataset in (prefix, named[prefix])]
        if there in ((), ("",)):
            wanted = list(there)
        elif not wanted:
            raise ExportError(
                f"{where}: holds no statistics of dataset '{dataset}' for {feature}; it has {', '.join(filter(None, named.values()))}",
                "dataset-unknown",
            )
    else:
        wanted = [""] if "" in there else list(there)
    if len(wanted) > 1:
        raise ExportError(
            f"{where}: holds statistics of several datasets for {feature} ({', '.join(sorted(named[prefix] for prefix in wanted))}):"
            ' say which one the policy was trained on with "normalization": {"dataset": NAME} in reflex_config.json',
            "dataset-ambiguous",
        )
    if not wanted:
        return None
    prefix = wanted[0]
    return named[prefix], table[f"{prefix}.{feature}" if prefix else feature]
