# SPDX-License-Identifier: Apache-2.0
"""The block `constants` of reflex_config.json: graph inputs that are the same in every inference."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonFields, is_number, leaves

MOST_NUMBERS = 1 << 20  # of one input: a constant that was written on purpose is smaller

Constants = Mapping[str, NDArray[Any]]


def read_constants(block: JsonFields, inputs: Mapping[str, TensorInfo], taken: Collection[str]) -> Constants:
    """Return the arrays by graph input, read-only, in the graph's type and shape.

    Args:
        block: `constants` of reflex_config.json: a number, which fills the input, or nested lists of the input's shape.
        inputs: Of all graphs, by name.
        taken: Inputs that something else feeds.

    Raises:
        ExportError: Naming the input, what it takes and what is written.
    """
    return {name: _constant(name, block, inputs, taken) for name in block}


def _constant(
    name: str, block: JsonFields, inputs: Mapping[str, TensorInfo], taken: Collection[str]
) -> NDArray[Any]:
    value, info = block[name], inputs.get(name)
    if info is None:
        raise block.refusal(name, f"an input of the graphs ({', '.join(sorted(inputs))[:300]})", name)
    if name in taken:
        raise block.refusal(name, "an input that nothing else feeds", value)
    size = int(np.prod(info.sized(), dtype=np.int64))
    if not all(isinstance(leaf, bool) or is_number(leaf) for leaf in leaves(value)) or size > MOST_NUMBERS:
        raise block.refusal(name, f"a number, or lists of at most {MOST_NUMBERS} numbers")
    try:
        written = np.asarray(value)
    except ValueError:  # lists of different lengths
        raise block.refusal(name, f"lists of shape {info.sized()}") from None
    if written.shape and not (written.size and info.takes(written.shape)):
        raise block.refusal(name, f"a number, or lists of shape {info.sized()}", written.shape)
    made = _cast(written, info.dtype)
    if made is None:
        raise block.refusal(name, f"numbers that {np.dtype(info.dtype)} holds, as the graph takes")
    filled = np.array(np.broadcast_to(made, written.shape or info.sized()))
    filled.flags.writeable = False
    return filled


def _cast(written: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any] | None:
    """Return the numbers in the graph's type; None where it does not hold them."""
    if written.dtype == object:  # integers of more than 64 bits
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        made = written.astype(dtype)
    held = np.isfinite(made).all() if issubclass(dtype, np.floating) else np.array_equal(made, written)
    return made if held else None
