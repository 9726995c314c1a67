# SPDX-License-Identifier: Apache-2.0
"""The tables of wires, on POST routes and on websockets. One row adds one; the first of a route is that route's default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from reflex_ros.sidecar.wires.json import JsonWire
from reflex_ros.sidecar.wires.msgpack import MsgpackWire
from reflex_ros.sidecar.wires.openpi import PLAIN, ROBOARENA, VLLM, OpenpiWire
from reflex_ros.sidecar.wires.vla_eval import VlaEvalWire
from reflex_ros.sidecar.wires.wire import About, SocketWire, Wire

USUAL: Wire = JsonWire()

WIRES: tuple[Wire, ...] = (USUAL, MsgpackWire())

# by path; one wire is made for each connection, with the connection's id and what is served
SOCKETS: Mapping[str, Callable[[str, About], SocketWire]] = {
    "/": partial(OpenpiWire, PLAIN),
    "/v1/realtime/robot/openpi": partial(OpenpiWire, VLLM),
    "/roboarena": partial(OpenpiWire, ROBOARENA),
    "/vla-eval": VlaEvalWire,
}

ROUTES = tuple(dict.fromkeys(wire.route for wire in WIRES))


def wire_for(route: str, content_type: str) -> Wire:
    """Return the wire for a request of this Content-Type; JSON on routes that belong to no wire."""
    media_type = content_type.partition(";")[0].strip().lower()
    here = [wire for wire in WIRES if wire.route == route]
    return next((wire for wire in here if media_type in wire.content_types), here[0] if here else USUAL)
