# SPDX-License-Identifier: Apache-2.0
"""Instruction and episode of the robot, from topics, services and goals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from reflex_core.metrics.episodes import ID_RULE, usable_id
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.observation_buffer import ObservationBuffer

if TYPE_CHECKING:
    from rclpy.node import Node

TEXT_LIMIT = 1000  # characters of an instruction


class Assignment:
    """The instruction, which the buffer keeps, and the id of the episode. For the executor's thread.

    of_goal: the instruction is that of a goal, and nothing but another goal or a person lets the robot follow it.
    superseded: called with a sentence when a topic or a service has changed one of them.
    """

    def __init__(
        self,
        node: Node,
        robot_id: Callable[[], str],
        loop: Callable[[], ChunkLoop | None],
        buffer: Callable[[], ObservationBuffer | None],
        now_ns: Callable[[], int],
    ) -> None:
        """Begin without an episode. loop, buffer: None while the node has none."""
        self._node, self._robot_id, self._loop, self._buffer = node, robot_id, loop, buffer
        self._now_ns = now_ns
        self._episodes = self._goal_ns = 0
        self.episode_id = ""
        self.of_goal = False
        self.superseded: Callable[[str], object] = lambda _: None

    @property
    def instruction(self) -> str:
        """The instruction in use; empty before the first."""
        buffer = self._buffer()
        return "" if buffer is None else buffer.instruction

    def instruct(self, text: str, published_ns: int = 0) -> None:
        """Take another instruction from the topic; the same one again changes nothing, nor one from before a goal."""
        buffer, loop = self._buffer(), self._loop()
        if buffer is None or text == buffer.instruction or self._is_older(published_ns):
            return
        if len(text) > TEXT_LIMIT:
            self._node.get_logger().error(
                f"instruction of {len(text)} characters ignored, the limit is {TEXT_LIMIT}"
            )
            return
        self.superseded("another instruction came")
        buffer.instruction, self.of_goal = text, False
        if loop is not None:
            loop.restart()

    def begin_episode(self, episode_id: str, published_ns: int = 0) -> None:
        """Begin an episode, with an id of our own where none is given; not one that was published before a goal."""
        if self._is_older(published_ns):
            return
        if not usable_id(episode_id):
            self._node.get_logger().error(
                f"an episode id of {len(episode_id)} characters was ignored: expected {ID_RULE}"
            )
            return
        self.superseded("another episode was begun")
        self._begin(episode_id)

    def begin_goal(self, instruction: str, episode_id: str) -> str:
        """Take the instruction of a goal, where it has one, and begin its episode; return the episode's id."""
        buffer = self._buffer()
        self._goal_ns, self.of_goal = time.time_ns(), True
        if buffer is not None and instruction:
            buffer.instruction = instruction
        self._begin(episode_id)
        return self.episode_id

    def _is_older(self, published_ns: int) -> bool:
        """Return whether a message of a latched publisher came late: a goal has set another since."""
        return 0 < published_ns < self._goal_ns

    def _begin(self, episode_id: str) -> None:
        self._episodes += 1
        seconds = self._now_ns() // 1_000_000_000
        self.episode_id = episode_id or f"ep_{self._robot_id() or 'robot'}_{seconds}_{self._episodes}"
        loop = self._loop()
        if loop is not None:
            loop.new_episode(self.episode_id)
