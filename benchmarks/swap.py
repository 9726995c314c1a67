# SPDX-License-Identifier: Apache-2.0
"""Promote and roll back a warm slot over HTTP, under load: from the POST to the first answer of the other policy.

Two clients ask all the time; a third changes who answers and then asks with a new episode until the other slot answers.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Sequence

import orjson

from benchmarks.exports import embedded
from benchmarks.measure import finish, parser, percentiles, table
from benchmarks.server import Client, post_act, served

HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]
_episodes = itertools.count()


def post(path: str, document: object) -> bytes:
    """A POST of a small JSON document."""
    body = orjson.dumps(document)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def asking(request: bytes) -> bytes:
    """The same request in an episode of its own."""
    head, _, body = request.partition(b"\r\n\r\n")
    document = orjson.loads(body) | {"episode_id": f"swap-{next(_episodes)}"}
    return post("/act", document)


def changed_ms(client: Client, change: dict[str, object], slot: str, request: bytes) -> tuple[float, float]:
    """(the POST alone, until a new episode is answered by the slot), in ms."""
    began = time.perf_counter()
    answer = client.ask(post("/policies", change))
    if answer.status != 200:
        raise RuntimeError(f"{change} was refused: {answer.body.decode()[:300]}")
    while orjson.loads(client.ask(asking(request)).body)["policy_slot"] != slot:
        pass
    return answer.duration_ms, (time.perf_counter() - began) * 1e3


def load(port: int, request: bytes, stop: threading.Event) -> None:
    """Ask until told to stop."""
    client = Client(port)
    while not stop.is_set():
        client.ask(asking(request))
    client.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table; times in ms."""
    options = parser(__doc__ or "")
    options.add_argument("--changes", type=int, default=40, help="promotions and rollbacks each (default 40)")
    arguments = options.parse_args(argv)
    measured = embedded()
    path = str(measured.path)
    flags = ["--policy-a", path, "--policy-b", path, "--split", "100", "--no-rtc"]
    request = post_act("camera", HOME, 224, 224, "jpeg")
    stop = threading.Event()
    found: dict[str, list[tuple[float, float]]] = {"promote": [], "rollback": []}
    with served(measured, flags=flags) as port:
        threads = [threading.Thread(target=load, args=(port, request, stop)) for _ in range(2)]
        for thread in threads:
            thread.start()
        client = Client(port)
        for _ in range(arguments.changes):
            found["promote"].append(changed_ms(client, {"promote": "b"}, "b", request))
            found["rollback"].append(changed_ms(client, {"rollback": True}, "a", request))
        stop.set()
        for thread in threads:
            thread.join()
    rows: list[dict[str, object]] = []
    for kind, pairs in found.items():
        posts, answers = ([pair[place] for pair in pairs] for place in (0, 1))
        rows.append({
            "change": kind, "times": len(pairs), "POST p50": percentiles(posts)[0], "first answer p50": percentiles(answers)[0],
            "first answer max": max(answers),
        })  # fmt: skip
    print(table(rows))
    finish("swap", {"changes": rows}, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
