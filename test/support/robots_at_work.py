# SPDX-License-Identifier: Apache-2.0
"""Clients that ask for chunks one after another, as robots behind a balancer do, and note what they got and what failed."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from http_client import good, wait_for
from ros_world import REACH_HOME

ROBOTS = 6


def body(**fields: Any) -> bytes:
    return json.dumps(good(state=REACH_HOME, **fields)).encode()


@dataclass
class Robot:
    """One client that goes on until it is stopped. answers: server and reason of each; failed: what was no answer."""

    session: str
    port: int
    answers: list[tuple[float, str, str]] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)

    def run(self, over: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60.0)
        previous = ""
        while not over.is_set():
            more = {"previous_request_id": previous, "elapsed_rows": 5.0} if previous else {}
            try:
                connection.request("POST", "/act", body(**more), {"X-Session-Id": self.session})
                response = connection.getresponse()
                document = json.loads(response.read())
                if response.status != 200:
                    raise http.client.HTTPException(f"{response.status} {document}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append((time.monotonic(), repr(error)))
                connection.close()
                continue
            previous = document["request_id"]
            self.answers.append((time.monotonic(), document["robot_id"], document["rtc_reason"]))
        connection.close()


@contextmanager
def robots_at_work(port: int) -> Iterator[list[Robot]]:
    """Robots that have each been answered three times."""
    over = threading.Event()
    robots = [Robot(f"robot {number}", port) for number in range(ROBOTS)]
    threads = [threading.Thread(target=robot.run, args=(over,)) for robot in robots]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: all(len(robot.answers) > 3 for robot in robots))
        yield robots
    finally:
        over.set()
        for thread in threads:
            thread.join()


def go_on(robots: list[Robot], answers: int = 3) -> None:
    """Wait until each robot has so many answers more."""
    before = [len(robot.answers) for robot in robots]
    wait_for(
        lambda: all(len(robot.answers) >= had + answers for robot, had in zip(robots, before, strict=True))
    )
