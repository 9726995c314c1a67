# SPDX-License-Identifier: Apache-2.0
"""`make demo`: simulated robot and policy node as two processes, and seeded episodes over their topics.

    python -m reflex_ros.demo.run --episodes 20 --out demo_out

Exit status: 0 when at least 95 % of the episodes picked up their cube and nothing failed, 130 after Ctrl-C,
else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from reflex_core.files.share import embedded_policy
from reflex_ros.demo.controllers.options import BLEND, LEGACY
from reflex_ros.demo.demo_options import START_STATES, arguments_from
from reflex_ros.demo.goals import GOALS, PICK_UP, Goal
from reflex_ros.demo.processes import (
    Child,
    DemoError,
    check_alive,
    free_port,
    ros_environment,
    start,
    stop,
    tail,
    wait_until_ready,
)
from reflex_ros.demo.report import short
from reflex_ros.demo.startup_lines import startup_lines

READY_TIMEOUT_S = 90.0
FRAMES = "frames"
TRACES, BAGS = "trace", "bag"


def robot_command(
    pictures_dir: Path, era: str = LEGACY, start_state: str = START_STATES[0], goal: Goal = PICK_UP
) -> list[str]:
    """Return the command of the robot process."""
    parameters = {
        "pictures_dir": str(pictures_dir),
        "allow_trajectory_replacement": str(era == BLEND).lower(),
        "interpolate_from_desired_state": str(start_state == "desired").lower(),
    }
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return [sys.executable, "-m", "reflex_ros.demo.robot", "--task", goal.name, "--ros-args", *given]


def policy_command(port: int, record: Path | None = None, goal: Goal = PICK_UP) -> list[str]:
    """Return the command of the policy process: the goal's export on one thread, its trajectory remapped to the robot.

    record: where a trace with every image and a bag are written; None for neither.
    """
    serve = ["serve", goal.export, "--port", str(port), "--robot-id", "demo", "--intra-op-threads", "1"]
    if record is not None:
        serve += ["--record", str(record / TRACES), "--record-images", "full"]
        serve += ["--record-bag", str(record / BAGS)]
    remap = ["--ros-args", "-r", "reflex/joint_trajectory:=joint_trajectory"]
    return [sys.executable, "-m", "reflex_ros.cli.main", *serve, *remap]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    arguments = arguments_from(argv)
    return run_over_http(arguments) if arguments.no_ros else run_over_ros(arguments)


def run_over_http(arguments: argparse.Namespace) -> int:
    """Run the demo without ROS and return the exit status."""
    with startup_lines("loading the simulator"):
        from reflex_ros.demo import http_run
    return http_run.run_over_http(arguments)


def run_over_ros(arguments: argparse.Namespace) -> int:
    """Run the demo with arguments of `arguments_from`. Return the exit status."""
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / FRAMES, ignore_errors=True)
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # each line when it is printed, also through a pipe
    children: list[Child] = []
    failures: list[str] = []
    try:
        failures = _demo(arguments, out, children)
    except DemoError as error:
        failures = [str(error)]
    except KeyboardInterrupt:
        return 130
    finally:
        complaints = stop(children)
    if arguments.record is not None:
        print("recorded", *map(short, _recordings(arguments.record.resolve())), sep="\n  ")
    # After another failure a process may be caught while it starts, which says nothing.
    failures = failures or complaints
    if failures:
        _explain(failures, children)
        return 1
    return 0


def _demo(arguments: argparse.Namespace, out: Path, children: list[Child]) -> list[str]:
    os.environ.update(ros_environment(os.environ))
    port = free_port(arguments.port)
    if arguments.port not in {0, port}:
        print(f"port {arguments.port} is in use; the policy server takes {port}")
    goal = GOALS[arguments.policy]
    robot_process = robot_command(out / FRAMES, arguments.era, arguments.start_state, goal)
    robot = start("robot", robot_process, out / "robot.log", os.environ)
    children.append(robot)
    record = arguments.record.resolve() if arguments.record else None
    policy = start("policy", policy_command(port, record, goal), out / "policy.log", os.environ)
    children.append(policy)
    print(f"robot   simulated Panda, pid {robot.process.pid}, {short(robot.log)}")
    print(f"policy  {embedded_policy(goal.export).name}, pid {policy.process.pid}, {short(policy.log)}")
    print(f"page    http://127.0.0.1:{port}/")
    print(f"topics  ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}, this machine only")
    with contextlib.ExitStack() as stack:
        with startup_lines("robot and policy start") as show:
            # they start meanwhile: on a busy machine these imports take seconds
            with _interrupted_afterwards():
                from reflex_ros.demo.episodes import Watch
                from reflex_ros.demo.participant import Participant
                from reflex_ros.demo.run_episodes import run_episodes
            wait_until_ready(port, children, READY_TIMEOUT_S, show)
            show("robot and policy find each other")
            participant = stack.enter_context(Participant("demo", partial(check_alive, children)))
            watch = Watch(participant, goal.joints)
            watch.connect(arguments.seed)
            show("first chunk followed")
        return run_episodes(arguments, participant, watch, goal, out, port)


@contextlib.contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Put Ctrl-C off until the end: a compiled module that is interrupted while it is imported fails with another error."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        raise KeyboardInterrupt


def _recordings(record: Path) -> list[Path]:
    """Return every trace and bag under the folder of --record."""
    return sorted([*(record / TRACES).glob("*.jsonl.gz"), *(record / BAGS).glob("*/")])


def _explain(failures: Sequence[str], children: Sequence[Child]) -> None:
    sys.stdout.flush()
    for child in children:
        print(f"\n--- end of {short(child.log)}\n{tail(child.log)}", file=sys.stderr)
    print("\nThe demo failed:", *failures, sep="\n  ", file=sys.stderr)


def _terminate(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
