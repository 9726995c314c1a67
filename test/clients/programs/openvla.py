# SPDX-License-Identifier: Apache-2.0
"""inspect-robots-widowx's OpenVLA client, with its own transport: python openvla.py LINE. Its body has no state."""

import sys
from types import SimpleNamespace

import numpy as np
from inspect_robots_widowx.policy import OpenVLAPolicy
from wire_pipe import serve

policy = eval(sys.argv[1], {"OpenVLAPolicy": OpenVLAPolicy})


def infer(image, state, instruction, seed, first):
    """Return its one row."""
    policy.reset(SimpleNamespace(instruction=instruction))
    chunk = policy.act(SimpleNamespace(images={"external_cam": image}, state={}))
    return np.array([action.data for action in chunk.actions])


serve(infer)
