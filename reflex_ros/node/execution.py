# SPDX-License-Identifier: Apache-2.0
"""What the robot executes: the chunk or the hold that was published last, who commanded it, and until when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reflex_core.chunks.blend import Blend
from reflex_core.chunks.handover import Handover
from reflex_core.chunks.interpolation import Spline
from reflex_core.chunks.scheduling import ExecutingChunk
from reflex_core.engine.serving_state import ServingState
from reflex_core.values import LAST_KNOWN_GOOD, POLICY, ActionChunk, Served
from reflex_ros.node.every_step import EveryStep
from reflex_ros.node.holds import DEADLINE, Holds
from reflex_ros.node.progress import Progress, Tuning
from reflex_ros.node.watchdog import TEXTS
from reflex_ros.outputs.outputs import Outputs

AT_REST_S = 0.1  # how far an arm may be behind the end of a hold


class Execution:
    """The caller has the lock that orders what is published.

    blend: how much of the policy's motion is let through, at first as given. running: what the robot follows, None before the
    first. held_at_ns: since when nothing of before goes on. until_ns: when `running` ends. rest_ns: when
    a last hold has come to rest, 0 where there is none. All three are monotonic.
    """

    def __init__(
        self,
        loaded: ServingState,
        holds: Holds,
        handover: Handover,
        outputs: Outputs,
        progress: Progress,
        every_step: EveryStep,
        blend: float,
        clock_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._loaded, self._holds, self._handover, self._outputs = loaded, holds, handover, outputs
        self._progress, self._every_step = progress, every_step
        self._clock_ns, self._monotonic_ns = clock_ns, monotonic_ns
        self.episode_id, self.chunk_id = "", 0
        self.running: ExecutingChunk | None = None
        self.held_at_ns = monotonic_ns()  # nothing of an activation before goes on
        self.rest_ns = self.until_ns = 0
        limits = loaded.guard.limits
        self.blend = Blend(blend, None if limits is None else limits.velocity_max)
        self.commanded_by(POLICY)

    def commanded_by(self, control: str) -> None:
        """Take note who commands the robot from now on: every message and record that follows says so."""
        self._progress.control = self._outputs.control = control

    def aim(self, tuning: Tuning) -> bool:
        """Let through what the settings say; True when they say something else than before."""
        monotonic_ns = self._monotonic_ns()
        changed = self.blend.aim(tuning.blend, tuning.blend_s, monotonic_ns)
        self._loaded.guard.commands.partial = not self.blend.whole(monotonic_ns)
        self._outputs.blend = self._progress.blend = self.blend.at(monotonic_ns)
        return changed

    def led(self, served: Served, stamp_ns: int, start: int, now_ns: int) -> tuple[Served, ActionChunk]:
        """Return the answer with the share of its chunk that is let through, and that chunk as the robot can take it over now.

        The latter is another object wherever the guard has to judge it anew.
        """
        chunk, monotonic_ns = served.chunk, self._monotonic_ns()
        self._outputs.blend = self._progress.blend = self.blend.at(monotonic_ns)
        if self.blend.whole(monotonic_ns):
            return served, self._handover.led(chunk, stamp_ns, start, now_ns)
        first_in_s = (stamp_ns - now_ns) * 1e-9 + (start + 1) * chunk.dt_s
        place, _ = self._handover.at(now_ns)
        chunk = self.blend.blended(chunk, start, place, self._handover.rates, monotonic_ns, first_in_s)
        # what is not let through is never executed instead
        return replace(served, chunk=chunk), replace(self._handover.led(chunk, stamp_ns, start, now_ns))

    def send(self, served: Served, age_ms: float, running: ExecutingChunk, start: int, now_ns: int) -> None:
        """Publish the policy's rows `start` on from `now_ns`, and record them as what the robot executes."""
        self.commanded_by(POLICY)
        motion = self._publish(served, age_ms, running, start, now_ns)
        self._holds.executed(self.episode_id or None, start)
        if self.blend.whole(self._monotonic_ns()):
            self._every_step.follow(served, running, start, motion, now_ns)
            return
        self._every_step.end()
        self._loaded.not_executed(self.episode_id or None)  # what it answered is not what is executed

    def send_of_person(self, served: Served, lasting_s: float, now_ns: int, following: int) -> None:
        """Publish what a person commands from `now_ns` on, and record it as what the robot executes for `lasting_s`.

        following: how many rows are those of the motion before, which goes on until then.
        """
        chunk = served.chunk
        running = ExecutingChunk(now_ns, chunk.dt_s, len(chunk.actions) + int(lasting_s / chunk.dt_s))
        self._every_step.end()
        self._publish(served, 0.0, running, 0, now_ns, following)
        self._loaded.guard.commands.executed()
        self._progress.hold_reason = ""
        self.chunk_id += 1

    def _publish(
        self, served: Served, age_ms: float, running: ExecutingChunk, start: int, now_ns: int, following: int = 0
    ) -> Spline:  # fmt: skip
        chunk = served.chunk
        first_in_ns = running.stamp_ns + int((start + 1) * running.dt_s * 1e9) - now_ns
        self._holds.commanded(chunk.actions[start:], first_in_ns, now_ns)
        motion = self._handover.take_over(chunk, running.stamp_ns, start, now_ns, following)
        self._outputs.chunk(served, running.stamp_ns, age_ms, self.chunk_id, start, motion)
        self.running, self.rest_ns, self._progress.unheld_text = running, 0, ""
        self.until_ns = self._monotonic_ns() + running.end_ns - now_ns
        return motion

    def hold(self, reason: str, served: Served | None = None) -> bool:
        """Publish the guard's hold; False when there is none, which is reported.

        served: the answer that is a hold; None for a hold of the loop itself.
        """
        # a model that is always late makes its first chunk while the robot waits for it, held by the same deadline
        if reason != DEADLINE or self._progress.hold_reason != DEADLINE:
            self.held_at_ns = self._monotonic_ns()
        running = self._holds.publish(reason, self.episode_id, self.chunk_id, served)
        self.running = running or self.running
        return running is not None

    @property
    def resting(self) -> bool:
        """True while the robot is on its way to where a stop holds it."""
        return self._monotonic_ns() < self.rest_ns

    def end_commands(self, *, held: bool) -> int:
        """Drop earlier commands once a last hold has come to rest, and return when that is: the robot may be moved by hand then."""
        self._holds.end_commands()
        if held and self.running is not None and self._monotonic_ns() >= self.rest_ns:
            rest_s = self.running.remaining_s(self._clock_ns()) + AT_REST_S
            self.rest_ns = self._monotonic_ns() + int(rest_s * 1e9)
        return max(self.rest_ns, self._monotonic_ns())

    def over_ns(self, *, wall_clock: bool) -> int | None:
        """Return how long ago the last row was reached, negative before; None where nothing is executed.

        wall_clock: the robot's clock may be set, and says nothing of it.
        """
        if self.running is None:
            return None
        return self._monotonic_ns() - self.until_ns if wall_clock else self._clock_ns() - self.running.end_ns

    def unfit(self, served: Served, start: int, now_ns: int) -> tuple[str, str] | None:
        """Return why the chunk must not be executed from row `start` on, as slug and sentence; None where it may be."""
        if start >= len(served.chunk.actions):
            return "chunk_expired", "all of the chunk had elapsed before it was there"
        if self._outlived(served):
            return DEADLINE, "the last good chunk is from before the robot held"
        if not self.blend.whole(self._monotonic_ns()) and self._handover.at(now_ns)[0] is None:
            return (
                "unplaced",
                "a part of the motion cannot be let through, for it is not known where the robot is",
            )
        overdue = self._outputs.overdue()
        return (overdue, TEXTS[overdue]) if overdue else None

    def _outlived(self, served: Served) -> bool:
        """Return True for a fallback from before the robot held: it would jump to where it might have been by now."""
        if served.chunk.source != LAST_KNOWN_GOOD:
            return False
        age_ms = served.fallback.age_ms + served.injected_latency_ms
        return self._monotonic_ns() - age_ms * 1e6 < self.held_at_ns
