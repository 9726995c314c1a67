# SPDX-License-Identifier: Apache-2.0
"""`reflex serve --no-ros` on Ray Serve: an engine in each replica, an episode stays on one (docs/how-to/scale-out.md).

    RAY_AUTH_MODE=token RAY_AUTH_TOKEN=... RAY_USAGE_STATS_ENABLED=0 \
      python deploy/ray/serve_policy.py --replicas 2 -- demo --deadline-ms 200

What follows `--` is for `reflex serve`. Ray's own ports run code for what reaches them and are not on loopback alone:
firewall, and the token on every node. HTTP is at 127.0.0.1 without a key: put TLS and keys in front of it.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from multidict import CIMultiDict, CIMultiDictProxy
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from starlette.requests import Request
from starlette.responses import Response

from reflex_core.engine.engine import READY, Engine
from reflex_core.errors import NotReadyError
from reflex_core.settings.cli import parse
from reflex_ros.cli.serve import parser as serve_parser
from reflex_ros.settings_sources import given
from reflex_ros.sidecar import sessions
from reflex_ros.sidecar.act import Call, answer, largest_body, refused
from reflex_ros.sidecar.bodies import BodyMemory
from reflex_ros.sidecar.connections import StalledError
from reflex_ros.sidecar.health import config, health
from reflex_ros.sidecar.problems import BodyError, TooLargeError, fresh_id, problem_of
from reflex_ros.sidecar.replies import Reply
from reflex_ros.sidecar.server_connections import connect_cloud, connect_remote
from reflex_ros.sidecar.wires.table import wire_for

STICKY = RequestRouterConfig(  # by the header x-session-id; one other replica answers while the own one is busy or gone
    request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
    request_router_kwargs={"num_virtual_nodes": 100, "num_fallback_replicas": 1},
)


@serve.deployment(request_router_config=STICKY, max_ongoing_requests=16, graceful_shutdown_timeout_s=15)
class Policy:
    """The engine of `reflex serve`, with all its wedges, behind Ray's HTTP proxy."""

    def __init__(self, arguments: list[str]) -> None:
        options = parse(serve_parser(), arguments)
        source = [options.pop(name) for name in ("no_ros", "print_config", "config")][-1]
        settings = given(options, [], source).settings
        self.engine, self.memory = (
            Engine(settings, connect_cloud, connect_remote=connect_remote),
            BodyMemory(),
        )
        self.engine.load()
        self.engine.warm_up()

    def check_health(self) -> None:
        """Raise where the policy does not serve: Ray replaces the replica."""
        if self.engine.state != READY:
            raise RuntimeError(f"the engine is {self.engine.state}: {self.engine.reason}")

    async def __call__(self, request: Request) -> Response:
        read = {"/health": health, "/config": config}.get(request.url.path)
        if (request.method, request.url.path) == ("POST", "/act"):
            reply = await self.act(request)
        elif request.method == "GET" and read is not None:
            reply = await asyncio.to_thread(read, self.engine)
        else:
            return Response(status_code=404)
        return Response(reply.body, reply.status, reply.headers, reply.content_type)

    async def act(self, request: Request) -> Reply:
        received_ns, headers = time.monotonic_ns(), CIMultiDictProxy(CIMultiDict(request.headers.items()))
        wire, loaded = wire_for("/act", headers.get("Content-Type", "")), self.engine.loaded
        try:
            if loaded is None:
                raise NotReadyError(self.engine.state)
            session, packed = sessions.session_of(headers), headers.get("Content-Encoding", "")
            most = largest_body(loaded, self.engine.settings.max_pixels)
            call = Call(received_ns, packed=packed, most_bytes=most, routed_by=session)
            with self.memory.body(None) as room:
                async for part in request.stream():
                    self.memory.reserve(room, len(part))
                    room.data += part
                    if len(room.data) > most:
                        raise TooLargeError(f"the body must have at most {most} bytes")
                reply = await asyncio.to_thread(answer, self.engine, wire, room, call)
        except (BodyError, NotReadyError, StalledError) as error:
            return refused(wire, problem_of(error, fresh_id()))
        reply.headers.update(sessions.echo(session))
        return reply

    def __del__(self) -> None:
        self.engine.unload()  # after the last answer: ends the records


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in (("--replicas", 2), ("--most-replicas", 0), ("--gpus", 0), ("--port", 8000)):
        command.add_argument(name, type=int, default=value)
    command.add_argument(
        "--cpus", type=float, default=1.0, help="cores that Ray keeps for each replica; parts are taken"
    )
    command.add_argument("arguments", nargs="+", help="of `reflex serve`")
    chosen = command.parse_args()
    serve.start(http_options={"host": "127.0.0.1", "port": chosen.port})
    most = max(chosen.replicas, chosen.most_replicas)
    scaling = AutoscalingConfig(min_replicas=chosen.replicas, max_replicas=most)  # no robot waits for a load
    actor = {"num_cpus": chosen.cpus, "num_gpus": chosen.gpus}
    policy = Policy.options(autoscaling_config=scaling, ray_actor_options=actor)
    serve.run(policy.bind(chosen.arguments), name="reflex", route_prefix="/", blocking=True)
