# SPDX-License-Identifier: Apache-2.0
"""How well the arm follows a moving block when the real node streams to it and corrects every control step, chunks being late.

The task of `latency_sweep` (scenes, paths, 6 s, followed: the end effector on average within 4 cm over the last 2 s), over ROS topics: camera
and joints of the simulated arm, `forward_command` at 100 Hz, `--a2c2-every-step`, inference in the node's own loop. What the network
says is there `delay` control steps after its picture was taken, on the simulator's clock, which stands still while the network computes
and goes on when a command has come: a busy machine makes the program slower, and not the chunks later. At least two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from reflex_ros.msg import ActionChunk
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from benchmarks.exports import embedded
from benchmarks.latency_sweep import FIRST_HELD_OUT_SEED, HORIZON, SCORED_STEPS, SPEED_M_S, STEPS
from benchmarks.measure import finish, parser
from benchmarks.moving_target import Doubles, straight_path
from reflex_core.chunks.a2c2.reasons import APPLIED
from reflex_core.metrics.intervals import wilson
from reflex_core.policy.base import Policy
from reflex_core.values import Observation
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.robot_messages import SENSOR_QOS, Frame, image_message, joint_state_message
from reflex_ros.demo.scene import JOINT_NAMES, SUCCESS_DISTANCE_M, Scene, distances_m, make_scene
from reflex_ros.graph.qos import LATCHED
from reflex_ros.node.node import ReflexNode

STEP_NS, TICK_NS = 50_000_000, 10_000_000
COMMAND_S = 0.03  # how long the clock waits for a command: nothing may be streamed
PATIENCE_S = 60.0
SETTLED_STEPS = 8
DELAYS, SCENES = (0, 8), 20
RATE_HZ = 100.0


class SimulatedClock:
    """What the simulator says the time is; several threads read it and wait for it. It begins at 1 s: a stamp of 0 means unknown."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self._changed = threading.Condition()

    def advance(self, nanoseconds: int) -> None:
        with self._changed:
            self.now_ns += nanoseconds
            self._changed.notify_all()

    def wait_until(self, when_ns: int) -> None:
        """Wait for a moment, at most PATIENCE_S of the machine's time."""
        with self._changed:
            self._changed.wait_for(lambda: self.now_ns >= when_ns, PATIENCE_S)


class LateNetwork:
    """A policy's `predict` whose answers are there `delay` control steps after the picture. computing: the clock must stand still."""

    def __init__(self, policy: Policy, clock: SimulatedClock) -> None:
        self._predict, self._clock = policy.predict, clock
        self.delay = 0
        self.computing = False

    def __call__(self, observation: Observation, *arguments: Any, **named: Any) -> Any:
        self.computing = True
        try:
            prediction = self._predict(observation, *arguments, **named)
        finally:
            self.computing = False
        self._clock.wait_until(observation.stamp_ns + self.delay * STEP_NS)
        return prediction


@dataclass(frozen=True, slots=True)
class Outcome:
    """One episode. distance_m: mean of its last 2 s. late_steps: of its chunks when they were published, the median.

    corrected: how many chunks and observations were answered with a correction.
    """

    seed: int
    followed: bool
    distance_m: float
    chunks: int
    holds: int
    late_steps: float
    corrected: int


class Simulator:
    """The arm on its topics, and the clock. One thread: what is heard is handled while it waits."""

    def __init__(self, arm: Arm, clock: SimulatedClock, domain: int) -> None:
        self._arm, self._clock = arm, clock
        self.network: LateNetwork | None = None
        self.corrections: Callable[[], int] = lambda: 0
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain)
        node = self._node = Node("robot", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._clocks = node.create_publisher(Clock, "/clock", 10)
        self._images = node.create_publisher(Image, "camera/image_raw", SENSOR_QOS)
        self._joints = node.create_publisher(JointState, "joint_states", 10)
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self._episode = node.create_publisher(String, "episode", LATCHED)
        node.create_subscription(Float64MultiArray, "reflex/commands", self._commanded, 10)
        node.create_subscription(ActionChunk, "reflex/action_chunk", self._heard, 10)
        self._command: Doubles = arm.joint_positions_rad
        self._commands, self._chunks = 0, list[tuple[ActionChunk, int]]()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def episode(self, seed: int, steps: int) -> Outcome:
        """Let the node follow the block for so many control steps."""
        scene = make_scene(seed)
        path_m = straight_path(scene, steps, SPEED_M_S * STEP_NS * 1e-9)
        self._call("stop")  # no policy drives while the arm is put elsewhere
        self._rest(scene)
        self._arm.reset(scene)
        self._command = self._arm.joint_positions_rad
        self._rest(scene)
        self._call("reset_guard")  # the arm really has jumped, which no real one does
        self._instruction.publish(String(data=scene.instruction))
        self._episode.publish(String(data=f"{seed}-{self._clock.now_ns}"))
        self._rest(scene)
        self._chunks.clear()
        self._call("resume")
        distances, before = [], self.corrections()
        for place_m in path_m[1:]:
            scene = _moved(scene, place_m)
            self._step(scene)
            distances.append(float(distances_m(scene, self._arm.end_effector_m)[scene.target_index]))
        distance_m = float(np.mean(distances[-SCORED_STEPS:]))
        sources = [chunk.source for chunk, _ in self._chunks]
        late = [age_ns / STEP_NS for _, age_ns in self._chunks]
        return Outcome(
            seed, distance_m < SUCCESS_DISTANCE_M, distance_m, sources.count(ActionChunk.SOURCE_POLICY),
            sources.count(ActionChunk.SOURCE_HOLD), float(np.median(late)) if late else float("nan"),
            self.corrections() - before,
        )  # fmt: skip

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Let the scene stand still and time go on until something is so. Raises TimeoutError naming what never was."""
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end_s:
                raise TimeoutError(f"never happened: {what}")
            self._step(None)

    def _rest(self, scene: Scene) -> None:
        for _ in range(SETTLED_STEPS):
            self._step(scene)

    def _call(self, name: str) -> None:
        client = self._node.create_client(Trigger, f"reflex/{name}")
        self.until(client.service_is_ready, f"the service {name}")
        answer = client.call_async(Trigger.Request())
        self.until(answer.done, f"an answer of {name}")
        if not answer.result().success:
            raise RuntimeError(f"{name}: {answer.result().message}")

    def _step(self, scene: Scene | None) -> None:
        """One control step: a picture, then the blocks as the scene has them, and the arm as it is commanded."""
        stamp = Time(nanoseconds=self._clock.now_ns).to_msg()
        self._clocks.publish(Clock(clock=stamp))
        self._images.publish(image_message(Frame(self._arm.image(), stamp)))
        if scene is not None:
            self._arm.place_blocks(scene)
        for _ in range(STEP_NS // TICK_NS):
            self._publish_joints()
            self._tick()

    def _tick(self) -> None:
        """Let the node command what is due now, then move on. While the network computes, time stands still."""
        before, end_s = self._commands, time.monotonic() + COMMAND_S
        while (self._commands == before and time.monotonic() < end_s) or self._computing():
            self._executor.spin_once(timeout_sec=0.002)
        self._arm.step(self._command, TICK_NS * 1e-9)
        self._clock.advance(TICK_NS)
        self._clocks.publish(Clock(clock=Time(nanoseconds=self._clock.now_ns).to_msg()))

    def _computing(self) -> bool:
        return self.network is not None and self.network.computing

    def _publish_joints(self) -> None:
        stamp = Time(nanoseconds=self._clock.now_ns).to_msg()
        arm = self._arm
        self._joints.publish(
            joint_state_message(stamp, JOINT_NAMES, arm.joint_positions_rad, arm.joint_velocities_rad_s)
        )

    def _commanded(self, message: Float64MultiArray) -> None:
        self._command, self._commands = np.array(message.data), self._commands + 1

    def _heard(self, chunk: ActionChunk) -> None:
        stamp = chunk.header.stamp
        self._chunks.append((chunk, self._clock.now_ns - (stamp.sec * 10**9 + stamp.nanosec)))


def _moved(scene: Scene, place_m: Doubles) -> Scene:
    """The scene with its named block elsewhere."""
    blocks = list(scene.blocks)
    x_m, y_m = map(float, place_m)
    blocks[scene.target_index] = replace(blocks[scene.target_index], x_m=x_m, y_m=y_m)
    return replace(scene, blocks=tuple(blocks))


@contextmanager
def serving(simulator: Simulator, clock: SimulatedClock, domain: int, head: Path) -> Iterator[LateNetwork]:
    """The real node, active, on the simulator's clock; its network is as late as `delay` of it says."""
    settings = {
        "export_dir": str(embedded().path), "device": "cpu", "intra_op_threads": 1, "http": False,
        "output": "forward_command", "control_rate_hz": RATE_HZ, "rtc": False,
        "a2c2_checkpoint": str(head), "a2c2_every_step": True, "execution_horizon": HORIZON,
    }  # fmt: skip
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    node = ReflexNode(settings, context=context, parameter_overrides=[Parameter("use_sim_time", value=True)])
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node.node)
    thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
    thread.start()
    try:
        started = executor.create_task(node.start)
        simulator.until(started.done, "the node is active")
        if not started.result():
            raise RuntimeError(f"the node was not started: {node.node.refusal}")
        loaded = node.engine.loaded
        assert loaded is not None
        policy = loaded.first.policy
        network = simulator.network = LateNetwork(policy, clock)
        count = node.engine.metrics.registry.get_sample_value
        simulator.corrections = lambda: int(count("reflex_a2c2_steps_total", {"reason": APPLIED}) or 0)
        with patch.object(policy, "predict", network):
            yield network
    finally:
        ended = executor.create_task(node.finish)
        simulator.until(ended.done, "the node has ended")
        executor.shutdown(timeout_sec=5)
        thread.join(5)
        node.destroy()
        rclpy.try_shutdown(context=context)


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


def measure(delays: Sequence[int], seeds: Sequence[int], head: Path) -> dict[int, list[Outcome]]:
    """The episodes of every delay, scene by scene."""
    domain = int(os.environ.get("ROS_DOMAIN_ID", "0"))
    arm, clock = Arm(), SimulatedClock()
    arm.reset(make_scene(seeds[0]))
    simulator = Simulator(arm, clock, domain)
    found: dict[int, list[Outcome]] = {delay: [] for delay in delays}
    try:
        with serving(simulator, clock, domain, head) as network:
            for seed in seeds:
                for delay in delays:
                    network.delay = delay
                    found[delay].append(simulator.episode(seed, STEPS))
                    print(delay, found[delay][-1], file=sys.stderr, flush=True)
    finally:
        simulator.close()
        arm.close()
    return found


def markdown(found: dict[int, list[Outcome]]) -> str:
    """A line per delay, with Wilson's interval of success, and what is kept of the first delay's."""
    titles = ["delay", "followed", "95 %", "kept", "distance, cm", "late, steps", "holds"]
    lines, first = [titles, ["---"] * len(titles)], next(iter(found.values()))
    base = sum(one.followed for one in first)
    for delay, outcomes in found.items():
        followed, count = sum(one.followed for one in outcomes), len(outcomes)
        low, high = wilson(followed, count)
        lines.append([
            str(delay), f"{followed}/{count}", f"{100 * low:.0f}-{100 * high:.0f} %",
            f"{100 * followed / base:.0f} %" if base else "", f"{100 * np.mean([one.distance_m for one in outcomes]):.2f}",
            f"{np.mean([one.late_steps for one in outcomes]):.1f}", str(sum(one.holds for one in outcomes)),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--scenes", type=int, default=SCENES, help="per delay")
    arguments.add_argument("--delays", type=int, nargs="+", default=DELAYS, help="in control steps of 50 ms")
    arguments.add_argument("--first-seed", type=int, default=FIRST_HELD_OUT_SEED)
    arguments.add_argument("--a2c2", type=Path, help="another head than the export's own")
    return arguments.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the episodes and print the table."""
    options = _options(argv)
    seeds = range(options.first_seed, options.first_seed + options.scenes)
    began_s = time.monotonic()
    found = measure(options.delays, seeds, options.a2c2 or embedded().path / "a2c2.npz")
    print(markdown(found))
    print(f"\n{options.scenes} scenes from seed {options.first_seed}, {time.monotonic() - began_s:.0f} s")
    rows = [{"delay": delay, **asdict(outcome)} for delay, outcomes in found.items() for outcome in outcomes]
    finish("moving_target_node", {"rows": rows}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
