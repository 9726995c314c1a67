# SPDX-License-Identifier: Apache-2.0
"""Take the snapshot of the chunk loop that the page shows. Called from the page's thread: it never waits for the loop."""

from __future__ import annotations

from collections.abc import Sequence

from reflex_core.engine.engine import Engine
from reflex_ros.node.checklist import checklist
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.diagnostics import Finding
from reflex_ros.node.holds import AWAITING_GOAL, GOAL_ENDED
from reflex_ros.node.lifecycle import ManagedNode
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.progress import Progress
from reflex_ros.sidecar.robot_access import Need, RobotSnapshot


def take_snapshot(
    node: ManagedNode,
    engine: Engine,
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
        node_state=node.state,
        refusal=node.refusal or engine.undrivable,
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
        needs=_needs(node, engine, buffer, now_ns) if loop is not None and buffer is not None else (),
    )


def _needs(node: ManagedNode, engine: Engine, buffer: ObservationBuffer, now_ns: int) -> tuple[Need, ...]:
    loaded = engine.loaded
    if loaded is None:
        return ()
    max_age_ms = engine.settings.max_age_ms
    return checklist(buffer, node.count_publishers, now_ns, max_age_ms, needs_words=loaded.needs_instruction)
