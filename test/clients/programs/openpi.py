# SPDX-License-Identifier: Apache-2.0
"""openpi-client, unchanged: python openpi.py LINE, the line that makes it."""

import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from wire_pipe import serve

LINE = sys.argv[1]
client = eval(LINE, {"WebsocketClientPolicy": WebsocketClientPolicy})
ROWS_ALONE = "/v1/" in LINE or "/roboarena" in LINE
ROWS = 10


def infer(image, state, instruction, seed, first):
    """Return the rows that its own broker hands out, one for each call; those of a dialect without a map as they come."""
    if first:
        refuse()
        client.reset()
    observation = {
        "observation/image": image,
        "observation/state": state,
        "prompt": instruction,
        "reflex/seed": seed,
    }
    if ROWS_ALONE:
        return client.infer(observation)
    broker = ActionChunkBroker(client, ROWS)
    return np.array([broker.infer(observation)["actions"] for _ in range(ROWS)])


def refuse():
    """Be refused once, and go on with the same connection."""
    try:
        found = client.infer({"observation/state": np.zeros(7), "prompt": "x"})
        text = found.get("message", "") if isinstance(found, dict) else "answered"
    except RuntimeError as error:
        text = str(error)
    if "missing-image" not in text or "Traceback" in text:
        raise AssertionError(f"an observation without an image: {text}")


serve(infer)
