# SPDX-License-Identifier: Apache-2.0
"""What a chunk is made of, present or missing, for the page. Called from the page's thread: it never waits for the loop."""

from __future__ import annotations

from collections.abc import Callable

from reflex_core.robot.intake import has_words
from reflex_core.text.untrusted import escaped
from reflex_ros.node.observation_buffer import ObservationBuffer
from reflex_ros.sidecar.robot_access import Need

JOINTS_NAMED = 4
Publishers = Callable[[str], int]  # how many publish on a topic


def checklist(
    buffer: ObservationBuffer, publishers: Publishers, now_ns: int, max_age_ms: float, *, needs_words: bool
) -> tuple[Need, ...]:
    """Return the joints, each camera and the instruction, as far as the policy needs them.

    now_ns: on the robot's clock. max_age_ms: what is older is not used. needs_words: the policy reads the instruction.
    """
    cameras, needs_state, unseen = buffer.needed()
    ages_ms = buffer.ages_ms(now_ns)

    def sensor(kind: str, stream: str, name: str, topic: str, lacks: str = "") -> Need:
        age_ms = ages_ms.get(stream)
        if age_ms is None:
            text = "nothing received yet" if topic and publishers(topic) else "no publisher on this topic"
        elif lacks:
            text = lacks
        else:
            text = f"{age_ms:.0f} ms old" + (f", at most {max_age_ms:g} ms" if age_ms > max_age_ms else "")
        ok = age_ms is not None and not lacks and age_ms <= max_age_ms
        return Need(kind, name, topic, ok, text)

    found = []
    if needs_state:
        lacks = f"lack {', '.join(escaped(name) for name in unseen[:JOINTS_NAMED])}" if unseen else ""
        more = f" and {len(unseen) - JOINTS_NAMED} more" if len(unseen) > JOINTS_NAMED else ""
        found.append(sensor("joints", "state", "", buffer.topics.get("state", ""), lacks and lacks + more))
    found += [
        sensor("camera", f"camera {camera}", camera, buffer.topics.get(camera, "")) for camera in cameras
    ]
    if needs_words:
        given = has_words(buffer.instruction)
        text = "given" if given else "none yet: type one on this page, or publish it"
        found.append(Need("instruction", "", buffer.topics.get("instruction", ""), given, text))
    return tuple(found)
