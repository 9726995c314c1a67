# SPDX-License-Identifier: Apache-2.0
"""The demo's episodes over ROS topics, once robot and policy run: table, pictures, results."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sensor_msgs.msg import CompressedImage, JointState

from reflex_ros.console.program import print_runnable
from reflex_ros.demo import film, report, strip
from reflex_ros.demo.episode import Episode, Moment
from reflex_ros.demo.episodes import Watch, run_episode
from reflex_ros.demo.goals import Goal
from reflex_ros.demo.participant import Participant
from reflex_ros.demo.report import short
from reflex_ros.demo.robot_messages import SENSOR_QOS
from reflex_ros.demo.strip import Picture
from reflex_ros.graph.dds_profile import PROFILE_VARIABLES

PICTURE_PERIOD_S, FILM_PERIOD_S = 0.25, 0.1


def run_episodes(
    arguments: argparse.Namespace,
    participant: Participant,
    watch: Watch,
    goal: Goal,
    out: Path,
    port: int,
) -> list[str]:
    """Run the episodes, print and write what came of them. Return what is wrong, a sentence each."""
    takes = _episodes(arguments, participant, watch, goal)
    episodes = [take.episode for take in takes]
    summary = _summary(episodes, watch, participant.trigger("robot/score"))
    failures = report.shortcomings(summary, episodes, goal)
    print("", *report.summary_lines(summary, goal), sep="\n")
    _write_results(out, summary, takes, failures, goal)
    if arguments.film is not None:
        film.write(arguments.film, takes, goal)
        print(f"wrote {short(arguments.film.resolve())}")
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
    print(f"wrote {short(out / 'episode.png')} and {short(result)}")


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
  curl -H 'Content-Type: application/json' --data @{short(request)} http://127.0.0.1:{port}/act
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
