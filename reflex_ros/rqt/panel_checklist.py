# SPDX-License-Identifier: Apache-2.0
"""What a chunk is made of, present or not: the checklist while the node waits. Pure: a view in, items out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reflex_ros.rqt.operator_state import problem_of
from reflex_ros.rqt.panel_view import View

SERVING = ("ready", "degraded")


@dataclass(frozen=True, slots=True)
class Item:
    """ok: it is there; None: not known yet. topic: resolved, empty where it has none. text: what is missing, or how it is."""

    name: str
    ok: bool | None
    text: str
    topic: str = ""


def checklist(view: View) -> tuple[Item, ...]:
    """Return every item, in the order in which a person brings them up."""
    if not view.heard:
        return (Item("node", False, f"{view.node} is not received"),)
    return (
        Item("node", True, f"{view.node} is received"),
        *_policy(view),
        *_streams(view),
        *_receivers(view),
    )


def _policy(view: View) -> Iterator[Item]:
    name = view.figures.policy
    loaded = view.state in SERVING or view.state in ("inactive", "warming")
    policy = view.concern("policy")
    failed = view.state == "failed" or (policy is not None and policy.level == 2 and not loaded)
    text = "could not be loaded" if failed else (name or "loaded") if loaded else view.state
    yield Item("policy", loaded and not failed, text)
    if loaded:
        active = view.state in SERVING
        yield Item("active", active, "the node serves" if active else "activate the node")


def _streams(view: View) -> Iterator[Item]:
    """Yield joints, cameras and the instruction, with the topics that the node subscribes to."""
    observations = view.concern("observations")
    values = observations.values if observations else {}
    slug, sentence = problem_of(view)
    if topic := view.topics.get("state"):
        yield _stream("joints", topic, values.get("state age ms"), sentence if slug == "joint_names" else "")
    for camera, topic in view.cameras.items():
        yield _stream(f"camera {camera}", topic, values.get(f"camera {camera} age ms"), "")
    if topic := view.topics.get("instruction"):
        text = view.figures.instruction
        needed = slug == "no_instruction"
        missing = "none yet: type one on the left" + ("" if needed else ", if the policy reads one")
        yield Item("instruction", True if text else (False if needed else None), text or missing, topic)


def _stream(name: str, topic: str, age_ms: str | None, trouble: str) -> Item:
    if trouble:
        return Item(name, False, trouble, topic)
    if age_ms is None:
        return Item(name, False, "nothing received: start its driver, or remap the topic", topic)
    return Item(name, True, f"newest {age_ms} ms old", topic)


def _receivers(view: View) -> Iterator[Item]:
    """Yield whether something takes the commands."""
    if (outputs := view.concern("outputs")) is not None:
        yield Item("controllers", outputs.level == 0, outputs.message)
