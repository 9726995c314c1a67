# SPDX-License-Identifier: Apache-2.0
"""What `make demo` runs: the whole of it with few episodes, and what it does when a part of it dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from children import WITHOUT_SHARED_MEMORY
from demos import PATIENCE_S, Demo, wait_for
from reflex_ros.msg import ActionChunk

from reflex_core.errors import SettingError
from reflex_ros.demo import film, processes, report, strip
from reflex_ros.demo.demo_options import arguments_from
from reflex_ros.demo.episode import Episode, Moment
from reflex_ros.demo.episodes import chunk_fault
from reflex_ros.demo.goals import GOALS, PICK_UP, Goal
from reflex_ros.demo.launch_wiring import ARGUMENTS, plan
from reflex_ros.demo.pick_scene import LIFTED_M, PICK_JOINT_NAMES, make_pick_scene
from reflex_ros.demo.run import policy_command, robot_command
from reflex_ros.demo.scene import make_scene

DEFAULTS = {name: default for name, default, _ in ARGUMENTS}


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*arguments: str, **environment: str) -> Demo:
        started.append(Demo(tmp_path / "out", *arguments, **environment))
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()
        each.end()


def episode(**changes: object) -> Episode:
    values: dict[str, object] = {
        "episode_id": "scene-1-1",
        "seed": 1,
        "instruction": "pick up the red cube",
        "target": "red",
        "succeeded": True,
        "measure_m": 0.18,
        "duration_s": 2.0,
        "chunks": 2,
        "holds": 0,
        "denoise_steps": 10.0,
        "latency_ms": 12.34,
        "observation_age_ms": 20.0,
    }
    return Episode(**{**values, **changes})  # type: ignore[arg-type]


def summary(**changes: object) -> report.Summary:
    values: dict[str, object] = {
        "episodes": 20,
        "succeeded": 20,
        "measure_cm": 18.0,
        "latency_ms": 12.0,
        "observation_age_ms": 20.0,
        "chunks": 40,
        "holds": 0,
        "errors": 0,
        "guard_clamped": 0,
        "observations_refused": 3,
        "malformed_chunks": 0,
    }
    return report.Summary(**{**values, **changes})  # type: ignore[arg-type]


def chunk(**changes: object) -> ActionChunk:
    message = ActionChunk(names=PICK_JOINT_NAMES, dt_s=0.05, horizon=2, action_dim=8, data=[0.1] * 16)
    message.header.stamp.sec = 5
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def post(port: int, path: str, body: bytes) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_two_episodes_end_with_a_table_a_picture_a_film_and_a_result(
    demo: Callable[..., Demo], tmp_path: Path
) -> None:
    running = demo(
        "--episodes", "2", "--port", "0", "--era", "blend", "--start-state", "desired",
        "--film", str(tmp_path / "demo.webp"),
    )  # fmt: skip
    children = [running.pid("robot"), running.pid("policy")]
    assert running.end() == 0, running.printed
    assert re.search(r"/health 503 .*\n.*/health 200 ready", running.printed)
    assert len(re.findall(r"^ +\d+  .* yes ", running.printed, re.MULTILINE)) == 2
    assert "picked up 2/2" in running.printed
    result = json.loads((running.out / "demo.json").read_text())
    assert result["passed"]
    assert [each["succeeded"] for each in result["episodes"]] == [True, True]
    assert all(each["measure_m"] > LIFTED_M for each in result["episodes"])
    assert all(each["chunks"] > 0 and each["latency_ms"] > 0 for each in result["episodes"])
    picture = cv2.imread(str(running.out / "episode.png"))
    assert picture.shape[1] > 3 * picture.shape[0]
    readable, shown = cv2.imreadanimation(str(tmp_path / "demo.webp"))
    shown_s = sum(shown.durations) / 1000
    assert readable
    assert len(shown.frames) > 10
    assert shown_s > sum(each["duration_s"] for each in result["episodes"]), "at the speed of the arm"
    assert not any(map(is_running, children))


def test_robot_and_policy_stay_up_for_curl_when_asked_to(demo: Callable[..., Demo]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        running = demo("--episodes", "1", "--policy", "reach", "--port", str(wanted), "--keep-running")
        running.wait_for("Ctrl-C ends them")
        assert running.port != wanted
        assert f"port {wanted} is in use" in running.printed
        assert processes.health(running.port) == (200, "ready")
        status, answer = post(running.port, "/act", (running.out / "act_request.json").read_bytes())
        assert status == 200
        assert np.shape(answer["actions"]) == (50, 7)
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0, running.printed
    assert not any(map(is_running, [running.pid("robot"), running.pid("policy")]))


@pytest.mark.parametrize("victim", ["robot", "policy"])
def test_a_part_that_dies_fails_the_demo_with_a_sentence(demo: Callable[..., Demo], victim: str) -> None:
    running = demo("--episodes", "20", "--port", "0", **WITHOUT_SHARED_MEMORY)
    running.wait_for("first chunk followed")
    os.kill(running.pid(victim), signal.SIGKILL)
    assert running.end() == 1
    assert f"The {victim} process ended by itself (killed by SIGKILL)." in running.printed
    assert "The simulated robot is ready." in running.printed  # the ends of the logs
    assert not any(map(is_running, [running.pid("robot"), running.pid("policy")]))


def test_children_end_with_a_runner_that_is_killed(demo: Callable[..., Demo]) -> None:
    running = demo("--episodes", "20", "--port", "0", **WITHOUT_SHARED_MEMORY)
    running.wait_for("first chunk followed")
    children = [running.pid("robot"), running.pid("policy")]
    running.process.kill()
    wait_for(lambda: not any(map(is_running, children)), "the end of robot and policy")


def test_ctrl_c_ends_everything_at_once(demo: Callable[..., Demo]) -> None:
    running = demo("--episodes", "20", "--port", "0")
    children = [running.pid("robot"), running.pid("policy")]
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 130, running.printed
    assert "Traceback" not in running.printed
    assert not any(map(is_running, children))


def test_a_process_that_ignores_sigint_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.2)
    script = (
        "import signal, time; signal.signal(2, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    child = processes.start("deaf", [sys.executable, "-c", script], tmp_path / "deaf.log", os.environ)
    wait_for(lambda: processes.tail(child.log) == "deaf", "the child")
    assert processes.stop([child]) == ["The deaf process did not stop 0 s after SIGINT."]
    assert child.process.poll() == -signal.SIGKILL


def test_what_the_user_has_set_stays_and_the_rest_is_filled_in() -> None:
    assert processes.ros_environment({"ROS_DOMAIN_ID": "17"})["ROS_DOMAIN_ID"] == "17"
    mine = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"}
    filled = processes.ros_environment(mine)
    assert mine.items() <= filled.items()
    assert 1 <= int(filled["ROS_DOMAIN_ID"]) <= 101
    assert processes.ros_environment({})["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("fastdds_shm.xml")


@pytest.mark.parametrize("number", [0, 12, 119])  # the lower ones may have ended before
def test_a_domain_in_use_is_not_taken(number: int) -> None:
    first = processes.free_domain()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", processes.discovery_port(first, number)))
        assert processes.free_domain() != first


def test_well_formed_chunks_have_no_fault() -> None:
    assert chunk_fault(chunk(), PICK_JOINT_NAMES) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": PICK_JOINT_NAMES[::-1]}, "Expected one column for each of panda_joint1"),
        ({"data": [0.1] * 13}, "Expected 2 x 8 numbers, got 13"),
        ({"data": [float("nan")] * 16}, "Expected finite actions"),
        ({"dt_s": 0.0}, "Expected dt_s > 0"),
        ({"start_index": 2}, "start_index < 2"),
    ],
)
def test_a_chunk_that_is_not_well_formed_is_recognised(changes: dict[str, object], words: str) -> None:
    assert words in chunk_fault(chunk(**changes), PICK_JOINT_NAMES)


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_the_table_keeps_its_columns_and_cuts_long_instructions(goal: Goal) -> None:
    rows = [
        report.row(1, episode()),
        report.row(12, episode(instruction="x" * 80, succeeded=False, measure_m=0.3, latency_ms=None)),
    ]
    assert len({len(line) for line in (*rows, *report.headings(goal)[:1])}) == 1
    assert " NO " in rows[1]
    assert "xx…" in rows[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"succeeded": 18}, "The cube was picked up in only 18 of 20 episodes"),
        ({"errors": 2}, "The policy node counted 2 errors."),
        ({"malformed_chunks": 1}, "1 action chunks were not well-formed."),
        ({"trajectories_not_finite": 1}, "1 trajectories held NaN or infinity"),
    ],
)
def test_the_demo_fails_when_something_is_not_right(changes: dict[str, object], words: str) -> None:
    found = report.shortcomings(summary(**changes), [episode()], PICK_UP)
    assert len(found) == 1
    assert words in found[0]


def test_one_miss_in_twenty_is_allowed_and_an_episode_without_chunks_is_not() -> None:
    assert report.shortcomings(summary(succeeded=19), [episode()], PICK_UP) == []
    assert "seeds: 7" in report.shortcomings(summary(), [episode(seed=7, chunks=0)], PICK_UP)[0]


def test_the_strip_shows_the_way_to_the_block_and_the_end() -> None:
    pictures = [strip.Picture(Moment(0.1 * i, 0.3 - 0.01 * i, i >= 10), Path(f"{i}.png")) for i in range(30)]
    chosen = [int(picture.path.stem) for picture in strip.choose(pictures)]
    assert chosen == [0, 2, 5, 8, 10, 29]
    assert strip.choose(pictures[:3]) == pictures[:3]


def test_the_strip_can_be_drawn_of_an_episode_that_failed(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.full((480, 640, 3), 90, np.uint8))
    moments = [Moment(0.0, 0.3, False), Moment(6.0, 0.2, False)]
    pictures = [strip.Picture(moment, tmp_path / "0.png") for moment in moments]
    strip.write(tmp_path / "strip.png", episode(succeeded=False, instruction="x" * 66), pictures * 3, PICK_UP)
    assert cv2.imread(str(tmp_path / "strip.png")) is not None


def test_a_film_shows_every_picture_until_the_next_one_was_taken(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.full((480, 640, 3), 90, np.uint8))
    pictures = [strip.Picture(Moment(at_s, 0.3, False), tmp_path / "0.png") for at_s in (0.0, 0.1, 0.35)]
    assert film.durations_ms(pictures) == [100, 250, film.LAST_FRAME_MS]
    assert film.durations_ms([]) == []
    frame = film.draw(episode(instruction="pick up " * 30), pictures[0], PICK_UP)
    assert (frame[:, -film.MARGIN :] == strip.BACKGROUND).all(axis=-1)[: film.TITLE_HEIGHT].all(), (
        "cut to fit"
    )


def test_a_film_of_another_format_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        arguments_from(["--film", "demo.mp4"])
    assert "ends in .webp or .gif" in capsys.readouterr().err


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_the_policy_runs_on_one_thread_and_drives_the_robot(goal: Goal) -> None:
    command = policy_command(8123, goal=goal)
    assert command[command.index("--intra-op-threads") + 1] == "1"
    assert command[command.index("serve") + 1] == goal.export, "asked for by name: it commands a robot"
    assert "reflex/joint_trajectory:=joint_trajectory" in command


@pytest.mark.parametrize("episodes", ["0", "-3"])
def test_at_least_one_episode_is_asked_for(episodes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments_from(["--episodes", episodes])
    assert "expected 1 or more" in capsys.readouterr().err


def test_the_launched_demo_asks_for_what_the_scene_asks_for() -> None:
    planned = plan({**DEFAULTS, "scene_seed": "7"})
    assert planned.robot["scene_seed"] == 7
    assert planned.policy["instruction"] == make_pick_scene(7).instruction
    assert planned.policy["intra_op_threads"] == 1
    assert planned.policy["export_dir"] == "pick"
    assert planned.robot_arguments == ("--task", "pick")
    assert ("~/joint_trajectory", "joint_trajectory") in planned.policy_remappings


def test_the_launched_demo_takes_an_instruction_and_a_port() -> None:
    planned = plan({**DEFAULTS, "instruction": "lift the red block", "port": "0"})
    assert (planned.policy["instruction"], planned.policy["port"]) == ("lift the red block", 0)
    reaching = plan({**DEFAULTS, "task": "reach", "scene_seed": "7"})
    assert (reaching.policy["instruction"], reaching.policy["export_dir"]) == (
        make_scene(7).instruction,
        "demo",
    )
    with pytest.raises(SettingError, match="'scene_seed' takes a whole number, got 'x'"):
        plan({**DEFAULTS, "scene_seed": "x"})
    with pytest.raises(SettingError, match="'task' takes one of pick, reach, got 'fly'"):
        plan({**DEFAULTS, "task": "fly"})


@pytest.mark.parametrize(
    ("given", "replacement", "desired"),
    [
        ([], "false", "false"),
        (["--era", "blend"], "true", "false"),
        (["--era", "legacy", "--start-state", "desired"], "false", "true"),
    ],
)
def test_era_and_start_state_become_the_controllers_parameters(
    given: list[str], replacement: str, desired: str
) -> None:
    options = arguments_from(given)
    command = robot_command(Path("out"), options.era, options.start_state)
    assert f"allow_trajectory_replacement:={replacement}" in command
    assert f"interpolate_from_desired_state:={desired}" in command
