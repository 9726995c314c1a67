# SPDX-License-Identifier: Apache-2.0
"""What the tests of the page and of its events share: a robot that only takes notes, and a reader of events."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from asking import AT_REST
from http_client import PATIENCE_S
from servers import Server

from benchmarks.chromium import Page
from reflex_core.engine.engine import Engine
from reflex_core.errors import ReflexError
from reflex_ros.sidecar.robot_access import Robot, RobotSnapshot
from reflex_ros.sidecar.server import Sidecar

Serving = Callable[..., Server]
LookAt = Callable[..., Page]
KEY = "a-key-of-the-tests"


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class PaperRobot:
    """Stops, resumes and is instructed on paper; `refusal` is its answer instead, with `slug`.

    may_begin: an episode begins once this is set, as on a busy node; begins: one waits for that or has begun.
    """

    snapshot: RobotSnapshot = field(default_factory=lambda: RobotSnapshot("active", chunks=1))
    done: list[str] = field(default_factory=list)
    refusal: str = ""
    slug: str = "error"
    may_begin: threading.Event = field(default_factory=_set)
    begins: bool = False

    def robot(self) -> Robot:
        return Robot(
            self._stop,
            self._resume,
            lambda: self.snapshot,
            instruct=self._instruct,
            begin_episode=self._begin,
        )

    def _instruct(self, text: str) -> str:
        return self._act("instruct", instruction=text)

    def _begin(self, episode_id: str) -> str:
        self.begins = True
        assert self.may_begin.wait(PATIENCE_S)
        self._act("episode", episode_id=episode_id or "ep_paper")
        return self.snapshot.episode_id

    def _stop(self) -> str:
        return self._act("stop", stopped=True)

    def _resume(self) -> str:
        return self._act("resume", stopped=False)

    def _act(self, name: str, **changes: Any) -> str:
        if self.refusal:
            raise ReflexError(self.refusal, self.slug)
        self.done.append(name)
        self.snapshot = replace(self.snapshot, **changes)
        return f"{name} on paper"


class Events:
    """An open GET /events, read as long as a test likes."""

    def __init__(self, port: int, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._connection.request("GET", "/events", headers=headers)
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.headers = dict(self._answer.getheaders())

    def next(self, name: str = "state") -> dict[str, Any]:
        """The next event of a name; fails when the stream ends."""
        while True:
            kind, document = self._line(), self._line()
            assert self._line() == "", "an event ends with an empty line"
            if kind == f"event: {name}":
                return dict(json.loads(document.removeprefix("data: ")))

    def rest(self) -> bytes:
        """Everything until the server ends the stream."""
        return self._answer.read()

    def _line(self) -> str:
        line = self._answer.readline().decode()
        assert line, "the stream ended"
        return line.rstrip("\n")

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


def restarted(engine: Engine, port: int, robot: Robot | None = None) -> Sidecar:
    """Another server where one was."""
    sidecar = Sidecar(engine, replace(engine.settings, port=port), robot)
    sidecar.start()
    return sidecar


def calmly(server: Server, **fields: Any) -> Any:
    return server.client.act(**({"state": list(AT_REST)} | fields))
