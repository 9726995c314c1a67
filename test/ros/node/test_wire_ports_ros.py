# SPDX-License-Identifier: Apache-2.0
"""The ports of clients that speak no HTTP, opened by the node's parameters."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from groot_client import GrootClient
from lerobot_client import LerobotClient, observation
from lifecycle_msgs.msg import Transition
from ros_world import HOME, world


def test_the_nodes_ports_answer_lerobot_and_gr00t_while_it_is_active() -> None:
    with world(http=True, port=0, lerobot_port=0, lerobot_units=["radians"], groot_port=0) as scene:
        scene.activate()
        sidecar = scene.server.sidecar
        assert sidecar is not None
        lerobot, groot = LerobotClient(sidecar.lerobot_port), GrootClient(sidecar.groot_port)
        lerobot.start()
        lerobot.send(observation(HOME))
        rows = np.array([row.action for row in lerobot.actions()])
        assert rows.shape == (scene.robot.next_chunk().horizon, len(HOME))
        actions, _ = groot.act()
        assert actions["left_arm"].shape == (1, *rows.shape)
        scene.spinner.do(scene.server.node.change, Transition.TRANSITION_DEACTIVATE)
        lerobot.send(observation(HOME, timestep=30))
        assert lerobot.actions() == []
        with pytest.raises(grpc.RpcError, match="inactive"):
            lerobot.start()
        lerobot.close()
        groot.close()
