# SPDX-License-Identifier: Apache-2.0
"""Resolve topic names; remappings apply as in image_transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

COMPRESSED = "/compressed"


def compressed_topic(node: Node, base: str) -> str:
    """Resolve the compressed twin of an image topic: the base name is remapped, then `/compressed` put behind it.

    base: such as `camera/image_raw`. A rule for the twin itself wins, and one that leads to a compressed topic is taken
    at its word. Source: image_transport, which makes the topics of its plugins from the resolved base name.
    """
    twin = base + COMPRESSED
    own = str(node.resolve_topic_name(twin))
    if own != node.resolve_topic_name(twin, only_expand=True):
        return own
    resolved = str(node.resolve_topic_name(base))
    is_twin = resolved.endswith(COMPRESSED) and resolved != node.resolve_topic_name(base, only_expand=True)
    return resolved if is_twin else resolved + COMPRESSED
