# SPDX-License-Identifier: Apache-2.0
"""inspect-robots-unitree-g1's client of Isaac-GR00T, with its own transport: python groot.py LINE.

It is made for two arms of seven joints with a hand each: the line says that only the first arm is there.
"""

import sys
from types import SimpleNamespace

import numpy as np
from inspect_robots_unitree_g1.packing import LEFT, TOTAL_DIM
from inspect_robots_unitree_g1.policy import Gr00tPolicy
from wire_pipe import serve

policy = eval(sys.argv[1], {"Gr00tPolicy": Gr00tPolicy})
JOINTS = 7


def infer(image, state, instruction, seed, first):
    """Return its rows."""
    if first:
        policy.reset(SimpleNamespace(instruction=""))
        refuse(state)
        policy.reset(SimpleNamespace(instruction=instruction))
    return rows(image, state, instruction)[:, LEFT][:, :JOINTS]


def rows(image, state, instruction):
    """Return (rows, 16): what it would execute."""
    packed = np.zeros(TOTAL_DIM)
    packed[:JOINTS] = state
    seen = SimpleNamespace(images={"head_cam": image}, state={"joint_pos": packed}, instruction=instruction)
    return np.array([action.data for action in policy.act(seen).actions])


def refuse(state):
    """Be refused once, and go on with the same connection."""
    try:
        rows(np.zeros((1, 1, 3), np.uint8), state, "")
        text = "answered"
    except RuntimeError as error:
        text = str(error)
    if "GR00T server error: missing-instruction" not in text or "Traceback" in text:
        raise AssertionError(f"an observation without an instruction: {text}")


serve(infer)
