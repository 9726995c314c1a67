# SPDX-License-Identifier: Apache-2.0
"""What a chunk is made of, as the page lists it; and what an operator commands there, on the executor's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from buffer_scene import NOW_NS, Scene
from domains import own_domain
from ros_world import Spinner

from reflex_core.errors import ReflexError
from reflex_ros.node import operator_commands
from reflex_ros.node.assignment import Assignment
from reflex_ros.node.checklist import checklist
from reflex_ros.node.lifecycle import ManagedNode
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.sidecar.robot_access import Need


def needs(buffer: ObservationBuffer, publishers: int = 1, *, words: bool = True) -> list[Need]:
    return list(checklist(buffer, lambda _: publishers, NOW_NS, 300.0, needs_words=words))


def test_what_is_there_is_listed_with_its_age_and_topic() -> None:
    scene = Scene(cameras=("front", "wrist"))
    scene.buffer.topics |= {"state": "/joint_states", "front": "/front/image_raw"}
    scene.buffer.instruction = "reach"
    found = needs(scene.buffer)
    assert [(one.kind, one.name, one.ok) for one in found] == [
        ("joints", "", True), ("camera", "front", True), ("camera", "wrist", True), ("instruction", "", True),
    ]  # fmt: skip
    assert [one.topic for one in found[:2]] == ["/joint_states", "/front/image_raw"]
    assert found[0].text == "20 ms old"


def test_what_never_came_and_what_is_old_is_missing() -> None:
    scene = Scene(cameras=("front",))
    scene.sees("front", age_ms=900.0)
    assert needs(scene.buffer)[1].text == "900 ms old, at most 300 ms"
    empty = ObservationBuffer(("front",), ("a", "b"), True)
    empty.topics |= {"front": "/front/image_raw"}
    joints, camera, words = needs(empty)
    assert [joints.ok, camera.ok, words.ok] == [False, False, False]
    assert camera.text == "nothing received yet"
    assert needs(empty, publishers=0)[1].text == "no publisher on this topic"


def test_joints_that_no_message_names_are_named() -> None:
    buffer = ObservationBuffer((), ("arm", "hand"), True)
    scene = Scene(cameras=())
    buffer.put_joints(scene.reads([0.0]), ["arm"], [0.1])
    (joints,) = needs(buffer, words=False)
    assert (joints.ok, joints.text) == (False, "lack hand")


def test_what_the_policy_does_not_need_is_not_listed() -> None:
    scene = Scene(cameras=(), needs_state=False)
    assert needs(scene.buffer, words=False) == []


@pytest.fixture
def spinner() -> Iterator[Spinner]:
    found = Spinner(own_domain())
    yield found
    found.close()


@pytest.fixture
def node(spinner: Spinner) -> Iterator[ManagedNode]:
    made = ManagedNode("commanded", context=spinner.context)
    spinner.start(made)
    yield made
    made.destroy_node()


def commands(
    node: ManagedNode, buffer: ObservationBuffer, active: Callable[[], object] = lambda: None
) -> tuple[Assignment, operator_commands.Command, operator_commands.Command]:
    assignment = Assignment(node, lambda: "arm7", lambda: None, lambda: buffer, lambda: NOW_NS)
    return assignment, *operator_commands.operator_commands(node, assignment, active)


def test_commands_are_done_on_the_executors_thread(node: ManagedNode) -> None:
    buffer, threads = Scene().buffer, []
    assignment, instruct, begin = commands(node, buffer, lambda: threads.append(threading.get_ident()))
    assert instruct("reach the red cube") == "the instruction is: reach the red cube"
    assert begin("ep_5") == "ep_5" == assignment.episode_id
    assert begin("").startswith("ep_arm7_")
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("text", ["", "   ", "x" * 1001, "two\nlines"])
def test_what_is_no_instruction_is_refused_before_the_executor(node: ManagedNode, text: str) -> None:
    _, instruct, _ = commands(node, Scene().buffer)
    with pytest.raises(ReflexError, match="1 to 1000 printable characters") as refused:
        instruct(text)
    assert refused.value.slug == "bad-instruction"


def test_a_node_that_is_not_active_refuses(node: ManagedNode) -> None:
    def refuse() -> None:
        raise ReflexError("the node is inactive, not active")

    assignment, instruct, begin = commands(node, Scene().buffer, refuse)
    for command in (instruct, begin):
        with pytest.raises(ReflexError, match="inactive"):
            command("reach")
    assert (assignment.instruction, assignment.episode_id) == ("", "")


def test_what_is_not_begun_in_time_is_not_done_later(
    node: ManagedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_commands, "PATIENCE_S", 0.05)
    assignment, _, begin = commands(node, Scene().buffer)
    busy, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        busy.set()
        go_on.wait()

    assert node.executor is not None
    node.executor.create_task(hang)
    node.executor.wake()
    busy.wait()
    with pytest.raises(ReflexError, match="did not answer") as late:
        begin("ep_6")
    assert late.value.slug == "not-answered"
    go_on.set()
    monkeypatch.setattr(operator_commands, "PATIENCE_S", 60.0)
    assert begin("ep_7") == "ep_7" == assignment.episode_id
    assert assignment._episodes == 1
