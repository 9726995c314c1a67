# SPDX-License-Identifier: Apache-2.0
"""inspect-robots-yam's client of MolmoAct2 servers, with its own transport: python molmoact2.py LINE.

It is made for two arms of seven joints: the policy that answers drives as many.
"""

import sys
from types import SimpleNamespace

import numpy as np
from inspect_robots_yam.policy import ActServerPolicy
from wire_pipe import serve

policy = eval(sys.argv[1], {"ActServerPolicy": ActServerPolicy})


def infer(image, state, instruction, seed, first):
    """Return its rows."""
    config = policy._cfg
    policy.reset(SimpleNamespace(instruction=instruction))
    images = dict.fromkeys(config.camera_order, image)
    chunk = policy.act(SimpleNamespace(images=images, state={config.state_key: state}))
    assert chunk.control_hz is not None
    return np.array([action.data for action in chunk.actions])


serve(infer)
