# SPDX-License-Identifier: Apache-2.0
"""Tell a fault of the input from one of the network, after the network has failed on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from reflex_core.errors import InferenceError
from reflex_core.export.contract import Contract
from reflex_core.policy.inputs import Arrays

USUAL_SIDE = 224  # pixels of a picture for a graph that takes any size
# what onnxruntime says of a token id beyond its table
OUT_OF_TABLE = re.compile(r"idx=(\d+) must be within the inclusive range \[-\d+,(\d+)\]")

Tokens = Callable[[], NDArray[Any] | None]


def blamed_on_input(
    error: InferenceError, arrays: Arrays, contract: Contract, usual_tokens: Tokens, works: Callable[[], bool]
) -> str:
    """Return why the input made the network fail; "" where it is the network's own failure.

    Only what a caller chooses and nothing else can check beforehand: tokens that the embedding lacks, and images of a
    size that a graph for any size does not take after all, while it takes the usual one.

    Args:
        error: Of the network.
        arrays: What it ran on.
        contract: Of the policy.
        usual_tokens: Gives the token ids of the canary; None where there is no language.
        works: Tells whether the network runs on its canary.
    """
    if _lacks_token(error, arrays, contract, usual_tokens):
        return "the instruction has a token that the network does not know"
    for slot in contract.images:
        size = arrays[slot.input].shape
        usual = (slot.height or USUAL_SIDE, slot.width or USUAL_SIDE)
        there = size[-3:-1] if slot.channels_last else size[-2:]
        if (slot.height is None or slot.width is None) and there != usual and works():
            return f"the network takes no image of {there[1]}x{there[0]} from camera '{slot.camera}'"
    return ""


def _lacks_token(error: InferenceError, arrays: Arrays, contract: Contract, usual_tokens: Tokens) -> bool:
    """Return True when onnxruntime misses one of these tokens in a table that has all of those of the canary."""
    found = OUT_OF_TABLE.search(str(error))
    if found is None or contract.language is None:
        return False
    usual = usual_tokens()
    missed, last = int(found[1]), int(found[2])
    return (
        usual is not None
        and missed in arrays[contract.language.tokens]
        and int(usual.max()) <= last
        and last > 0
    )
