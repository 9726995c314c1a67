# SPDX-License-Identifier: Apache-2.0
"""Bodies of OpenVLA, OpenVLA-OFT and MolmoAct2 through the real json_numpy, and ours in msgpack: python bodies.py LINE BODY.

OpenVLA's has no state and the simulated arm's policy needs one: it is one field more.
"""

import sys

import json_numpy
import msgpack
import numpy as np
import requests
from wire_pipe import serve

LINE, BODY = sys.argv[1:3]


def tagged(array):
    return {
        "__ndarray__": True,
        "data": array.tobytes(),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
    }


def fields(image, state, instruction, seed):
    if BODY == "openvla":
        return {"image": image, "instruction": instruction, "unnorm_key": "x", "state": state, "seed": seed}
    if BODY == "oft":
        return {
            "full_image": image,
            "state": state,
            "instruction": instruction,
            "unnorm_key": "x",
            "seed": seed,
        }
    if BODY == "molmoact2":
        return {"top_cam": image, "state": state, "instruction": instruction, "num_steps": 10, "seed": seed}
    return {"image": tagged(image), "state": state.tolist(), "instruction": instruction, "seed": seed}


def infer(image, state, instruction, seed, first):
    """Return the rows of one answer."""
    sent = fields(image, state, instruction, seed)
    body = msgpack.packb(sent) if BODY == "msgpack" else json_numpy.dumps(sent)
    if BODY == "openvla" and first:  # its double encoding
        body = json_numpy.dumps({"encoded": body})
    response = eval(LINE, {"requests": requests, "body": body})
    response.raise_for_status()
    if BODY == "msgpack":
        rows = msgpack.unpackb(response.content)["actions"]
        return np.frombuffer(rows["data"], rows["dtype"]).reshape(rows["shape"])
    found = json_numpy.loads(response.content)
    if isinstance(found, str):
        found = json_numpy.loads(found)
    rows = found["actions"] if isinstance(found, dict) else found
    return np.atleast_2d(np.asarray(rows, dtype=np.float64))


serve(infer)
