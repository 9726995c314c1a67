# SPDX-License-Identifier: Apache-2.0
"""Which topics the node really listens to, and what it receives there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from domains import free_domain
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import LivelinessPolicy, QoSProfile, ReliabilityPolicy
from reflex_ros.msg import ActionChunk
from ros_world import World, wait_for, world
from sensor_msgs.msg import CompressedImage, Image
from servers import ExportDir
from std_msgs.msg import String

from reflex_core.errors import ConfigurationError
from reflex_core.settings.table import settings_from
from reflex_ros.graph.qos import LATCHED, SENSOR, unheard
from reflex_ros.graph.topics import compressed_topic
from reflex_ros.node.instruction import SETTLE_NS, Deduplicator
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.node.subscriptions import Inputs
from reflex_ros.playing.player import Player
from reflex_ros.playing.traces import camera_offers

WARN, OK = b"\x01", b"\x00"
DURABILITY = "qos_overrides./instruction.subscription.durability"


@contextmanager
def context() -> Iterator[Any]:
    found = rclpy.Context()
    rclpy.init(context=found, domain_id=free_domain())
    try:
        yield found
    finally:
        rclpy.try_shutdown(context=found)


@pytest.fixture(scope="module")
def ros() -> Iterator[Any]:
    """One context for all nodes that only have to exist."""
    with context() as found:
        yield found


@pytest.fixture
def make_node(ros: Any) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(*rules: str, overrides: dict[str, Any] | None = None, **options: Any) -> Node:
        parameters = [Parameter(name, value=value) for name, value in (overrides or {}).items()]
        arguments = ["--ros-args", *(word for rule in rules for word in ("-r", rule))]
        nodes.append(
            Node("reflex", context=ros, cli_args=arguments, parameter_overrides=parameters, **options)
        )
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


@pytest.mark.parametrize(
    ("rules", "namespace", "wanted"),
    [
        ((), "", "/camera/image_raw/compressed"),
        (("camera/image_raw:=/wrist/color",), "", "/wrist/color/compressed"),
        (("/camera/image_raw:=/wrist/color",), "", "/wrist/color/compressed"),
        (("camera/image_raw:=wrist/color",), "robot1", "/robot1/wrist/color/compressed"),
        (("/robot1/camera/image_raw:=/wrist/color",), "robot1", "/wrist/color/compressed"),
        (("camera/image_raw:=/wrist/color", "__ns:=/robot1"), "", "/wrist/color/compressed"),
        (("reflex:camera/image_raw:=/wrist/color",), "", "/wrist/color/compressed"),
        (("other:camera/image_raw:=/wrist/color",), "", "/camera/image_raw/compressed"),
        (("camera/image_raw:=~/color",), "", "/reflex/color/compressed"),
        # a rule for the twin wins, and one that leads to a twin is taken at its word
        (("camera/image_raw/compressed:=/jpeg",), "", "/jpeg"),
        (("camera/image_raw:=/wrist/color", "camera/image_raw/compressed:=/jpeg"), "", "/jpeg"),
        (("camera/image_raw:=/wrist/color/compressed",), "", "/wrist/color/compressed"),
    ],
)
def test_the_base_name_is_remapped_and_compressed_put_behind_it(
    make_node: Callable[..., Node], rules: tuple[str, ...], namespace: str, wanted: str
) -> None:
    node = make_node(*rules, namespace=namespace)
    assert compressed_topic(node, "camera/image_raw") == wanted
    buffer, inputs = listening(node, image_transport="compressed")
    assert buffer.topics["camera"] == wanted, "the subscription is not remapped a second time"
    inputs.destroy()


def test_what_is_played_goes_where_the_node_listens_under_the_same_rules(
    make_node: Callable[..., Node],
) -> None:
    node = make_node("camera/image_raw:=/wrist/color")
    player = Player(node, camera_offers("camera"))
    assert [publisher.topic_name for publisher in player._publishers.values()] == [
        "/wrist/color",
        "/wrist/color/compressed",
    ]


def listening(node: Node, **settings: Any) -> tuple[ObservationBuffer, Inputs]:
    buffer = ObservationBuffer(("camera",), ("a",), True)
    inputs = Inputs(
        node, settings_from(settings), ("camera",), buffer, lambda: None, lambda *_: None, lambda *_: None
    )
    return buffer, inputs


def test_a_compressed_camera_of_another_name_is_seen_and_named(export_dir: ExportDir) -> None:
    rules = ["--ros-args", "-r", "camera/image_raw:=/wrist/color"]
    settings = {"export_dir": str(export_dir("calm")), "embodiment": "franka"}
    with world(cli_args=rules, image_transport="compressed", **settings) as scene:
        scene.robot.camera_on = False
        scene.robot._compressed = scene.robot.node.create_publisher(
            CompressedImage, "/wrist/color/compressed", SENSOR
        )
        scene.activate()
        message = "camera_missing: no image from camera 'camera' yet on /wrist/color/compressed"
        wait_for(lambda: scene.robot.status.problem == message, "the problem names the topic")
        scene.robot.camera_on = True
        assert scene.robot.next_chunk().source == ActionChunk.SOURCE_POLICY


def test_the_problem_names_a_raw_topic_and_the_policy_that_does_not_fit(export_dir: ExportDir) -> None:
    rules = ["--ros-args", "-r", "camera/image_raw:=/wrist/color"]
    reliable = Parameter("qos_overrides./wrist/color.subscription.reliability", value="reliable")
    settings = {"export_dir": str(export_dir("calm")), "embodiment": "franka"}
    with world([reliable], cli_args=rules, **settings) as scene:
        scene.robot._image = scene.robot.node.create_publisher(Image, "/wrist/color", SENSOR)
        scene.activate()
        message = (
            "camera_missing: no image from camera 'camera' yet on /wrist/color; /wrist/color: /robot publishes it with"
            " reliability best_effort, and this node wants reliable: change the publisher, or"
            " qos_overrides./wrist/color.subscription.reliability"
        )
        wait_for(lambda: scene.robot.status.problem == message, "the problem names topic and policy")
        [joints] = scene.server.node.get_subscriptions_info_by_topic("/joint_states")
        assert joints.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT, "an override is for one topic"


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir) -> Iterator[World]:
    """A node to which a latched publisher sent something before it listened."""
    with world(export_dir=str(export_dir("calm")), embodiment="franka") as found:
        found.activate("said before")
        wait_for(lambda: instruction_of(found) == "said before", "what was latched arrives")
        yield found


def instruction_of(scene: World) -> str:
    return scene.buffer.instruction


def publisher(scene: World, topic: str, kind: type, qos: Any) -> Any:
    return scene.robot.node.create_publisher(kind, topic, qos)


def test_an_instruction_of_a_volatile_publisher_arrives_and_a_latched_one_after_it(scene: World) -> None:
    by_hand = publisher(scene, "instruction", String, 10)
    wait_for(by_hand.get_subscription_count, "they know each other")
    by_hand.publish(String(data="said by hand"))
    wait_for(lambda: instruction_of(scene) == "said by hand", "it arrives")
    scene.robot.say("latched again")
    wait_for(lambda: instruction_of(scene) == "latched again", "it arrives")
    late = publisher(scene, "instruction", String, LATCHED)
    late.publish(String(data="from a newcomer"))  # before it is discovered
    wait_for(lambda: instruction_of(scene) == "from a newcomer", "it arrives")
    for each in (by_hand, late):
        scene.robot.node.destroy_publisher(each)


def test_an_episode_begins_once_for_each_message(scene: World) -> None:
    by_hand, begun = publisher(scene, "episode", String, 10), scene.server._assignment._episodes
    wait_for(by_hand.get_subscription_count, "they know each other")
    for number, begin in enumerate((scene.robot.begin, lambda name: by_hand.publish(String(data=name))) * 2):
        begin(f"episode-{number}")
        wait_for(lambda n=number: scene.robot.status.episode_id == f"episode-{n}", "it begins")
    assert scene.server._assignment._episodes == begun + 4
    scene.robot.node.destroy_publisher(by_hand)


def test_a_publisher_that_cannot_be_heard_is_named_while_it_is_there(scene: World) -> None:
    wrong = publisher(
        scene, "instruction", String, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    says = "/instruction: /robot publishes it with reliability best_effort, and this node wants reliable"
    assert says in scene.robot.diagnosed("connections", WARN).message
    scene.robot.node.destroy_publisher(wrong)
    assert scene.robot.diagnosed("connections", OK).message == "every publisher is heard"
    shown = {pair.key: pair.value for pair in scene.robot.diagnostics["connections"].values}
    assert shown == {
        "camera": "/camera/image_raw", "state": "/joint_states", "instruction": "/instruction", "episode": "/episode",
    }  # fmt: skip


def offering(kind: str, qos: QoSProfile) -> Any:
    """A node that sees one publisher, /arm/driver."""
    seen = SimpleNamespace(node_name="driver", node_namespace="/arm", topic_type=kind, qos_profile=qos)
    return SimpleNamespace(get_publishers_info_by_topic=lambda _: [seen])


@pytest.mark.parametrize(
    ("kind", "offers", "says"),
    [
        ("sensor_msgs/msg/Image", SENSOR, ""),
        ("sensor_msgs/msg/Image", LATCHED, ""),
        ("sensor_msgs/msg/CompressedImage", SENSOR, "as sensor_msgs/msg/CompressedImage, and this node takes sensor_msgs/msg/Image"),
    ],
)  # fmt: skip
def test_a_sensor_is_heard_unless_it_is_of_another_type(kind: str, offers: QoSProfile, says: str) -> None:
    subscription = SimpleNamespace(msg_type=Image, qos_profile=SENSOR, topic_name="/color")
    found = list(unheard(offering(kind, offers), {"/color": [subscription]}))  # type: ignore[list-item]
    assert found == ([f"/color: /arm/driver publishes it {says}"] if says else [])


def test_durability_and_what_has_no_name_of_ours_are_named_too() -> None:
    strict = QoSProfile(
        depth=1,
        durability=LATCHED.durability,
        deadline=Duration(seconds=1),
        liveliness=LivelinessPolicy.AUTOMATIC,
    )
    subscription = SimpleNamespace(msg_type=Image, qos_profile=strict, topic_name="/color")
    for offers, says in (
        (SENSOR, "with reliability best_effort"),
        (QoSProfile(depth=1), "with durability volatile"),
    ):
        [sentence] = unheard(offering("sensor_msgs/msg/Image", offers), {"/color": [subscription]})  # type: ignore[list-item]
        assert says in sentence
    [sentence] = unheard(offering("sensor_msgs/msg/Image", LATCHED), {"/color": [subscription]})  # type: ignore[list-item]
    assert "deadline" in sentence


def durabilities(node: Node) -> list[str]:
    return sorted(
        info.qos_profile.durability.name for info in node.get_subscriptions_info_by_topic("/instruction")
    )


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ({}, ["TRANSIENT_LOCAL", "VOLATILE"]),
        ({DURABILITY: "volatile"}, ["VOLATILE"]),
        ({DURABILITY: "transient_local"}, ["TRANSIENT_LOCAL", "VOLATILE"]),
    ],
)
def test_an_override_of_the_durability_is_honoured(
    make_node: Callable[..., Node], override: dict[str, Any], wanted: list[str]
) -> None:
    node = make_node(overrides=override)
    _, inputs = listening(node)
    wait_for(lambda: durabilities(node) == wanted, f"it listens with {wanted}")
    inputs.destroy()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (DURABILITY, "sometimes", "Unexpected QoS override for policy `durability`: `sometimes`"),
        ("qos_overrides./camera/image_raw.subscription.depth", "many", "qos_overrides./camera/image_raw.subscription: "),
        ("qos_overrides./instruktion.subscription.depth", 2, "no such quality of service to change; it has qos_overrides./"),
        ("qos_overrides./instruction.publisher.depth", 2, "qos_overrides./instruction.publisher.depth: this node has no such"),
        ("qos_overrides./instruction.subscription.deadline", 2, "this node has no such"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_honoured_is_refused(
    make_node: Callable[..., Node], name: str, value: Any, says: str
) -> None:
    node = make_node(overrides={name: value})
    with pytest.raises(ConfigurationError) as refused:
        listening(node)
    assert says in str(refused.value)
    assert list(node.subscriptions) == []


def test_overrides_of_the_other_transport_and_of_ros_itself_are_left_alone(
    make_node: Callable[..., Node],
) -> None:
    topics = ("/camera/image_raw/compressed", "/clock", "/parameter_events")
    node = make_node(overrides={f"qos_overrides.{topic}.subscription.depth": 1 for topic in topics})
    _, inputs = listening(node)
    inputs.destroy()


def test_a_refused_override_keeps_the_node_inactive(export_dir: ExportDir) -> None:
    wrong = Parameter("qos_overrides./instruktion.subscription.depth", value=2)
    with world([wrong], export_dir=str(export_dir("calm")), embodiment="franka") as found:
        assert not found.spinner.do(found.server.start)
        assert "qos_overrides./instruktion.subscription.depth" in found.server.node.refusal
        assert (found.state, found.server.engine.state) == ("inactive", "inactive")
        assert found.server._inputs is None


SECOND = 1_000_000_000


def test_what_both_subscriptions_hear_is_new_once() -> None:
    once = Deduplicator()
    assert once.is_new(5, 1, b"a", 0, live=False)
    assert not once.is_new(5, 1, b"a", 0, live=True)
    assert once.is_new(6, 2, b"a", 0, live=True), "the same words, said again"
    assert not once.is_new(6, 2, b"a", 0, live=False)


def test_what_a_latched_publisher_said_before_does_not_undo_what_was_said_since() -> None:
    once = Deduplicator()
    assert once.is_new(9, 2, b"new", 0, live=True)
    assert not once.is_new(5, 1, b"old", SECOND, live=False)
    assert not once.is_new(9, 2, b"new", SECOND, live=False)
    assert once.is_new(4, 1, b"a clock that is behind", SECOND, live=True), "live it counts, as clocks differ"


def test_a_newcomer_whose_clock_is_behind_is_heard() -> None:
    once = Deduplicator()
    assert once.is_new(100 * SECOND, 1, b"first", 0, live=True)
    assert once.is_new(40 * SECOND, 1, b"newcomer", SETTLE_NS, live=False)


def test_without_stamps_nothing_is_lost() -> None:
    once = Deduplicator()
    assert once.is_new(0, None, b"said before", 0, live=False)
    assert [once.is_new(0, None, b"go", number, live=True) for number in range(2)] == [True, True]
    assert not once.is_new(0, None, b"go", 3, live=False)
