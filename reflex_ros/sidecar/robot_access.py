# SPDX-License-Identifier: Apache-2.0
"""The sidecar's access to the robot when it runs inside the node. Without a node there is no robot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reflex_core.errors import ReflexError
from reflex_core.values import POLICY


class Finding(Protocol):
    """One concern as /diagnostics has it. level: 0 OK, 1 warning, 2 error, 3 stale, as one byte."""

    @property
    def concern(self) -> str: ...
    @property
    def level(self) -> bytes: ...
    @property
    def message(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Need:
    """Something without which there is no chunk. kind: "joints", "camera" or "instruction"; name: of the camera.

    topic: resolved. ok: it is there. text: what is missing, or how old the newest message is.
    """

    kind: str
    name: str
    topic: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class RobotSnapshot:
    """State of the robot's chunk loop at one moment. refusal: why the node did not change its state.

    stopped: until Resume; awaits_goal: or until a goal of ~/run_policy. ages_ms: of the newest message of each stream.
    remaining_s: of the chunk that the robot follows. first_motion: a dry run moves the robot just now, on request.
    control: who commands the robot; blend: how much of the policy's motion is let through, 0 to 1.
    needs: what a chunk is made of, present or not; empty while the node is not active.
    """

    node_state: str
    refusal: str = ""
    stopped: bool = False
    awaits_goal: bool = False
    hold_reason: str = ""
    problem: str = ""
    problem_text: str = ""
    episode_id: str = ""
    instruction: str = ""
    chunks: int = 0
    holds: int = 0
    errors: int = 0
    refused: int = 0
    discarded: int = 0
    remaining_s: float = 0.0
    first_motion: bool = False
    control: str = POLICY
    blend: float = 1.0
    ages_ms: Mapping[str, float] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    needs: Sequence[Need] = ()


def _not_here(_: str) -> str:
    raise ReflexError("this robot takes no instruction and begins no episode")


@dataclass(frozen=True, slots=True)
class Robot:
    """Thread-safe calls into the node. All but `snapshot` return a sentence or raise ReflexError.

    instruct: take another instruction. begin_episode: begin one with the id, or an id of its own for ""; returns the id.
    believe: trust the joints' present readings; returns why that cannot be, else "".
    """

    stop: Callable[[], str]
    resume: Callable[[], str]
    snapshot: Callable[[], RobotSnapshot]
    believe: Callable[[], str] = lambda: ""
    instruct: Callable[[str], str] = _not_here
    begin_episode: Callable[[str], str] = _not_here
