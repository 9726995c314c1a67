# SPDX-License-Identifier: Apache-2.0
"""The demo without ROS: the simulated arm in this process asks `reflex serve` over HTTP for chunks and executes them.

Two controllers as over ROS: rows of the arm go to its joints, the last column to the gripper. Requests wait in a thread, so
the arm moves on meanwhile, and a chunk begins at the row that is due when it arrives.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from reflex_core.files.share import embedded_policy
from reflex_ros.demo import film, report, strip
from reflex_ros.demo.episode import Episode, Moment
from reflex_ros.demo.goals import GOALS, PICK_UP, Goal
from reflex_ros.demo.opengl import RenderingUnavailable
from reflex_ros.demo.pick_task import PickTask
from reflex_ros.demo.processes import (
    Child,
    DemoError,
    check_alive,
    free_port,
    start,
    stop,
    tail,
    wait_until_ready,
)
from reflex_ros.demo.reach_task import ReachTask
from reflex_ros.demo.startup_lines import startup_lines

ROW_S, REPLAN_ROWS = 0.05, 10
UPDATES = 5  # of the controllers in a row
PICTURE_ROWS, PICTURE_SIZE = 2, (640, 480)
STILL_RAD_S, STILL_ROWS = 0.1, 20
READY_TIMEOUT_S, ANSWER_TIMEOUT_S = 90.0, 20.0
JPEG_QUALITY = 90


@dataclass
class Tally:
    """What the answers of an episode report."""

    latency_ms: list[float] = field(default_factory=list)
    denoise_steps: list[float] = field(default_factory=list)
    clamped: int = 0


def post(port: int, path: str, document: Mapping[str, object]) -> Any:
    """Return the answer's JSON. Raises DemoError with the server's sentence where it is no success."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        raise DemoError(f"The policy server does not answer POST {path}: {error}.") from error
    finally:
        connection.close()
    if response.status >= http.client.BAD_REQUEST:
        raise DemoError(
            f"POST {path} was answered with {response.status}: {body[:300].decode(errors='replace')}"
        )
    return json.loads(body)


def run_http_episode(
    task: PickTask | ReachTask,
    goal: Goal,
    port: int,
    seed: int,
    picture: Callable[[Moment], None],
    tally: Tally,
) -> Episode:
    """Drive one episode in real time: until success (at rest, where the goal needs that) or for its limit."""
    instruction = task.reset(seed)
    episode_id = f"scene-{seed}-{time.time_ns()}"
    arm_columns = len(task.arm.joint_positions_rad)
    chunk, born = np.empty((0, len(goal.joints))), 0
    pending: tuple[int, Future[NDArray[np.float64]]] | None = None
    begun_s, row, lasted, score = time.monotonic(), 0, 0, task.score()
    with ThreadPoolExecutor(1) as requests:
        for row in range(round(goal.limit_s / ROW_S)):
            if row % PICTURE_ROWS == 0:
                picture(_moment(row, score))
            if row % REPLAN_ROWS == 0 and pending is None:
                observation = _observation(task, instruction, episode_id)
                pending = row, requests.submit(_chunk, port, observation, tally)
            if pending is not None and pending[1].done():
                born, chunk = pending[0], pending[1].result()
                pending = None
            target = (
                task.arm.joint_positions_rad if len(chunk) == 0 else chunk[min(row - born, len(chunk) - 1)]
            )
            if isinstance(task, PickTask) and len(chunk):
                task.gripper.set(target[arm_columns:])
            _follow(task, np.asarray(target[:arm_columns]), begun_s + (row + 1) * ROW_S)
            score = task.score()
            at_rest = float(np.abs(task.arm.joint_velocities_rad_s).max()) < STILL_RAD_S
            lasted = lasted + 1 if score["succeeded"] and (at_rest or not goal.settles) else 0
            if lasted > (STILL_ROWS if goal.settles else 0):
                break
    moment = _moment(row + 1, score)
    picture(moment)
    note = str(score["note"])
    post(port, f"/episodes/{episode_id}/outcome", {"success": moment.succeeded, "note": note})
    return Episode(
        episode_id=episode_id,
        seed=seed,
        instruction=instruction,
        target=str(score["target"]),
        succeeded=moment.succeeded,
        measure_m=moment.measure_m,
        duration_s=moment.time_s,
        chunks=len(tally.latency_ms),
        holds=0,
        denoise_steps=statistics.median(tally.denoise_steps) if tally.denoise_steps else None,
        latency_ms=statistics.median(tally.latency_ms) if tally.latency_ms else None,
        observation_age_ms=None,
        note=note,
    )


def _moment(row: int, score: Mapping[str, Any]) -> Moment:
    return Moment(row * ROW_S, float(score["measure_m"]), bool(score["succeeded"]))


def _observation(task: PickTask | ReachTask, instruction: str, episode_id: str) -> dict[str, object]:
    encoded = simplejpeg.encode_jpeg(task.arm.image(), quality=JPEG_QUALITY, colorspace="RGB")
    return {
        "image": base64.b64encode(encoded).decode("ascii"),
        "state": task.state[0].tolist(),
        "instruction": instruction,
        "episode_id": episode_id,
    }


def _chunk(port: int, observation: Mapping[str, object], tally: Tally) -> NDArray[np.float64]:
    """Return the rows of an answer; the first is for one row after the observation."""
    begun_s = time.monotonic()
    answer = post(port, "/act", observation)
    tally.latency_ms.append(1e3 * (time.monotonic() - begun_s))
    tally.clamped += bool(answer.get("guard_clamped"))
    if isinstance(answer.get("denoising_steps"), int):
        tally.denoise_steps.append(float(answer["denoising_steps"]))
    return np.array(answer["actions"], dtype=np.float64)


def _follow(task: PickTask | ReachTask, target_rad: NDArray[np.float64], due_s: float) -> None:
    """Move the command to the target in UPDATES steps, then wait until the row is over by the clock."""
    start_rad = task.arm.commanded_rad
    for update in range(1, UPDATES + 1):
        task.step(start_rad + (target_rad - start_rad) * update / UPDATES, ROW_S / UPDATES)
    if (left_s := due_s - time.monotonic()) > 0.0:
        time.sleep(left_s)


def serve_command(goal: Goal, port: int, record: Path | None) -> list[str]:
    """Return the command of the policy process."""
    command = [
        sys.executable,
        "-m",
        "reflex_ros.cli.main",
        "serve",
        goal.export,
        "--no-ros",
        "--port",
        str(port),
    ]
    command += ["--robot-id", "demo", "--intra-op-threads", "1"]
    return (
        command
        if record is None
        else [*command, "--record", str(record / "trace"), "--record-images", "full"]
    )


def run_over_http(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit status: 0 when at least 95 % of the episodes succeeded."""
    goal, out = GOALS[arguments.policy], arguments.out.resolve()
    frames = out / "frames"
    shutil.rmtree(frames, ignore_errors=True)
    frames.mkdir(parents=True)
    children: list[Child] = []
    try:
        failures = _run(arguments, goal, out, frames, children)
    except (DemoError, RenderingUnavailable) as error:
        failures = [str(error)]
    except KeyboardInterrupt:
        return 130
    finally:
        stop(children)
    for child in children if failures else []:
        print(f"\n--- end of {child.log}\n{tail(child.log)}", file=sys.stderr)
    if failures:
        print("\nThe demo failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def _run(
    arguments: argparse.Namespace, goal: Goal, out: Path, frames: Path, children: list[Child]
) -> list[str]:
    port = free_port(arguments.port)
    record = arguments.record.resolve() if arguments.record else None
    children.append(start("policy", serve_command(goal, port, record), out / "policy.log", os.environ))
    print(f"policy  {embedded_policy(goal.export).name}, pid {children[0].process.pid}, {children[0].log}")
    print(f"page    http://127.0.0.1:{port}", flush=True)
    task = PickTask() if goal is PICK_UP else ReachTask()
    with contextlib.closing(task.arm):
        with startup_lines("simulator and policy start") as show:
            task.arm.image()  # opens the renderer: seconds that belong to no episode
            wait_until_ready(port, children, READY_TIMEOUT_S, show)
        print("", *report.headings(goal), sep="\n", flush=True)
        takes, clamped = [], 0
        for number in range(arguments.episodes):
            check_alive(children)
            pictures: list[strip.Picture] = []

            def picture(
                moment: Moment, number: int = number, pictures: list[strip.Picture] = pictures
            ) -> None:
                if number and arguments.film is None:
                    return
                path = frames / f"{number:02}-{len(pictures):03}.png"
                cv2.imwrite(str(path), cv2.cvtColor(task.arm.image("view", *PICTURE_SIZE), cv2.COLOR_RGB2BGR))
                pictures.append(strip.Picture(moment, path))

            tally = Tally()
            episode = run_http_episode(task, goal, port, arguments.seed + number, picture, tally)
            clamped += tally.clamped
            takes.append(film.Take(episode, pictures))
            print(report.row(number + 1, episode), flush=True)
        failures = _finish(arguments, goal, out, takes, clamped)
        if arguments.keep_running:
            print(f"\nThe policy keeps running on http://127.0.0.1:{port}; Ctrl-C ends it.", flush=True)
            while True:
                check_alive(children)
                time.sleep(1.0)
    return failures


def _finish(
    arguments: argparse.Namespace, goal: Goal, out: Path, takes: Sequence[film.Take], clamped: int
) -> list[str]:
    episodes = [take.episode for take in takes]
    summary = report.Summary(
        episodes=len(episodes),
        succeeded=sum(episode.succeeded for episode in episodes),
        measure_cm=100.0 * (report.median_of([episode.measure_m for episode in episodes]) or 0.0),
        latency_ms=report.median_of([episode.latency_ms for episode in episodes]),
        observation_age_ms=None,
        chunks=sum(episode.chunks for episode in episodes),
        holds=0,
        errors=0,
        guard_clamped=clamped,
        observations_refused=0,
        malformed_chunks=0,
    )
    failures = report.shortcomings(summary, episodes, goal)
    print("", *report.summary_lines(summary, goal), sep="\n")
    result = out / "demo.json"
    result.write_text(
        json.dumps(report.as_json(summary, episodes, failures), indent=2) + "\n", encoding="utf-8"
    )
    strip.write(out / "episode.png", takes[0].episode, takes[0].pictures, goal)
    print(f"wrote {out / 'episode.png'} and {result}")
    if arguments.film is not None:
        film.write(arguments.film, takes, goal)
        print(f"wrote {arguments.film}")
    return failures
