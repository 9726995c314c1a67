# SPDX-License-Identifier: Apache-2.0
"""The observation that warm-up and probes run on."""

from __future__ import annotations

import numpy as np

from reflex_core.export.binding import Binding
from reflex_core.export.contract import Contract
from reflex_core.policy.input_faults import USUAL_SIDE
from reflex_core.values import Frame, Observation


def canary(contract: Contract, binding: Binding) -> Observation:
    """Return an observation with every shape as in service: grey pictures, and the robot where it usually is."""
    frames = {}
    for slot in contract.images:
        if slot.camera is None:
            continue
        height, width = slot.height or USUAL_SIDE, slot.width or USUAL_SIDE
        pixels = np.full((height, width, 3), 127, dtype=np.uint8)
        frames[binding.cameras.get(slot.camera, slot.camera)] = Frame(pixels, "rgb8", height, width)
    dim = binding.state_dim or (contract.state.width if contract.state else 0)
    if binding.tool is not None and binding.embodiment is not None:
        return Observation(frames, binding.embodiment.usual_position(), "warm up")
    statistics = binding.state_statistics
    centred = statistics is not None and statistics.dim == dim
    state = statistics.shift.astype(np.float32) if statistics and centred else np.zeros(dim, np.float32)
    return Observation(frames, state if dim else None, "warm up")
