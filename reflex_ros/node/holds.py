# SPDX-License-Identifier: Apache-2.0
"""Publish the guard's holds, and report why where no hold is possible."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from reflex_core.chunks.handover import Handover, bounds_of
from reflex_core.chunks.interpolation import Doubles
from reflex_core.chunks.scheduling import ExecutingChunk
from reflex_core.chunks.takeover import LATE_S
from reflex_core.chunks.tool_motion import ToolMotion
from reflex_core.engine.serving_state import ServingState
from reflex_core.metrics.metrics import Metrics
from reflex_core.robot.limits.history import Moment
from reflex_core.values import Floats, Served
from reflex_ros.node.every_step import EveryStep
from reflex_ros.node.measured_joints import MeasuredJoints
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.progress import Progress, Tuning
from reflex_ros.outputs.outputs import Outputs

# why the robot is held: by the watchdog, and where inference was too slow and nothing can stand in
LATE, GONE, DEADLINE = "chunk_loop_late", "chunk_loop_gone", "deadline"
# by a person, at the end of a goal of ~/run_policy, and with the node
STOPPED, GOAL_ENDED, DEACTIVATED = "stopped", "goal_ended", "deactivated"
HANDED_BACK = "handed_back"  # after a person has commanded it
TRIPPED = "guard_tripped"  # as the holds of the guard itself are called
AWAITING_GOAL = "awaiting_goal"  # nothing was commanded since the node became active
REQUESTED = (STOPPED, GOAL_ENDED, DEACTIVATED, HANDED_BACK)

log = logging.getLogger(__name__)


class Holds:
    """Every hold of the node goes through `publish`: of the loop, services, watchdog and the end of the process.

    The caller has the lock that orders what is published.
    """

    def __init__(
        self,
        loaded: ServingState,
        handover: Handover,
        buffer: ObservationBuffer,
        outputs: Outputs,
        metrics: Metrics,
        progress: Progress,
        tuning: Callable[[], Tuning],
        clock_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._commands, self._binding, self._handover = loaded.guard.commands, loaded.policy.binding, handover
        self._buffer, self._outputs = buffer, outputs
        self.joints = MeasuredJoints(buffer, self._binding, tuning)
        self._metrics, self._progress, self._loaded = metrics, progress, loaded
        self.dry_run = False
        self.every_step: EveryStep | None = None  # set by who makes both
        self._clock_ns, self._monotonic_ns = clock_ns, monotonic_ns

    def publish(
        self, reason: str, episode_id: str, chunk_id: int, served: Served | None = None
    ) -> ExecutingChunk | None:
        """Publish a hold that begins now; None when there is none, which log, status, diagnostics and a counter report.

        Where the joints cannot be held, whatever is commanded by velocity still is, what follows a chunk row by row stays where
        it was commanded last, and None is returned.
        served: the answer that is a hold; None for a hold of the node itself.
        """
        now_ns, monotonic_ns = self._clock_ns(), self._monotonic_ns()
        dt_s, moment = self._binding.dt_s, Moment(monotonic_ns, now_ns)
        held = self._commands.hold(self.joints.position(now_ns), self.joints.believed(), moment, dt_s)
        if held is None or held.held is not None:
            if held is not None:  # what is commanded by velocity
                self._handover.forget()
                self._outputs.hold(held, self._binding, now_ns, episode_id, chunk_id, reason, None, served)
            self._outputs.halt()
            self._refuse(reason)
            return None
        self.commanded(held.rows[held.start :], int((held.start + 1) * dt_s * 1e9), now_ns)
        self._progress.hold_reason, self._progress.unheld_text = reason, ""
        added = None if self.every_step is None else self.every_step.added(now_ns)
        punctual = reason == HANDED_BACK  # what a person commanded ends at rest by itself
        motion = self._handover.hold(held, now_ns, added, int(LATE_S * 1e9) if punctual else 0)
        self._outputs.hold(
            held, self._binding, now_ns, episode_id, chunk_id, reason, motion, served, punctual=punctual
        )
        if self.every_step is not None:
            self.every_step.end()
        if self.dry_run:
            self.end_commands()
        if served is None:
            self._progress.holds += 1
            self._metrics.holds.labels(reason).inc()
            if reason in REQUESTED:
                log.warning("holding: %s", reason)
            else:  # it may come several times a second
                self._progress.limited_log(logging.WARNING, f"hold {reason}", "holding: %s", reason)
        return ExecutingChunk(now_ns, dt_s, len(held.rows))

    def commanded(self, rows: Floats, first_in_ns: int, now_ns: int) -> None:
        """Note what the joints are to follow, from `first_in_ns` after `now_ns` on; in a dry run they follow nothing."""
        if not self.dry_run:
            self.joints.commanded(rows, first_in_ns, now_ns)

    def executed(self, episode_id: str | None, start: int) -> None:
        """Note that the newest chunk is executed from row `start` on; in a dry run none is."""
        if not self.dry_run:
            self._loaded.executed(episode_id, start)
            return
        self._loaded.not_executed(episode_id)
        self.end_commands()

    def end_commands(self) -> None:
        """Drop everything that was commanded: other programs may move the robot now."""
        self._commands.end()
        self._handover.forget()
        if self.every_step is not None:
            self.every_step.end()

    def _refuse(self, reason: str) -> None:
        fault = self._buffer.fault()
        why = f": {fault.text}" if fault is not None else ""
        rates = self.joints.velocities
        what, stopped = (
            ("no position", f"; {', '.join(rates)} was commanded to stop") if rates else ("nothing", "")
        )
        message = (
            f"{what} was published for '{reason}': no fresh and plausible position is measured, and no command is"
            f" known to be followed{why}{stopped}"
        )
        # it is tried again twenty times a second, and the sentence changes with every reading
        self._progress.limited_log(logging.ERROR, f"unheld {reason}", "%s", message)
        self._progress.unheld += 1
        self._progress.unheld_text = message
        self._metrics.unheld.labels(reason).inc()


def handover_of(
    loaded: ServingState,
    buffer: ObservationBuffer,
    tuning: Callable[[], Tuning],
    monotonic_ns: Callable[[], int],
) -> Handover:
    """Return how one chunk follows another on this robot, without a motion yet."""
    binding, commands = loaded.policy.binding, loaded.guard.commands
    joints = MeasuredJoints(buffer, binding, tuning)

    def where(now_ns: int) -> Floats | Doubles | None:
        commanded = commands.place(Moment(monotonic_ns(), now_ns))
        if commanded is not None:
            return commanded
        measured, believed = joints.position(now_ns), joints.believed()
        return measured if measured is not None or believed is None else np.array(believed[0])

    limits, bounds = loaded.guard.limits, bounds_of(binding, loaded.guard.limits)
    tool = None
    if limits is not None and limits.tool is not None and binding.dt_s > 0.0:
        tool = ToolMotion(limits, limits.tool, bounds, binding.dt_s)
    return Handover(bounds, where, lambda: tuning().fade_s, joints.position, tool)
