# SPDX-License-Identifier: Apache-2.0
"""`make demo`: simulated robot and policy node as two processes, and seeded episodes over their topics.

    python -m reflex_ros.demo.run --episodes 20 --out demo_out

Exit status: 0 when at least 95 % of the episodes picked up their cube and nothing failed, 130 after Ctrl-C,
else 1.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sensor_msgs.msg import CompressedImage, JointState

from reflex_core.files.share import embedded_policy
from reflex_ros.console.program import print_runnable
from reflex_ros.demo import film, report, strip
from reflex_ros.demo.controllers.options import BLEND, LEGACY
from reflex_ros.demo.demo_options import START_STATES, arguments_from
from reflex_ros.demo.episode import Episode, Moment
from reflex_ros.demo.episodes import Watch, run_episode
from reflex_ros.demo.goals import GOALS, PICK_UP, Goal
from reflex_ros.demo.http_run import run_over_http
from reflex_ros.demo.participant import Participant
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
from reflex_ros.demo.robot_messages import SENSOR_QOS
from reflex_ros.demo.strip import Picture
from reflex_ros.graph.dds_profile import PROFILE_VARIABLES

READY_TIMEOUT_S = 90.0
PICTURE_PERIOD_S, FILM_PERIOD_S = 0.25, 0.1
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


def run_over_ros(arguments: argparse.Namespace) -> int:
    """Run the demo with arguments of `arguments_from`. Return the exit status."""
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / FRAMES, ignore_errors=True)
    signal.signal(signal.SIGTERM, _terminate)
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
        print("recorded", *map(_short, _recordings(arguments.record.resolve())), sep="\n  ")
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
    print(f"robot   simulated Panda, pid {robot.process.pid}, {_short(robot.log)}")
    print(f"policy  {embedded_policy(goal.export).name}, pid {policy.process.pid}, {_short(policy.log)}")
    print(f"page    http://127.0.0.1:{port}/")
    print(f"topics  ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}, this machine only")
    started_s = time.monotonic()

    def show_state(state: str) -> None:
        print(f"{time.monotonic() - started_s:5.1f} s {state}", flush=True)

    wait_until_ready(port, children, READY_TIMEOUT_S, show_state)
    with Participant("demo", partial(check_alive, children)) as participant:
        watch = Watch(participant, goal.joints)
        watch.connect(arguments.seed)
        show_state("first chunk followed")
        takes = _episodes(arguments, participant, watch, goal)
        episodes = [take.episode for take in takes]
        summary = _summary(episodes, watch, participant.trigger("robot/score"))
        failures = report.shortcomings(summary, episodes, goal)
        print("", *report.summary_lines(summary, goal), sep="\n")
        _write_results(out, summary, takes, failures, goal)
        if arguments.film is not None:
            film.write(arguments.film, takes, goal)
            print(f"wrote {_short(arguments.film.resolve())}")
        if arguments.keep_running:
            _keep_running(out, port, participant, goal)
    return failures


def _episodes(
    arguments: argparse.Namespace, participant: Participant, watch: Watch, goal: Goal
) -> list[film.Take]:
    print("", *report.headings(goal), sep="\n")
    takes: list[film.Take] = []
    period_s = PICTURE_PERIOD_S if arguments.film is None else FILM_PERIOD_S
    for number in range(arguments.episodes):
        pictures: list[Picture] = []
        shown = number == 0 or arguments.film is not None
        photograph = partial(_photograph, participant, pictures, number, period_s)
        episode = run_episode(
            participant,
            watch,
            arguments.seed + number,
            photograph if shown else lambda _: None,
            settles=goal.settles,
            limit_s=goal.limit_s,
        )
        if shown:
            end = Moment(episode.duration_s, episode.measure_m, episode.succeeded)
            _photograph(participant, pictures, number, 0.0, end)
        takes.append(film.Take(episode, pictures))
        print(report.row(number + 1, episode), flush=True)
    return takes


def _photograph(
    participant: Participant, pictures: list[Picture], number: int, period_s: float, moment: Moment
) -> None:
    """Have the robot save an image of episode `number`, unless the last one is younger than `period_s`."""
    if pictures and moment.time_s - pictures[-1].moment.time_s < period_s:
        return
    participant.set_parameters("robot", {"picture_path": f"{number:02}-{len(pictures):03}.png"})
    saved = participant.trigger("robot/save_picture")
    pictures.append(Picture(moment, Path(saved["path"])))


def _summary(episodes: Sequence[Episode], watch: Watch, score: Mapping[str, Any]) -> report.Summary:
    status = watch.status
    assert status is not None  # wait_for_everybody waited for it
    return report.Summary(
        episodes=len(episodes),
        succeeded=sum(episode.succeeded for episode in episodes),
        measure_cm=100.0 * (report.median_of([episode.measure_m for episode in episodes]) or 0.0),
        latency_ms=report.median_of([episode.latency_ms for episode in episodes]),
        observation_age_ms=report.median_of([episode.observation_age_ms for episode in episodes]),
        chunks=sum(episode.chunks for episode in episodes),
        holds=status.holds_total,
        errors=status.errors_total,
        guard_clamped=status.guard_clamped_total,
        observations_refused=status.observations_refused_total,
        malformed_chunks=len(watch.faults),
        trajectories_refused=score["trajectories_refused"],
        trajectories_not_finite=score["trajectories_not_finite"],
    )


def _write_results(
    out: Path,
    summary: report.Summary,
    takes: Sequence[film.Take],
    failures: Sequence[str],
    goal: Goal,
) -> None:
    result = out / "demo.json"
    episodes = [take.episode for take in takes]
    result.write_text(
        json.dumps(report.as_json(summary, episodes, failures), indent=2) + "\n", encoding="utf-8"
    )
    strip.write(out / "episode.png", takes[0].episode, takes[0].pictures, goal)
    print(f"wrote {_short(out / 'episode.png')} and {_short(result)}")


def _keep_running(out: Path, port: int, participant: Participant, goal: Goal) -> None:
    request = out / "act_request.json"
    _write_act_request(request, participant, goal)
    domain = os.environ["ROS_DOMAIN_ID"]
    profile = next((f"{name}={os.environ[name]}" for name in PROFILE_VARIABLES if name in os.environ), "")
    print_runnable(
        f"""
Robot and policy keep running; Ctrl-C ends them. In another terminal:
  curl http://127.0.0.1:{port}/health
  curl http://127.0.0.1:{port}/metrics
  curl -H 'Content-Type: application/json' --data @{_short(request)} http://127.0.0.1:{port}/act
  export ROS_DOMAIN_ID={domain} ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
  export {profile}
  ros2 topic echo /reflex/action_chunk
  ros2 topic pub --once /instruction std_msgs/msg/String '{{data: {goal.example}}}'""",
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            participant.spin_for(1.0)


def _write_act_request(path: Path, participant: Participant, goal: Goal) -> None:
    """Write the robot's current observation as the body of a POST to /act."""
    images: list[CompressedImage] = []
    states: list[JointState] = []
    with (
        _subscribed(participant, CompressedImage, "camera/image_raw/compressed", images),
        _subscribed(participant, JointState, "joint_states", states),
    ):
        participant.spin_until(lambda: images and states, "a camera image and joint states")
    body = {
        "image": base64.b64encode(bytes(images[-1].data)).decode("ascii"),
        "state": list(states[-1].position),
        "instruction": goal.example,
        "episode_id": "curl",
    }
    path.write_text(json.dumps(body), encoding="utf-8")


@contextlib.contextmanager
def _subscribed(participant: Participant, kind: type, topic: str, received: list[object]) -> Iterator[None]:
    subscription = participant.node.create_subscription(kind, topic, received.append, SENSOR_QOS)
    try:
        yield
    finally:
        participant.node.destroy_subscription(subscription)


def _recordings(record: Path) -> list[Path]:
    """Return every trace and bag under the folder of --record."""
    return sorted([*(record / TRACES).glob("*.jsonl.gz"), *(record / BAGS).glob("*/")])


def _explain(failures: Sequence[str], children: Sequence[Child]) -> None:
    sys.stdout.flush()
    for child in children:
        print(f"\n--- end of {_short(child.log)}\n{tail(child.log)}", file=sys.stderr)
    print("\nThe demo failed:", *failures, sep="\n  ", file=sys.stderr)


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _terminate(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
