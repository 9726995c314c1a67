# SPDX-License-Identifier: Apache-2.0
"""The startup banner: URLs, topics and policy once ready, as a table on a terminal, as plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from reflex_core.engine.engine import Engine
from reflex_core.engine.serving_state import ServingState
from reflex_core.settings.table import Settings
from reflex_ros.console.terminal import Row, drawn, plain_table
from reflex_ros.sidecar.server import Sidecar

if TYPE_CHECKING:
    from rclpy.node import Node

OF_ROS = ("/rosout", "/parameter_events", "/clock", "transition_event")  # every node has them


def show(
    engine: Engine,
    sidecar: Sidecar | None,
    plain: Callable[[str], None],
    node: Node | None = None,
    stream: TextIO | None = None,
) -> None:
    """Show the table on a terminal (`stream`, standard output if left out), else hand each line to `plain`."""
    stream = sys.stdout if stream is None else stream
    url = f"{sidecar.url}/{' (with the key)' if sidecar.has_key else ''}" if sidecar else "off: no HTTP"
    rows = banner_rows(engine, url, topics_by_use(node) if node else {}, _ports(engine.settings, sidecar))
    title = _serving(engine.description(), sidecar.url if sidecar else "")
    terminal = stream.isatty() and engine.settings.log_format == "text"
    if terminal and drawn(rows, title, stream):
        return
    lines = [title, *(f"  {line}" for line in plain_table(rows))]
    if terminal:
        print(*lines, sep="\n", file=stream, flush=True)
        return
    for line in lines:
        plain(line)


def show_for_node(engine: Engine, sidecar: Sidecar | None, plain: Callable[[str], None], node: Node) -> None:
    """Show the table of a node; one that cannot be made is logged, and keeps no robot from its policy."""
    try:
        show(engine, sidecar, plain, node)
    except Exception as error:
        node.get_logger().error(f"the startup banner failed: {error}")


def _serving(description: Mapping[str, Any], url: str) -> str:
    robot = description["embodiment"] or "no embodiment"
    where = f" at {url}" if url else ""
    return (
        f"serving {description['model_version']} for {robot} on {description['active_providers'][0]}{where}"
    )


def banner_rows(
    engine: Engine, url: str, topics: Mapping[str, Iterable[str]], ports: Iterable[Row] = ()
) -> list[Row]:
    """Return (name, value) rows of what is served now. topics: by what the node does with them. ports: beside HTTP's."""
    loaded, settings = engine.loaded, engine.settings
    assert loaded is not None
    description = engine.description()
    rows: list[Row] = [
        (
            "policy",
            ", ".join(
                f"{_slot(name, loaded)}{slot.policy.export.model_version}"
                for name, slot in loaded.slots.items()
            ),
        ),
        ("robot", description["embodiment"] or "no embodiment: actions are served raw"),
        ("runs on", ", ".join(dict.fromkeys(_providers(loaded)))),
        *_kinds(loaded),
    ]
    rows += [(what, ", ".join(names)) for what, names in topics.items()]
    if engine.undrivable:
        rows.append(("commands", f"no robot: {engine.undrivable}"))
    rows.append(("page", url))
    rows += ports
    rows.append(("deadline", _deadline(settings, loaded.admission.mode)))
    rows.append(("guard", _guard(settings, loaded)))
    if description["not_checked"]:
        rows.append(("not checked", description["not_checked"]))
    rows.append(("records", ", ".join(_records(settings)) or "none"))
    return rows


def _ports(settings: Settings, sidecar: Sidecar | None) -> Iterable[Row]:
    """Yield the addresses of ports for clients that speak no HTTP."""
    if sidecar is None:
        return
    if sidecar.lerobot_port:
        yield "lerobot", f"{settings.lerobot_host}:{sidecar.lerobot_port} (without a key)"
    if sidecar.groot_port:
        yield "gr00t", f"{settings.host}:{sidecar.groot_port}{' (with the key)' if sidecar.has_key else ''}"


def _slot(name: str, loaded: ServingState) -> str:
    return "" if len(loaded.slots) == 1 else f"{name}: "


def _kinds(loaded: ServingState) -> Iterable[Row]:
    """Yield what each policy's network is, and a row for everything that it cannot do."""
    for name, slot in loaded.slots.items():
        policy, steps = slot.policy, slot.policy.contract.flow.steps
        yield "kind", f"{_slot(name, loaded)}{policy.kind}, {steps} step{'s' if steps > 1 else ''}"
        for what, why in policy.capabilities.lacking().items():
            yield f"no {what.replace('_', ' ')}", f"{_slot(name, loaded)}{why}"


def _providers(loaded: ServingState) -> Iterable[str]:
    for slot in loaded.slots.values():
        yield from slot.policy.providers


def _deadline(settings: Settings, slo_mode: str) -> str:
    words = f"{settings.deadline_ms:g} ms, then the last good chunk" if settings.deadline_ms else "none"
    return f"{words}; objective {settings.slo} ({slo_mode})" if settings.slo else words


def _guard(settings: Settings, loaded: ServingState) -> str:
    status = loaded.guard.status()
    if not status.enabled:
        return "checks for NaN and Inf only: there are no limits"
    source = settings.safety_config or "the embodiment's ranges"
    trips = (
        f"trips after {status.max_consecutive_clamps} in a row"
        if status.max_consecutive_clamps
        else "never trips"
    )
    return f"{source}; mode {status.mode}, {trips}"


def _records(settings: Settings) -> Iterable[str]:
    for what, where in (
        ("traces", settings.record),
        ("bags", settings.record_bag),
        ("audit log", settings.audit_log),
        ("spans", settings.otel_endpoint),
    ):
        if where:
            yield f"{what} to {where}"


def topics_by_use(node: Node) -> dict[str, list[str]]:
    """Return the topics of a node after remapping, without those of ROS itself, by publisher and subscriber."""

    def names(parts: Iterable[Any]) -> list[str]:
        found = dict.fromkeys(str(part.topic_name) for part in parts)
        return [name for name in found if not name.endswith(OF_ROS)]

    return {"listens to": names(node.subscriptions), "publishes": names(node.publishers)}
