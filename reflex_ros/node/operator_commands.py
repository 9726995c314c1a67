# SPDX-License-Identifier: Apache-2.0
"""What an operator commands on the page beside stop and resume. Called from the server's threads, done on the executor's."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reflex_core.errors import ReflexError
from reflex_core.metrics.episodes import ID_RULE, usable_id
from reflex_core.robot.intake import has_words
from reflex_ros.node.assignment import TEXT_LIMIT, Assignment
from reflex_ros.node.lifecycle import ManagedNode

PATIENCE_S = 3.0  # the executor answers within milliseconds unless a callback hangs

Command = Callable[[str], str]


def operator_commands(
    node: ManagedNode, assignment: Assignment, require_active: Callable[[], object]
) -> tuple[Command, Command]:
    """Return `instruct` and `begin_episode`, which raise ReflexError where they cannot be done.

    require_active: raises ReflexError while the node is not active.
    """

    def instruct(text: str) -> str:
        if not has_words(text) or len(text) > TEXT_LIMIT or not text.isprintable():
            raise ReflexError(
                f"an instruction has 1 to {TEXT_LIMIT} printable characters, got {len(text)}",
                "bad-instruction",
            )
        return _on_executor(node, lambda: _instruct(text))

    def _instruct(text: str) -> str:
        require_active()
        assignment.instruct(text)
        return f"the instruction is: {assignment.instruction}"

    def begin_episode(episode_id: str) -> str:
        if not usable_id(episode_id):
            raise ReflexError(
                f"an episode id has {ID_RULE}, got {len(episode_id)}",
                "bad-episode-id",
            )
        return _on_executor(node, lambda: _begin(episode_id))

    def _begin(episode_id: str) -> str:
        require_active()
        assignment.begin_episode(episode_id)
        return assignment.episode_id

    return instruct, begin_episode


def _on_executor(node: ManagedNode, call: Callable[[], str]) -> str:
    """Return what a call returns on the executor's thread. Raises its ReflexError, or one where it is not done in time."""
    executor = node.executor
    if executor is None:
        raise ReflexError("the node is ending", "not-active")
    command = _Command(call)
    executor.create_task(command.run)
    executor.wake()
    return command.result()


class _Command:
    """A call that another thread waits for. What is not begun in time is not done later either."""

    def __init__(self, call: Callable[[], str]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._expired = False
        self._result = ""
        self._error: Exception | None = None

    def run(self) -> None:
        """Do it, unless its caller has given up. On the executor's thread."""
        with self._lock:
            if self._expired:
                return
            try:
                self._result = self._call()
            except Exception as error:
                self._error = error
            self._done.set()

    def result(self) -> str:
        """Wait for what the call returns. Raises what it raised, and ReflexError where it was not done in time."""
        if not self._done.wait(PATIENCE_S):
            with self._lock:
                self._expired = not self._done.is_set()
        if self._expired:
            raise ReflexError(f"the node did not answer within {PATIENCE_S:g} s: try again", "not-answered")
        if self._error is not None:
            raise self._error
        return self._result
