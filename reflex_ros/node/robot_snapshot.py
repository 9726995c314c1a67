# SPDX-License-Identifier: Apache-2.0
"""Take the snapshot of the chunk loop that the page shows. Called from the page's thread: it never waits for the loop."""

from __future__ import annotations

from collections.abc import Sequence

from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.diagnostics import Finding
from reflex_ros.node.holds import AWAITING_GOAL, GOAL_ENDED
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.progress import Progress
from reflex_ros.sidecar.robot_access import RobotSnapshot


def take_snapshot(
    node_state: str,
    refusal: str,
    progress: Progress,
    loop: ChunkLoop | None,
    buffer: ObservationBuffer | None,
    episode_id: str,
    findings: Sequence[Finding],
    now_ns: int,
) -> RobotSnapshot:
    """Return the node's state now. `now_ns` is on the robot's clock; loop and buffer are None while it is not active."""
    running = loop.scheduler.running if loop is not None else None
    return RobotSnapshot(
        node_state=node_state,
        refusal=refusal,
        stopped=loop is not None and loop.stopped,
        awaits_goal=loop is not None and loop.stop_reason in (GOAL_ENDED, AWAITING_GOAL),
        hold_reason=progress.hold_reason,
        problem=progress.problem,
        problem_text=progress.problem_text,
        episode_id=episode_id,
        instruction=buffer.instruction if buffer is not None else "",
        chunks=progress.chunks,
        holds=progress.holds,
        errors=progress.errors,
        refused=progress.refused,
        discarded=progress.discarded,
        remaining_s=running.remaining_s(now_ns) if running is not None else 0.0,
        first_motion=progress.first_motion,
        control=progress.control,
        blend=progress.blend,
        ages_ms=buffer.ages_ms(now_ns) if buffer is not None else {},
        findings=tuple(findings),
    )
