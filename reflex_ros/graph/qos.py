# SPDX-License-Identifier: Apache-2.0
"""Quality of service of the node's subscriptions: profiles, overrides, and publishers with incompatible QoS."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from reflex_core.errors import ConfigurationError
from reflex_core.text.untrusted import escaped
from reflex_ros.messages.raw import kind_of

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import Subscription

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
STREAM_DEPTH = 100  # of a sensor that is recorded at its full rate: a second at 100 Hz
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
OVERRIDABLE = (
    QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY,
)  # fmt: skip
PREFIX = "qos_overrides."
OF_ROS = ("/clock", "/parameter_events", "/rosout")  # rclpy declares these itself, where it uses them


def overridable(*, durability: bool = True) -> QoSOverridingOptions:
    """Return options that let `qos_overrides.<topic>.subscription.<policy>` change a subscription.

    durability: whether that policy may be overridden as well.
    """
    kinds = OVERRIDABLE if durability else tuple(k for k in OVERRIDABLE if k != QoSPolicyKind.DURABILITY)
    return QoSOverridingOptions(kinds)


def copied(
    profile: QoSProfile, durability: DurabilityPolicy | None = None, depth: int | None = None
) -> QoSProfile:
    """Copy a profile, perhaps with another durability or depth: rclpy writes overrides into the one that it is given."""
    own = copy.copy(profile)
    if durability is not None:
        own.durability = durability
    if depth is not None:
        own.depth = depth
    return own


def newest(subscription: Subscription, raw: bytes, each: Callable[[bytes], None]) -> bytes:
    """Return the newest message of a raw subscription, as one of depth 1 has it; `each` is given every one, oldest first.

    raw: the one that a callback was given. For that callback: what waits behind it is taken here and calls back no more.
    """
    each(raw)
    for _ in range(STREAM_DEPTH):
        with subscription.handle:
            found = subscription.handle.take_message(subscription.msg_type, True)
        if found is None:
            break
        raw = found[0]
        each(raw)
    return raw


def require_known_overrides(node: Node, others: Iterable[str] = ()) -> None:
    """Raise ConfigurationError for an override of a topic or a policy that this node does not have: it changes nothing.

    Call it once every topic exists. others: topics that it has with other settings.
    """
    tolerated = tuple(f"{PREFIX}{topic}." for topic in (*OF_ROS, *others))
    # rclpy ignores overrides that nothing has declared
    for name in node._parameter_overrides:  # noqa: SLF001
        if name.startswith(PREFIX) and not node.has_parameter(name) and not name.startswith(tolerated):
            known = ", ".join(sorted(PREFIX + each for each in node.get_parameters_by_prefix(PREFIX[:-1])))
            raise ConfigurationError(
                f"{name}: this node has no such quality of service to change; it has {known or 'none'}",
                "unknown-qos-override",
            )


def unheard(node: Node, topics: Mapping[str, Sequence[Subscription]]) -> Iterator[str]:
    """Yield a sentence per publisher on one of our topics whose QoS matches none of our subscriptions to it.

    topics: resolved name -> the subscriptions to it, the most compatible first.
    """
    for topic, subscriptions in topics.items():
        for offered in node.get_publishers_info_by_topic(topic):
            reasons = [_why_not(offered, subscription) for subscription in subscriptions]
            if all(reasons):
                name = escaped(f"{offered.node_namespace.rstrip('/')}/{offered.node_name}")
                yield f"{topic}: {name} publishes it {reasons[0]}"


def _why_not(offered: Any, subscription: Subscription) -> str:
    """Return why a publisher does not reach a subscription, with the policy's name; empty where it does."""
    wanted_type = kind_of(subscription.msg_type)
    if offered.topic_type != wanted_type:
        return f"as {escaped(offered.topic_type)}, and this node takes {wanted_type}"
    offers, wants = offered.qos_profile, subscription.qos_profile
    compatibility, reason = qos_check_compatible(offers, wants)
    if compatibility != QoSCompatibility.ERROR:
        return ""
    for policy, least in (
        ("reliability", ReliabilityPolicy.RELIABLE),
        ("durability", DurabilityPolicy.TRANSIENT_LOCAL),
    ):
        offer, want = getattr(offers, policy), getattr(wants, policy)
        if want == least != offer:
            change = f"{PREFIX}{subscription.topic_name}.subscription.{policy}"
            return (
                f"with {policy} {offer.name.lower()}, and this node wants {want.name.lower()}: change the publisher, or"
                f" {change}"
            )
    return f"with a quality of service that does not fit: {reason}"
