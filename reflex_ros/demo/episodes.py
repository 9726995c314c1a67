# SPDX-License-Identifier: Apache-2.0
"""Run seeded episodes over ROS topics, monitored by a subscriber that is neither robot nor policy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from reflex_ros.demo.episode import Episode, Moment
from reflex_ros.demo.participant import Participant
from reflex_ros.demo.scene import JOINT_NAMES
from reflex_ros.msg import ActionChunk, EpisodeOutcome, ServeStatus

SCORE_PERIOD_S = 0.1
SETTLED_RAD_S = 0.1
SETTLED_S = 1.0
FRESH_SENSORS_S = 0.1
CONNECT_TIMEOUT_S = 60.0
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=10)


def chunk_fault(chunk: ActionChunk, joints: tuple[str, ...] = JOINT_NAMES) -> str:
    """Return why an ActionChunk is not well-formed, in one sentence; empty when it is."""
    if tuple(chunk.names) != joints or chunk.action_dim != len(joints):
        return f"Expected one column for each of {', '.join(joints)}, got {', '.join(chunk.names)}."
    if len(chunk.data) != chunk.horizon * chunk.action_dim or chunk.horizon == 0:
        return f"Expected {chunk.horizon} x {chunk.action_dim} numbers, got {len(chunk.data)}."
    if not np.isfinite(chunk.data).all():
        return "Expected finite actions, got NaN or infinity."
    if chunk.dt_s <= 0.0 or chunk.start_index >= chunk.horizon:
        return (
            f"Expected dt_s > 0 and start_index < {chunk.horizon}, got {chunk.dt_s} and {chunk.start_index}."
        )
    if chunk.header.stamp.sec == 0:
        return "Expected the stamp of an observation, got 0."
    return ""


class Watch:
    """Collect what the policy node publishes, and publish episodes, their outcomes and instructions to it."""

    def __init__(self, participant: Participant, joints: tuple[str, ...] = JOINT_NAMES) -> None:
        """Subscribe. joints: the columns that a chunk must have."""
        self._joints = joints
        self.chunks: list[ActionChunk] = []
        self.faults: list[str] = []
        self.status: ServeStatus | None = None
        self._participant = participant
        node = participant.node
        node.create_subscription(ActionChunk, "reflex/action_chunk", self._on_chunk, RELIABLE)
        node.create_subscription(ServeStatus, "reflex/status", self._on_status, LATCHED)
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self._episode = node.create_publisher(String, "episode", LATCHED)
        self._outcome = node.create_publisher(EpisodeOutcome, "reflex/outcome", RELIABLE)

    def connect(self, seed: int) -> None:
        """Wait until a chunk has gone all the way: camera to policy, policy to robot and to this program.

        DDS takes up to some seconds to match all endpoints, which belongs to no episode.
        """
        participant = self._participant
        participant.set_parameters("robot", {"scene_seed": seed})
        scene = participant.trigger("robot/reset")
        self.begin("connect", scene["instruction"])
        for heard, what in (
            (lambda: self.status, "the status of the policy node"),
            (lambda: self.of_episode("connect"), "a first action chunk"),
            (lambda: participant.trigger("robot/score")["trajectories_followed"], "the robot to follow it"),
        ):
            participant.spin_until(heard, what, CONNECT_TIMEOUT_S)

    def begin(self, episode_id: str, instruction: str) -> None:
        """Start an episode; the instruction goes first so that no chunk of it follows the old one."""
        self._instruction.publish(String(data=instruction))
        self._episode.publish(String(data=episode_id))

    def end(self, episode_id: str, *, succeeded: bool, note: str) -> None:
        """Report how an episode ended; a recording keeps it."""
        self._outcome.publish(EpisodeOutcome(episode_id=episode_id, success=succeeded, note=note))

    def of_episode(self, episode_id: str) -> list[ActionChunk]:
        """Return the chunks of one episode, in the order of their arrival."""
        return [chunk for chunk in self.chunks if chunk.episode_id == episode_id]

    def _on_chunk(self, chunk: ActionChunk) -> None:
        self.chunks.append(chunk)
        fault = chunk_fault(chunk, self._joints)
        if fault:
            self.faults.append(fault)

    def _on_status(self, status: ServeStatus) -> None:
        self.status = status


def run_episode(
    participant: Participant,
    watch: Watch,
    seed: int,
    on_score: Callable[[Moment], None],
    *,
    settles: bool = True,
    limit_s: float = 6.0,
) -> Episode:
    """Reset the robot to the scene of `seed`, instruct the policy, wait for success or the time limit, report the outcome.

    `on_score` is called several times a second and at the end. settles: success must have lasted, with the arm at rest.
    """
    participant.set_parameters("robot", {"scene_seed": seed})
    participant.call("reflex/stop")  # no policy drives while the reset moves the arm
    scene = participant.trigger("robot/reset")
    participant.spin_for(FRESH_SENSORS_S)  # else the policy may look at the scene before the reset
    participant.call("reflex/reset_guard")  # the arm really has jumped, which no real one does
    watch.begin(scene["episode"], scene["instruction"])
    participant.call("reflex/resume")
    started_s = time.monotonic()
    settled_since_s: float | None = None
    while True:
        score = participant.trigger("robot/score")
        elapsed_s = time.monotonic() - started_s
        on_score(Moment(elapsed_s, score["measure_m"], score["succeeded"]))
        if score["succeeded"] and not settles:
            break
        if not (score["succeeded"] and score["speed_rad_s"] < SETTLED_RAD_S):
            settled_since_s = None
        elif settled_since_s is None:
            settled_since_s = elapsed_s
        elif elapsed_s - settled_since_s >= SETTLED_S:
            break
        if elapsed_s > limit_s:
            break
        participant.spin_for(SCORE_PERIOD_S)
    watch.end(scene["episode"], succeeded=score["succeeded"], note=score["note"])
    chunks = watch.of_episode(scene["episode"])
    computed = [chunk for chunk in chunks if chunk.source == ActionChunk.SOURCE_POLICY]
    return Episode(
        episode_id=scene["episode"],
        seed=seed,
        instruction=scene["instruction"],
        target=score["target"],
        succeeded=score["succeeded"],
        measure_m=score["measure_m"],
        duration_s=elapsed_s,
        chunks=len(computed),
        holds=sum(chunk.source == ActionChunk.SOURCE_HOLD for chunk in chunks),
        denoise_steps=_median([chunk.denoise_steps for chunk in computed]),
        latency_ms=_median([chunk.latency_ms for chunk in computed]),
        observation_age_ms=_median([chunk.observation_age_ms for chunk in computed]),
        note=score["note"],
    )


def _median(values: list[float]) -> float | None:
    return float(statistics.median(values)) if values else None
