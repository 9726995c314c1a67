# SPDX-License-Identifier: Apache-2.0
"""The node's states: what each shows, what each refuses, and that none of it kills or leaks."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from domains import free_domain
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from reflex_ros.msg import ActionChunk
from robots import FIXTURES
from ros_world import Spinner, World, wait_for, world
from servers import ExportDir

from reflex_core.errors import SettingError
from reflex_ros.node.node import ReflexNode

T = Transition


def settings(export: Path, **more: Any) -> dict[str, Any]:
    return {"export_dir": str(export), "embodiment": "franka"} | more


def test_the_node_walks_by_request_and_shows_its_state(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("calm"))) as scene:
        seen = [(scene.state, scene.server.engine.state)]
        for transition in (
            T.TRANSITION_CONFIGURE,
            T.TRANSITION_ACTIVATE,
            T.TRANSITION_DEACTIVATE,
            T.TRANSITION_CLEANUP,
        ):
            assert scene.robot.transition(transition)
            seen.append((scene.state, scene.server.engine.state))
        assert seen == [
            ("unconfigured", "initializing"),
            ("inactive", "inactive"),
            ("active", "ready"),
            ("inactive", "inactive"),
            ("unconfigured", "initializing"),
        ]


def test_transitions_that_do_not_fit_are_refused_and_survived(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("calm"))) as scene:
        for transition in (T.TRANSITION_ACTIVATE, T.TRANSITION_DEACTIVATE, T.TRANSITION_CLEANUP, 99):
            assert not scene.robot.transition(transition)
        scene.activate()
        for transition in (T.TRANSITION_CONFIGURE, T.TRANSITION_ACTIVATE, T.TRANSITION_CLEANUP):
            assert not scene.robot.transition(transition)
        assert scene.state == "active"
        assert scene.robot.next_chunk().source == ActionChunk.SOURCE_POLICY


def test_a_request_during_a_transition_is_refused(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("heavy"))) as scene:
        start = scene.spinner.executor.create_task(scene.server.start)
        wait_for(lambda: scene.server.engine.state == "loading" or start.done(), "loading")
        assert not scene.robot.transition(T.TRANSITION_CONFIGURE)
        wait_for(start.done, "the first request ends")
        assert start.result()


def test_diagnostics_and_status_go_on_while_a_model_loads(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("heavy"), status_rate_hz=100.0)) as scene:
        starting = scene.spinner.executor.create_task(scene.server.start)
        wait_for(
            lambda: any(status.state == "loading" for status in scene.robot.statuses), "status says loading"
        )
        wait_for(lambda: any(status.state == "ready" for status in scene.robot.statuses), "status says ready")
        wait_for(starting.done, "it is active")


def test_deactivate_leaves_the_robot_holding_and_silent(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("calm"))) as scene:
        scene.activate()
        scene.robot.next_chunk()
        assert scene.robot.transition(T.TRANSITION_DEACTIVATE)
        wait_for(lambda: scene.robot.chunks[-1].source == ActionChunk.SOURCE_HOLD, "a hold")
        count = len(scene.robot.chunks)
        assert scene.robot.transition(T.TRANSITION_ACTIVATE)
        scene.robot.next_chunk()
        assert all(chunk.source == ActionChunk.SOURCE_POLICY for chunk in scene.robot.chunks[count:])


def test_twenty_configure_and_cleanup_cycles_do_not_grow(export_dir: ExportDir) -> None:
    def resident_mb() -> float:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 1e6

    with world(**settings(export_dir("mono_pi0_7_224"))) as scene:
        for _ in range(5):
            assert scene.robot.transition(T.TRANSITION_CONFIGURE)
            assert scene.robot.transition(T.TRANSITION_CLEANUP)
        before = resident_mb()
        for _ in range(20):
            assert scene.robot.transition(T.TRANSITION_CONFIGURE)
            assert scene.robot.transition(T.TRANSITION_CLEANUP)
        assert resident_mb() - before < 10.0


Damage = Callable[[Path], None]


def _text(name: str, old: str, new: str) -> Damage:
    def damage(export: Path) -> None:
        path = export / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return damage


def _truncate(name: str) -> Damage:
    def damage(export: Path) -> None:
        data = (export / name).read_bytes()
        (export / name).write_bytes(data[: len(data) // 2])

    return damage


DAMAGES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "missing model": (lambda e: (e / "model.onnx").unlink(), ("model.onnx", "missing")),
    "missing configuration": (
        lambda e: (e / "reflex_config.json").unlink(),
        ("reflex_config.json", "missing"),
    ),
    "missing tokenizer": (lambda e: shutil.rmtree(e / "tokenizer"), ("tokenizer",)),
    "truncated onnx": (_truncate("model.onnx"), ("model.onnx", "onnxruntime cannot load")),
    "nan statistics": (_text("reflex_config.json", "-1.5", "NaN"), ("normalization", "NaN")),
    "wrong shape": (
        _text("reflex_config.json", '"chunk_size": 50', '"chunk_size": 49'),
        ("chunk_size", "50", "49"),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_export_is_refused_in_one_sentence(name: str, export_copy: ExportDir) -> None:
    damage, words = DAMAGES[name]
    export = export_copy("calm")
    damage(export)
    with world(**settings(export)) as scene:
        scene.robot.begin_transition(T.TRANSITION_CONFIGURE)
        sentence = wait_for(lambda: scene.server.node.refusal, "the refusal")
        wait_for(lambda: scene.state == "unconfigured", "back to unconfigured")
        assert scene.server.engine.state == "failed"
        assert all(word in sentence for word in words), sentence
        assert "\n" not in sentence
        wait_for(lambda: scene.robot.diagnostics.get("policy"), "diagnostics")
        wait_for(
            lambda: scene.robot.diagnostics["policy"].message == sentence, "the sentence in /diagnostics"
        )


def test_a_model_that_does_not_fit_the_embodiment_is_refused(export_dir: ExportDir, tmp_path: Path) -> None:
    text = (FIXTURES / "franka.json").read_text()
    six = tmp_path / "six.json"
    document = json.loads(text)
    for holder, key in [
        (document, "joint_names"), (document, "velocity_max"), (document, "acceleration_max"),
        (document["action_space"], "ranges"),
        *[(document["normalization"], key) for key in document["normalization"]],
    ]:  # fmt: skip
        holder[key] = holder[key][:6]
    document["action_space"]["dim"] = 6
    del document["gripper"]
    six.write_text(json.dumps(document))
    with world(export_dir=str(export_dir("calm")), custom_embodiment_config=str(six)) as scene:
        assert not scene.robot.transition(T.TRANSITION_CONFIGURE)
        assert "7 dimensions" in scene.server.node.refusal
        assert "6" in scene.server.node.refusal


def test_a_refused_node_can_be_configured_once_the_fault_is_mended(export_copy: ExportDir) -> None:
    export = export_copy("calm")
    text = (export / "reflex_config.json").read_text()
    (export / "reflex_config.json").write_text("{")
    with world(**settings(export)) as scene:
        assert not scene.robot.transition(T.TRANSITION_CONFIGURE)
        (export / "reflex_config.json").write_text(text)
        assert scene.robot.transition(T.TRANSITION_CONFIGURE)


def test_a_robot_without_an_embodiment_is_refused(export_dir: ExportDir) -> None:
    """Where there is no HTTP either; with it, requests are answered (test_undrivable.py)."""
    with world(export_dir=str(export_dir("calm"))) as scene:
        assert not scene.robot.transition(T.TRANSITION_CONFIGURE)
        assert "--embodiment" in scene.server.node.refusal
        assert "nothing would be served" in scene.server.node.refusal


def test_a_failing_warm_up_leaves_the_node_inactive(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("always_nan"))) as scene:
        assert scene.robot.transition(T.TRANSITION_CONFIGURE)
        assert not scene.robot.transition(T.TRANSITION_ACTIVATE)
        assert scene.state == "inactive"
        assert "NaN" in scene.server.node.refusal
        assert not scene.robot.chunks


def _set(scene: World, name: str, value: Any) -> Any:
    return scene.server.node.set_parameters([Parameter(name, value=value)])[0]


def test_parameters_are_checked_and_say_when_they_take_effect(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("calm"))) as scene:
        assert not _set(scene, "max_age_ms", -5.0).successful
        assert not _set(scene, "port", 9000).successful, "read only"
        scene.activate()
        answer = _set(scene, "device", "auto")
        assert not answer.successful
        assert "takes effect at configure" in answer.reason
        assert _set(scene, "max_age_ms", 123.0).successful
        assert scene.server.settings.max_age_ms == 123.0


def test_settings_are_set_over_ros_as_people_write_them(export_dir: ExportDir) -> None:
    """`ros2 param set` sends 250 as an integer, [] as no array of names, and whatever else people write."""
    joints = [f"panda_joint{number}" for number in range(1, 8)]
    with world(**settings(export_dir("calm"))) as scene:
        node, robot = scene.server.node, scene.robot
        assert node.get_parameter("joint_names").type_ == Parameter.Type.STRING_ARRAY
        for name, value in (
            ("max_age_ms", 250), ("split", 50.0), ("slo_mode", 503), ("joint_names", joints), ("joint_names", []), ("providers", []),
        ):  # fmt: skip
            assert robot.set(name, value).successful, name
        found = {
            name: node.get_parameter(name).value
            for name in ("max_age_ms", "split", "slo_mode", "joint_names")
        }
        assert found == {"max_age_ms": 250.0, "split": 50, "slo_mode": "503", "joint_names": []}
        assert [type(value) for value in found.values()] == [float, int, str, list]
        for name, value, says in (
            ("deadlin_ms", 33.0, "no such setting 'deadlin_ms'; did you mean deadline_ms?"),
            ("deadline_ms", "33", "setting 'deadline_ms' takes a number, got '33'"),
            ("deadline_ms", -5, "setting 'deadline_ms' takes 0 to 60000, got -5.0"),
            ("http", 1, "setting 'http' takes true or false, got 1"),
            ("joint_names", [1, 2], "setting 'joint_names' takes a list of names"),
            ("joint_names", "a", "setting 'joint_names' takes a list of names"),
            ("robot_id", None, "cannot be deleted"),
        ):  # fmt: skip
            answer = robot.set(name, value)
            assert (answer.successful, says in answer.reason) == (False, True), answer.reason
        assert robot.set("use_sim_time", False).successful
        scene.activate()
        assert robot.next_chunk().source == ActionChunk.SOURCE_POLICY


def test_names_and_whole_numbers_are_declared_on_a_real_node(export_dir: ExportDir) -> None:
    names = [f"panda_joint{number}" for number in range(1, 8)]
    given = [
        Parameter("joint_names", value=names),
        Parameter("max_age_ms", value=300),
        Parameter("slo_mode", value=503),
    ]
    with world(given, **settings(export_dir("calm"))) as scene:
        assert scene.server.settings.joint_names == tuple(names)
        assert scene.server.settings.max_age_ms == 300.0
        scene.activate()
        assert list(scene.robot.next_chunk().names) == names


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("embodyment", "franka", "did you mean embodiment"), ("deadline_ms", "33", "takes a number, got '33'")],
)
def test_a_node_is_not_made_of_parameters_that_are_none(name: str, value: Any, says: str) -> None:
    spinner = Spinner(free_domain())
    try:
        with pytest.raises(SettingError, match=says):
            ReflexNode(
                {"http": False}, context=spinner.context, parameter_overrides=[Parameter(name, value=value)]
            )
    finally:
        spinner.executor.shutdown()
        rclpy.try_shutdown(context=spinner.context)


def test_parameters_are_described_for_rqt(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("calm"))) as scene:
        described = scene.server.node.describe_parameter("max_age_ms")
        assert described.description
        assert described.floating_point_range[0].to_value == 60_000.0
        assert "compressed" in scene.server.node.describe_parameter("image_transport").additional_constraints


def test_quality_of_service_can_be_overridden(export_dir: ExportDir) -> None:
    override = Parameter("qos_overrides./camera/image_raw.subscription.reliability", value="reliable")
    with world([override], **settings(export_dir("calm"))) as scene:
        scene.activate()
        [info] = scene.server.node.get_subscriptions_info_by_topic("/camera/image_raw")
        assert info.qos_profile.reliability.name == "RELIABLE"


def test_subscribers_may_come_and_go(export_dir: ExportDir) -> None:
    with world(**settings(export_dir("calm"), execution_horizon=1)) as scene:
        scene.activate()
        node = scene.robot.node
        for _ in range(5):
            got: list[ActionChunk] = []
            subscription = node.create_subscription(
                ActionChunk, "reflex/action_chunk", lambda message, box=got: box.append(message), 10
            )
            chunk = wait_for(lambda box=got: box[0] if box else None, "a chunk for the newcomer")
            rows = np.array(chunk.data).reshape(chunk.horizon, chunk.action_dim)
            assert np.isfinite(rows).all()
            node.destroy_subscription(subscription)
        scene.robot.next_chunk()
