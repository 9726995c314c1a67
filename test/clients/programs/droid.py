# SPDX-License-Identifier: Apache-2.0
"""openpi-client, unchanged, with the observations of DROID's robots: python droid.py LINE, the line that makes it."""

import sys

from openpi_client.websocket_client_policy import WebsocketClientPolicy
from wire_pipe import serve

LINE = sys.argv[1]
client = eval(LINE, {"WebsocketClientPolicy": WebsocketClientPolicy})


def infer(image, state, instruction, seed, first):
    """Return the rows as they come. state: seven joints in rad and the gripper, 0 (open) to 1 (closed)."""
    observation = {
        "observation/exterior_image_1_left": image,
        "observation/wrist_image_left": image,
        "observation/joint_position": state[:7],
        "observation/gripper_position": state[7:],
        "prompt": instruction,
        "reflex/seed": seed,
    }
    reply = client.infer(observation)
    return reply["actions"] if isinstance(reply, dict) else reply


serve(infer)
