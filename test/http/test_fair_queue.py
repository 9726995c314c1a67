# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: the scheduler by a clock of the test, and what clients get of it through real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from groot_client import GrootClient, nested
from http_client import PATIENCE_S, Answer, Background, Client, at_the_policy, busy, good, wait_for

from reflex_core.values import Request, Served
from reflex_ros.sidecar import fair_queue
from reflex_ros.sidecar.admission import DeadlineError, deadline_of
from reflex_ros.sidecar.fair_queue import FairQueue, Line, Turn
from reflex_ros.sidecar.key_file import ACT, add_key, fresh_key
from reflex_ros.sidecar.problems import Problem

Serve = Callable[..., Any]
SERVICE_S = 0.1
ONE, TWO = Line("arm-1", known=True), Line("arm-2", known=True)


@dataclass
class World:
    """A queue in front of one machine that infers one request at a time, in simulated time."""

    queue: FairQueue = field(init=False)
    now_s: float = 0.0
    slugs: list[str] = field(default_factory=list)
    width: int = 4
    robot_waiting: int = 100
    most_waiting: int = 1000
    inferring: list[tuple[str, Turn, asyncio.Future[None]]] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    late_s: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = FairQueue(
            self.width, lambda: self.robot_waiting, self.slugs.append, lambda: self.now_s, self.most_waiting
        )

    async def request(self, line: Line, deadline_s: float = float("inf")) -> Problem | None:
        """One request, from its arrival to its answer."""
        began_s = self.now_s
        turn = await self.queue.turn(line, deadline_s)
        if isinstance(turn, Problem):
            return turn
        done = asyncio.get_running_loop().create_future()
        self.inferring.append((line.name, turn, done))
        await done
        self.late_s.setdefault(line.name, []).append(self.now_s - began_s)
        return None

    async def step(self) -> bool:
        """Infer the request that waits longest for the machine; False where none does."""
        await settled()
        if not self.inferring:
            return False
        name, turn, done = self.inferring.pop(0)
        self.now_s += SERVICE_S
        self.served.append(name)
        turn.end(None)
        done.set_result(None)
        await settled()
        return True


async def settled() -> None:
    """Let every task go on until all wait."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(what: Callable[[], Awaitable[Any]]) -> Any:
    async def call() -> Any:
        return await what()

    return asyncio.run(call())


def test_one_client_is_served_in_the_order_of_arrival() -> None:
    async def scene() -> list[str]:
        world = World(width=1)
        order: list[str] = []

        async def one(number: int) -> None:
            await world.request(Line("peer:10.0.0.7"))
            order.append(str(number))

        tasks = [asyncio.create_task(one(number)) for number in range(5)]
        while await world.step():
            pass
        await asyncio.gather(*tasks)
        return order

    assert run(scene) == ["0", "1", "2", "3", "4"]


def test_a_robot_with_fifty_connections_costs_another_two_service_times_at_most() -> None:
    async def scene(greedy: int) -> float:
        world = World()

        async def always(line: Line) -> None:
            while world.now_s < 20.0:
                await world.request(line)

        tasks = [asyncio.create_task(always(ONE)) for _ in range(greedy)]
        tasks.append(asyncio.create_task(always(TWO)))
        while await world.step():
            pass
        await asyncio.gather(*tasks)
        return statistics.median(world.late_s["arm-2"])

    alone, beside = run(lambda: scene(0)), run(lambda: scene(50))
    assert alone == pytest.approx(SERVICE_S)
    assert beside - alone <= 2 * SERVICE_S + 1e-9


def test_robots_take_turns_however_many_requests_each_has() -> None:
    async def scene() -> list[str]:
        world = World(width=1)
        lines = [ONE] * 6 + [TWO] * 2 + [Line("arm-3", known=True)]
        tasks = [asyncio.create_task(world.request(line)) for line in lines]
        while await world.step():
            pass
        await asyncio.gather(*tasks)
        return world.served

    served = run(scene)
    assert served[:5] == ["arm-1", "arm-2", "arm-3", "arm-1", "arm-2"]
    assert served[5:] == ["arm-1"] * 4


def test_a_robot_that_passes_its_bound_gets_429_and_no_other_does() -> None:
    async def scene() -> tuple[list[Problem | None], Problem | None, World]:
        world = World(width=1, robot_waiting=2)
        tasks = [asyncio.create_task(world.request(ONE)) for _ in range(5)]
        other = asyncio.create_task(world.request(TWO))
        while await world.step():
            pass
        return list(await asyncio.gather(*tasks)), await other, world

    answers, other, world = run(scene)
    refused = [answer for answer in answers if answer is not None]
    assert [(one.status, one.slug) for one in refused] == [(429, "robot_queue_full")] * 2
    assert other is None
    assert world.slugs == ["robot_queue_full"] * 2


def test_a_full_server_sends_away_the_newest_of_the_robot_that_has_most() -> None:
    async def scene() -> tuple[list[Any], Any, Any]:
        world = World(width=1, most_waiting=4)
        many = [asyncio.create_task(world.request(Line("peer:1"))) for _ in range(4)]
        await settled()
        more = await world.request(Line("peer:1"))
        other = asyncio.create_task(world.request(Line("peer:2")))
        while await world.step():
            pass
        return list(await asyncio.gather(*many)), more, await other

    many, more, other = run(scene)
    assert (more.status, more.slug) == (503, "queue_full")
    assert other is None
    assert [answer and answer.slug for answer in many] == [None, None, None, "queue_full"]


def test_thousands_of_made_up_sessions_of_one_sender_stand_in_no_robots_way() -> None:
    def made_up(number: int) -> Line:
        return Line(f"session:{number}", known=True, sender="peer:10.0.0.66")

    async def scene() -> tuple[World, Any, Problem, list[Any]]:
        world = World(width=1, most_waiting=10)
        world.queue.pace_s = SERVICE_S
        flood = [asyncio.create_task(world.request(made_up(number))) for number in range(10)]
        await settled()
        more = [await world.request(made_up(number)) for number in range(10, 1000)]
        assert {one.slug for one in more if one is not None} == {"queue_full"}
        robot = asyncio.create_task(world.request(ONE))
        await settled()
        late = await world.request(TWO, deadline_s=world.now_s + 1e-9)
        assert late is not None
        while await world.step():
            pass
        return world, await robot, late, list(await asyncio.gather(*flood))

    world, robot, late, flood = run(scene)
    assert robot is None
    assert world.served.index("arm-1") <= 1, world.served
    assert [answer is not None for answer in flood].count(True) == 1  # that made room
    assert late.retry_after_s <= 5 * SERVICE_S  # not until a thousand sessions were served
    assert (world.queue.waiting, world.queue.under_way) == (0, 0)


def test_a_session_of_another_sender_is_not_the_robots_own() -> None:
    own, other = (
        Line("session:pick", known=True, sender=f"peer:{peer}") for peer in ("10.0.0.7", "10.0.0.66")
    )

    async def scene() -> tuple[Problem | None, list[Any]]:
        world = World(width=1, robot_waiting=2)
        many = [asyncio.create_task(world.request(other)) for _ in range(5)]
        await settled()
        one = asyncio.create_task(world.request(own))
        while await world.step():
            pass
        return await one, list(await asyncio.gather(*many))

    one, many = run(scene)
    assert one is None
    assert [answer.slug for answer in many if answer is not None] == ["robot_queue_full"] * 2


def test_sessions_of_one_sender_take_turns() -> None:
    """So does a fleet behind a balancer, whose requests all come from one address."""

    async def scene() -> list[str]:
        world = World(width=1)
        lines = [Line(name, known=True, sender="peer:lb") for name in ("a", "a", "a", "b", "c")]
        tasks = [asyncio.create_task(world.request(line)) for line in lines]
        while await world.step():
            pass
        await asyncio.gather(*tasks)
        return world.served

    assert run(scene) == ["a", "b", "c", "a", "a"]


def test_a_robot_with_a_key_is_served_beside_a_flood_of_sessions(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "WAITING_REQUESTS", 8)
    keys = {robot: fresh_key((ACT,), robot, 0.0, None, "") for robot in ("", "arm-1")}
    for _, entry in keys.values():
        add_key(tmp_path / "keys.jsonl", entry)
    server = serve("mono_pi0_7", keys_file=str(tmp_path / "keys.jsonl"))

    def answered_to(robot: str, **headers: str) -> Answer:
        body = json.dumps(good()).encode()
        return server.client.ask("POST", "/act", body, X_Reflex_Key=keys[robot][0], **headers)

    with busy(server.engine):
        flood = []
        for number in range(8):
            flood.append(Background(lambda number=number: answered_to("", X_Session_Id=f"made-up-{number}")))
            wait_for(lambda number=number: server.sidecar.waiting == number + 1)
        assert answered_to("", X_Session_Id="one-more").status == 503
        robot = Background(lambda: answered_to("arm-1"))
        wait_for(lambda: any(request.done for request in flood))  # one makes room
    assert robot.result().status == 200
    assert sorted(request.result().status for request in flood) == [200] * 7 + [503]


def test_retry_after_is_what_was_measured() -> None:
    async def scene() -> tuple[Problem, World]:
        world = World(width=1, robot_waiting=30)
        for _ in range(60):  # the running mean forgets its first guess
            task = asyncio.create_task(world.request(TWO))
            while await world.step():
                pass
            await task
        tasks = [asyncio.create_task(world.request(ONE)) for _ in range(31)]
        await settled()
        refused = await world.request(ONE)
        while await world.step():
            pass
        await asyncio.gather(*tasks)
        assert refused is not None
        return refused, world

    refused, world = run(scene)
    assert world.queue.pace_s == pytest.approx(SERVICE_S, rel=0.02)
    assert refused.more["retry_after_ms"] == pytest.approx(30 * SERVICE_S * 1e3, rel=0.02)
    assert refused.headers()["Retry-After"] in ("3", "4")


def test_a_request_that_would_be_late_is_refused_before_any_work() -> None:
    async def scene() -> tuple[list[Any], World]:
        world = World(width=1)
        world.queue.pace_s = world.queue.service_s = SERVICE_S
        tasks = [asyncio.create_task(world.request(ONE, world.now_s + 2.5 * SERVICE_S)) for _ in range(5)]
        while await world.step():
            pass
        return list(await asyncio.gather(*tasks)), world

    answers, world = run(scene)
    assert [answer and answer.slug for answer in answers] == [None, None] + ["deadline-unreachable"] * 3
    assert len(world.served) == 2
    assert all(answer.status == 503 for answer in answers if answer is not None)


def test_a_request_whose_deadline_passes_while_it_waits_is_not_begun() -> None:
    async def scene() -> tuple[Any, World]:
        world = World(width=1)
        world.queue.pace_s = world.queue.service_s = 0.01  # measured when the model was quick
        first = asyncio.create_task(world.request(ONE))
        second = asyncio.create_task(world.request(TWO, world.now_s + SERVICE_S / 2))
        while await world.step():
            pass
        await first
        return await second, world

    late, world = run(scene)
    assert late.slug == "deadline-unreachable"
    assert world.served == ["arm-1"]


def test_a_wrong_measurement_does_not_refuse_for_ever() -> None:
    async def scene() -> list[Any]:
        world = World(width=1)
        world.queue.pace_s = world.queue.service_s = 100.0  # one inference hung
        answers = []
        for _ in range(3):
            task = asyncio.create_task(world.request(ONE, world.now_s + 2 * SERVICE_S))
            while await world.step():
                pass
            answers.append(await task)
        return answers

    assert run(scene) == [None] * 3


def test_a_client_that_leaves_leaves_no_turn_behind() -> None:
    async def scene() -> World:
        world = World(width=1)
        tasks = [asyncio.create_task(world.request(line)) for line in (ONE, TWO, TWO)]
        await settled()
        tasks[1].cancel()
        tasks[2].cancel()
        await settled()
        assert world.queue.waiting == 0
        while await world.step():
            pass
        first = asyncio.create_task(world.request(ONE))
        await settled()
        granted = asyncio.create_task(world.queue.turn(ONE))
        await settled()
        _, turn, done = world.inferring.pop()
        turn.end(None)
        granted.cancel()  # as it gets its turn
        done.set_result(None)
        await first
        await settled()
        last = asyncio.create_task(world.request(TWO))
        while await world.step():
            pass
        await last
        return world

    world = run(scene)
    assert (world.queue.waiting, world.queue.under_way) == (0, 0)
    assert world.served == ["arm-1", "arm-2"]


@pytest.mark.parametrize(
    "heeds", [True, False], ids=["waits as long as the reply says", "tries again after 50 ms"]
)
def test_two_hundred_callers_get_nine_tenths_of_the_goodput_that_three_get(heeds: bool) -> None:
    seconds, deadline_s = 30.0, 0.35

    async def scene(callers: int) -> float:
        world, good = World(robot_waiting=8, most_waiting=64), [0]
        sleeping: list[tuple[float, asyncio.Future[None]]] = []

        async def caller(line: Line) -> None:
            while world.now_s < seconds:
                began_s = world.now_s
                refused = await world.request(line, began_s + deadline_s)
                if refused is None:
                    good[0] += world.now_s - began_s <= deadline_s + 1e-9
                    continue
                woken = asyncio.get_running_loop().create_future()
                pause_s = refused.more["retry_after_ms"] * 1e-3 if heeds else 0.05
                sleeping.append((world.now_s + pause_s, woken))
                await woken

        tasks = [asyncio.create_task(caller(Line(f"arm-{number}", known=True))) for number in range(callers)]
        while not all(task.done() for task in tasks):
            if not await world.step() and sleeping:
                world.now_s = max(world.now_s, min(until_s for until_s, _ in sleeping))
            for entry in [entry for entry in sleeping if entry[0] <= world.now_s]:
                sleeping.remove(entry)
                entry[1].set_result(None)
        return good[0] / seconds

    few, many = run(lambda: scene(3)), run(lambda: scene(200))
    assert few == pytest.approx(1 / SERVICE_S, rel=0.05)
    assert many >= 0.9 * few


# real sockets


def act(client: Client, session: str = "", deadline_ms: float | str = "", **fields: Any) -> Answer:
    headers = {"X-Session-Id": session} if session else {}
    headers |= {"X-Reflex-Deadline-Ms": str(deadline_ms)} if deadline_ms != "" else {}
    return client.ask("POST", "/act", json.dumps(good(**fields)).encode(), **headers)


def test_a_greedy_robot_does_not_stand_before_another(serve: Serve) -> None:
    server = serve("mono_pi0_7", max_waiting_per_robot=0)
    order: list[str] = []
    other_is_done = threading.Event()

    def listen(request: Request, _: Served) -> None:
        order.append(request.request_id)
        if request.request_id == "other":
            other_is_done.set()
        else:
            other_is_done.wait(PATIENCE_S)  # the greedy robot's next requests do not begin before

    server.engine.listen(listen)
    with busy(server.engine):
        many = []
        for number in range(12):
            many.append(
                Background(lambda number=number: act(server.client, "greedy", request_id=f"greedy-{number}"))
            )
            wait_for(lambda number=number: server.sidecar.waiting == number + 1)
        one = Background(lambda: act(server.client, "other", request_id="other"))
        wait_for(lambda: server.sidecar.waiting == 13)
        wait_for(lambda: at_the_policy(server.engine) == 3)  # two of the greedy one and the other
    assert one.result().status == 200
    assert all(request.result().status == 200 for request in many)
    assert order.index("other") <= 2, order


def test_clients_get_the_refusals_with_what_was_measured(serve: Serve) -> None:
    server = serve("mono_pi0_7", max_waiting_per_robot=1)
    with busy(server.engine):
        waiting = [Background(lambda: act(server.client, "arm-1")) for _ in range(3)]
        wait_for(lambda: server.sidecar.waiting == 3)
        refused = act(server.client, "arm-1")
        late = act(server.client, "arm-2", deadline_ms=0.001)
        odd = act(server.client, "arm-2", deadline_ms="1_000")
    assert (refused.status, refused.json["error"]) == (429, "robot_queue_full")
    assert refused.json["retry_after_ms"] > 0
    assert int(refused.headers["retry-after"]) >= 1
    assert (late.status, late.json["error"]) == (503, "deadline-unreachable")
    assert (odd.status, odd.json["error"]) == (400, "bad-deadline")
    assert [request.result().status for request in waiting] == [200] * 3
    assert act(server.client, "arm-1", deadline_ms=60_000).status == 200
    text = server.client.get("/metrics").body.decode()
    for slug in ("robot_queue_full", "deadline-unreachable"):
        assert f'reflex_act_errors_total{{slug="{slug}"}} 1.0' in text


@pytest.mark.parametrize(
    "text",
    ["1_000", "1e3", "+5", "-5", "0", "0.0", ".5", "5.5.5", "5,5", "0x10", "nan", "inf", "infinity", "1 000", "", "600000.1",
     "9" * 400],
)  # fmt: skip
def test_only_decimal_digits_with_one_dot_are_a_deadline(text: str) -> None:
    with pytest.raises(DeadlineError, match="must be a decimal number of milliseconds from 0 to 600000, got"):
        deadline_of(made_request(text), 0)


def test_digits_of_another_script_are_no_deadline() -> None:
    with pytest.raises(DeadlineError):
        deadline_of(made_request("\uff11\u0660"), 0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1000", 1.0), ("250.5", 0.2505), ("5.", 0.005), ("0600000", 600.0)]
)
def test_a_deadline_is_counted_from_the_receipt(text: str, seconds: float) -> None:
    assert deadline_of(made_request(text), 2_000_000_000) == pytest.approx(2.0 + seconds)


def made_request(deadline: str) -> web.Request:
    return make_mocked_request("POST", "/act", {"X-Reflex-Deadline-Ms": deadline})


def test_two_deadlines_are_none(serve: Serve) -> None:
    """A proxy may have added the second: neither is believed."""
    server, body = serve("mono_pi0_7"), json.dumps(good()).encode()
    head = [
        "POST /act HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}",
        "X-Reflex-Deadline-Ms: 5000", "X-Reflex-Deadline-Ms: nan",
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", server.sidecar.port), timeout=PATIENCE_S) as client:
        client.sendall("\r\n".join([*head, "", ""]).encode() + body)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"bad-deadline"' in answer


def test_clients_of_the_gr00t_port_push_no_other_robot_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "WAITING_REQUESTS", 6)
    server = serve("mono_pi0_7", groot_port=0)
    port = server.sidecar.groot_port
    clients = [GrootClient(port, name=b"made-up-%d" % number) for number in range(6)]
    try:
        with busy(server.engine):
            for client in clients:
                client.send({"endpoint": "get_action", "data": {"observation": nested(), "options": None}})
            wait_for(lambda: server.sidecar.waiting == 6)
            robot = Background(lambda: act(server.client, "arm-1"))
            wait_for(lambda: "queue_full" in server.client.get("/metrics").body.decode())
        assert robot.result().status == 200
    finally:
        for client in clients:
            client.close()
