# SPDX-License-Identifier: Apache-2.0
"""A server elsewhere that runs the policy: what it says of itself, and the transport that reaches it.

The core has no HTTP: what implements `RemoteServer` is in reflex_ros/sidecar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from reflex_core.policy.cloud_server import CloudServer

REFLEX, OPENPI, VLLM = "reflex", "openpi", "vllm"
POSITIONS, VELOCITIES = "joint_position", "joint_velocity"  # what rows are


@dataclass(frozen=True, slots=True)
class RemoteAbout:
    """What a server says of its policy. Empty texts and tuples, 0 and None: it does not say.

    Attributes:
        dialect: reflex, openpi or vllm.
        model_version: Of its policy.
        model_hash: Of its networks.
        config_hash: Of its configuration.
        action_names: Names of the columns of its rows.
        action_dim: How many columns they have.
        horizon: Rows of a chunk.
        execution_horizon: Rows that it wants executed before the next request.
        dt_s: Seconds from row to row.
        cameras: Those whose images it reads, by the names that a request gives them.
        state_names: Of the numbers of the state.
        state_dim: How many numbers the state has.
        reads_state: False where it reads none.
        reads_language: False where it reads no instruction.
        observation_steps: How many observations it sees.
        guides: True where its requests can say how far the previous chunk was executed, and it makes use of that.
        action_space: joint_position or joint_velocity.
    """

    dialect: str
    model_version: str = ""
    model_hash: str = ""
    config_hash: str = ""
    action_names: tuple[str, ...] = ()
    action_dim: int = 0
    horizon: int = 0
    execution_horizon: int = 0
    dt_s: float | None = None
    cameras: tuple[str, ...] | None = None
    state_names: tuple[str, ...] = ()
    state_dim: int = 0
    reads_state: bool = True
    reads_language: bool = True
    observation_steps: int = 1
    guides: bool = False
    action_space: str = ""


class RemoteServer(CloudServer, Protocol):
    """The server of `--remote`. Called from several threads at once."""

    def about(self, left_s: float) -> RemoteAbout:
        """Return what it says of its policy. Raises CloudError where it says nothing within `left_s`, or nothing that can be read."""
        ...
