# SPDX-License-Identifier: Apache-2.0
"""A client of Triton's, which asks for what this server does not have: python triton.py PORT. Its one row is the status."""

import sys

import numpy as np
import tritonclient.http as triton
from wire_pipe import serve

client = triton.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")


def infer(image, state, instruction, seed, first):
    """Return the status with which it was refused."""
    tensor = triton.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)
    assert not client.is_server_live()
    try:
        client.infer("policy", [tensor])
    except triton.InferenceServerException as error:
        return np.array([[float(error.status())]])
    raise AssertionError("it was answered")


serve(infer)
