# SPDX-License-Identifier: Apache-2.0
"""The block `batch` of reflex_config.json: how many robots one run of the graphs was verified for."""

from __future__ import annotations

from collections.abc import Mapping

from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonFields, is_whole

MOST_ROBOTS = 1024
ONE = (1,)


def read_batch(block: JsonFields, inputs: Mapping[str, TensorInfo]) -> tuple[int, ...]:
    """Return the verified sizes of the batch axis, ascending; (1,) where the block is missing.

    Args:
        block: `batch` of reflex_config.json.
        inputs: The graph inputs that have one row per robot, by name.

    Raises:
        ExportError: `verified` holds no sizes, lacks 1, or the graphs take one robot only.
    """
    if not block:
        return ONE
    sizes = block.get("verified")
    if not isinstance(sizes, list) or 1 not in sizes or not all(is_whole(n, 1, MOST_ROBOTS) for n in sizes):
        raise block.refusal("verified", f"a list of sizes from 1 to {MOST_ROBOTS}, 1 among them")
    found = tuple(sorted(set(sizes)))
    for name, info in sorted(inputs.items()):
        if found != ONE and (not info.shape or info.shape[0] is not None):
            raise block.refusal(
                "verified", f"[1], as the graph's input '{name}' of shape {info.shape} takes one robot"
            )
    return found
