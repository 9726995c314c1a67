# SPDX-License-Identifier: Apache-2.0
"""What can answer requests but must not command a robot: it answers, the node stays inactive and says why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from http_client import Client
from lifecycle_msgs.msg import Transition
from repository import ROOT
from robots import FIXTURES
from ros_world import World, wait_for, world
from servers import ExportDir

from reflex_core.engine.preflight import require_requests_suffice, why_undrivable
from reflex_core.engine.which_exports import chosen
from reflex_core.errors import ConfigurationError
from reflex_core.files.share import embedded_policy, export_path
from reflex_core.settings.table import settings_from
from reflex_ros import launch_args
from reflex_ros.cli.calibrate_adaptive import parser as calibrate_parser
from reflex_ros.cli.main import main
from reflex_ros.cli.replay_options import parser as replay_parser

WARN = b"\x01"
OMITTED = "no export was named"


def loaded(joints: tuple[str, ...] = ("a",), *, robot: bool = True, holds: bool = True) -> Any:
    """What `why_undrivable` looks at."""
    binding = SimpleNamespace(
        state_names=("x",), action_names=("a",), hold_columns=[0] if holds else None, state_dim=1
    )
    return SimpleNamespace(
        policy=SimpleNamespace(binding=binding),
        embodiment=SimpleNamespace(joint_names=joints) if robot else None,
    )


@pytest.mark.parametrize(
    ("what", "settings", "says"),
    [
        (loaded(), {"export_dir": "x"}, ""),
        (loaded(), {"export_dir": "demo"}, ""),
        (loaded(), {"policy_a": "x", "policy_b": "y", "rtc": False}, ""),
        (loaded(), {}, OMITTED),
        (loaded(), {"embodiment": "franka"}, OMITTED),
        (loaded(), {"shadow_policy": "x"}, OMITTED),
        (loaded(robot=False), {"export_dir": "x"}, "needs an embodiment"),
        (loaded(joints=()), {"export_dir": "x"}, "needs an embodiment with joint_names"),
        (loaded(joints=()), {"export_dir": "x", "state_source": "odometry"}, ""),
        (loaded(holds=False), {"export_dir": "x"}, "could not be commanded to hold"),
        (loaded(holds=False), {"export_dir": "x", "state_source": "imu"}, ""),
    ],
)
def test_a_robot_is_commanded_by_what_was_named_and_can_hold(
    what: Any, settings: dict[str, Any], says: str
) -> None:
    why = why_undrivable(what, settings_from(settings))
    assert says in why
    assert bool(why) == bool(says)
    assert "\n" not in why


def test_settings_that_are_for_a_robot_alone_are_refused_with_the_reason() -> None:
    require_requests_suffice(settings_from({}), "no robot")
    wishes: list[dict[str, Any]] = [{"http": False}, {"record_bag": "bags"}, {"joint_names": ["a"]}]
    for wish in wishes:
        with pytest.raises(ConfigurationError, match=f"^no robot .*{next(iter(wish))}"):
            require_requests_suffice(settings_from(wish), "no robot")


def test_demo_is_the_embedded_policy_and_a_directory_of_that_name_is_a_path() -> None:
    assert export_path("demo") == export_path("") == embedded_policy()
    assert {name: export_path(name) for name in ("./demo", "demo/", "demos", "/x/demo")} == {
        "./demo": Path("demo"), "demo/": Path("demo"), "demos": Path("demos"), "/x/demo": Path("/x/demo"),
    }  # fmt: skip


def test_demo_is_known_by_every_command_that_takes_an_export() -> None:
    replayed = replay_parser().parse_args(["trace", "--model", "demo", "--model-b", "./demo"])
    assert (replayed.model, replayed.model_b) == (embedded_policy(), Path("demo"))
    calibrated = [calibrate_parser().parse_args(words).export_dir for words in ([], ["demo"], ["./demo"])]
    assert calibrated == [embedded_policy(), embedded_policy(), Path("demo")]
    two = settings_from(
        {"policy_a": "demo", "policy_b": "x", "export_dir": str(embedded_policy()), "rtc": False}
    )
    assert chosen(two).paths == (embedded_policy(), Path("x"))


def test_the_name_is_said_where_people_look_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert re.search(r"\bdemo\b", capsys.readouterr().out)
    assert "demo: the embedded" in dict(launch_args.arguments())["export_dir"]
    root = ROOT
    for page in ("launch/serve.launch.py", "README.md"):
        assert "export_dir:=demo" in (root / page).read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["no embodiment", "embodiment without names", "no export named"])
def idle(
    request: pytest.FixtureRequest, export_dir: ExportDir, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, str]]:
    """A started node that serves requests alone, and what its reason says."""
    settings: dict[str, Any] = {"export_dir": str(export_dir("calm"))}
    says = "a robot needs an embodiment"
    if request.param == "no export named":
        settings, says = {"export_dir": "", "embodiment": "franka"}, OMITTED
    elif request.param == "embodiment without names":
        document = json.loads((FIXTURES / "franka.json").read_text())
        del document["joint_names"]
        file = tmp_path_factory.mktemp("robot") / "nameless.json"
        file.write_text(json.dumps(document | {"embodiment": "custom"}))
        settings["custom_embodiment_config"] = str(file)
    with world(http=True, port=0, **settings) as scene:
        scene.robot.say("reach the red cube")
        assert scene.spinner.do(scene.server.start), "the process goes on"
        yield scene, says


def client(scene: World) -> Client:
    assert scene.server.sidecar is not None
    return Client(scene.server.sidecar.port)


def test_requests_are_answered_while_the_node_is_inactive(idle: tuple[World, str]) -> None:
    scene, says = idle
    assert scene.state == "inactive"
    answer = client(scene).act()
    assert answer.status == 200, answer.body
    assert len(answer.json["actions"]) == 50
    assert client(scene).get("/health").status == 200
    assert says in client(scene).get("/config").json["effective"]["undrivable"]


def test_the_reason_is_in_status_and_diagnostics(idle: tuple[World, str]) -> None:
    scene, says = idle
    # the problem is known while it still warms up
    wait_for(
        lambda: says in scene.robot.status.problem and scene.robot.status.state == "inactive",
        "the status says why",
    )
    assert says in scene.robot.diagnosed("commands", WARN).message


def test_activation_is_refused_with_the_reason_and_nothing_is_commanded(idle: tuple[World, str]) -> None:
    scene, says = idle
    assert not scene.robot.transition(Transition.TRANSITION_ACTIVATE)
    assert says in scene.server.node.refusal
    assert scene.state == "inactive"
    assert client(scene).act().status == 200, "requests are still answered"
    assert scene.robot.trajectories == []
    assert scene.robot.chunks == []
    assert scene.server.node.count_publishers("/reflex/joint_trajectory") == 0


def test_it_can_be_cleaned_up_and_given_an_embodiment(export_dir: ExportDir) -> None:
    with world(http=True, port=0, export_dir=str(export_dir("calm"))) as scene:
        assert scene.spinner.do(scene.server.start)
        assert scene.robot.transition(Transition.TRANSITION_CLEANUP)
        assert scene.server.engine.undrivable == ""
        assert scene.robot.set("embodiment", "franka").successful
        scene.activate()
        scene.robot.next_chunk()
        assert client(scene).get("/config").json["effective"]["undrivable"] == ""


def test_what_asks_for_a_robot_is_still_refused(export_dir: ExportDir, tmp_path: Path) -> None:
    with world(http=True, port=0, export_dir=str(export_dir("calm")), record_bag=str(tmp_path)) as scene:
        assert not scene.spinner.do(scene.server.start)
        assert "'record_bag' is for a robot" in scene.server.node.refusal
        assert (scene.state, scene.server.engine.state) == ("unconfigured", "initializing")
