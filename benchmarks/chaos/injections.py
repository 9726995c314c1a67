# SPDX-License-Identifier: Apache-2.0
"""The faults: each one function that begins it, lets it last, ends it, and returns what was seen meanwhile."""

from __future__ import annotations

import json
import random
import resource
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from benchmarks.chaos.judge import ERROR, refusal
from benchmarks.chaos.ledger import LOST, audit
from benchmarks.chaos.policy_files import HANG, NAN, RAISE, SLOW
from benchmarks.chaos.robots import Robot, until
from benchmarks.chaos.scene import GOOD, LIE, Scene, lying_server
from benchmarks.chaos.supervised import CONNECTION, Server

DISK_BACK_S = 20.0  # the recorder tries again every 5 s
MANY = 12
SICK_S = 8.0
HALF_HEAD = b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
AWAY = (CONNECTION, "not-ready", "deadline-exceeded", "server-degraded")
DEGRADED = ("server-degraded", "deadline-exceeded", "inference-error", "queue_full", "non-finite-actions")
HOSTILE: Sequence[bytes] = (
    b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe{\x00}\x00", b"[" * 50_000, b"{}" * 1000, b'{"state": "NaN"}',
    b'{"image": "AAAA", "instruction": "x", "state": [1e400, 0, 0]}', b'{"images": {"camera": {"data": "AA=="}}}',
    b'{"instruction": "\\u001b[2J\\r\\nSet-Cookie: x", "state": [0], "robot_id": "ros"}', b"\x1f\x8b\x08\x00" + b"\0" * 30,
    b'{"state": [NaN, Infinity]}', b'{"seed": -99999999999999999999}', b'{"image": 7, "state": {"a": [[[]]]}}',
)  # fmt: skip
NOT_HTTP: Sequence[bytes] = (
    b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 200, b"POST /act HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"A" * 20_000 + b"\r\n\r\n",
)  # fmt: skip

Inject = Callable[[Scene, Server, random.Random], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. where: the servers that it is injected into."""

    name: str
    inject: Inject
    where: tuple[str, ...]


def sick_robot(band: str, most: int) -> Inject:
    """Return the fault of a robot whose observations make the model sick, for up to so many requests."""

    def inject(scene: Scene, server: Server, draw: random.Random) -> str:
        robot = draw.choice([each for each in scene.of(server) if each.wire != "lerobot"])
        with server.excusing(*DEGRADED, after_s=5.0):
            sent = sick_for(robot, band, draw.randint(2, most))
        return f"{sent} requests, {reset_guard(server)} guards reset"

    return inject


def sick_for(robot: Robot, band: str, count: int) -> int:
    """Let a robot be sick for so many requests, or for as long as is waited for them; return how many it was."""
    before = robot._number
    with robot.sick(band):
        until(lambda: robot._number >= before + count, SICK_S)
    return robot._number - before


def wild_robot(scene: Scene, server: Server, draw: random.Random) -> str:
    """Put a robot where the guard changes each chunk, until it trips, and reset it."""
    robot = draw.choice([each for each in scene.of(server) if each.wire in ("json", "raw", "msgpack")])
    sick_for(robot, "wild", 16)
    return f"{reset_guard(server)} guards reset"


def reset_guard(server: Server) -> int:
    """Do what a person does for each caller whose guard has tripped; return how many there were."""
    time.sleep(0.2)
    with suppress(OSError, ValueError), urlopen(f"{server.url}/guard/status", timeout=10) as answer:
        callers = json.load(answer)["tripped_callers"]
        for caller in callers:
            post(server, "/guard/reset", {"caller": caller})
        return len(callers)
    return 0


def kill(scene: Scene, server: Server, _draw: random.Random) -> str:
    """Kill -9, begin again."""
    return replaced(scene, server, server.kill)


def roll(scene: Scene, server: Server, _draw: random.Random) -> str:
    """SIGTERM, begin again."""
    return replaced(scene, server, server.end)


def replaced(scene: Scene, server: Server, ending: Callable[[], object]) -> str:
    """End a server's life, audit it, begin the next."""
    with server.excusing(*AWAY):
        life = server.life
        ending()
        time.sleep(0.3)  # robots note that it is gone, and what they had is in the answers
        answers = len(life.answers)
        scene.run.audited += answers
        server.start()
        for kind, text in audit(life):
            scene.run.violate(kind, text, server.name)
    return f"{answers} answers audited"


def pause(_scene: Scene, server: Server, draw: random.Random) -> str:
    """Stop the whole process for a while, as a suspended or starved machine does."""
    with server.excusing(*AWAY, after_s=3.0):
        server.life.process.send_signal(signal.SIGSTOP)
        seconds = draw.uniform(0.2, 1.5)
        time.sleep(seconds)
        server.life.process.send_signal(signal.SIGCONT)
    return f"{seconds:.1f} s"


def disk_full(scene: Scene, server: Server, draw: random.Random) -> str:
    """ENOSPC: fill the file system that it records on."""
    ballast = fill(server.records)
    time.sleep(draw.uniform(1.5, 3.0))
    ballast.unlink()
    return recording_again(scene, server)


def read_only(scene: Scene, server: Server, draw: random.Random) -> str:
    """EROFS: no file can be open for writing then, so the disk is full first."""
    ballast = fill(server.records)
    end_s = time.monotonic() + 5.0
    while not remount(server.records, "ro") and time.monotonic() < end_s:
        time.sleep(0.1)
    time.sleep(draw.uniform(1.0, 6.0))
    remount(server.records, "rw")
    ballast.unlink()
    return recording_again(scene, server)


def fill(folder: Path) -> Path:
    """Fill a file system; return the file that does."""
    path = folder / "ballast"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * (1 << 20))
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0" * 512)
    return path


def remount(folder: Path, how: str) -> bool:
    """Make a file system read-only or writable again; False while a file on it is open for writing."""
    command = ["mount", "-o", f"remount,{how}", str(folder.parent)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def recording_again(scene: Scene, server: Server) -> str:
    """Wait until bytes reach the disk again."""
    before = size_of(server.life.records)
    took_s = until(lambda: size_of(server.life.records) != before, DISK_BACK_S)
    if took_s is None:
        scene.run.violate(
            LOST, f"nothing is recorded {DISK_BACK_S:.0f} s after the disk was there again", server.name
        )
        return "never recorded again"
    return f"recording after {took_s:.1f} s"


def size_of(folder: Path) -> int:
    """Return the bytes in a folder."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0


def no_descriptors(_scene: Scene, server: Server, draw: random.Random) -> str:
    """EMFILE: no more descriptors than are open now."""
    pid = server.life.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
    strangers: list[socket.socket] = []
    with server.excusing(*AWAY, "too-many-connections"):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened, hard))
        try:
            for _ in range(MANY):
                with suppress(OSError):
                    strangers.append(socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=1))
            time.sleep(draw.uniform(0.5, 2.0))
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            for each in strangers:
                each.close()
    return f"{opened} descriptors"


def slowloris(_scene: Scene, server: Server, draw: random.Random) -> str:
    """Connections whose head, or body, comes a byte at a time and never ends."""
    starts = [HALF_HEAD, HALF_HEAD + b'Content-Length: 5000\r\n\r\n{"state": ['] * (MANY // 2)
    with ExitStack() as stack:
        held = [stack.enter_context(connection(server)) for _ in range(MANY)]
        for number, each in enumerate(held):
            each.sendall(starts[number % len(starts)])
        end_s = time.monotonic() + draw.uniform(0.5, 2.0)
        while time.monotonic() < end_s:
            for each in held:
                with suppress(OSError):
                    each.sendall(b" ")
            time.sleep(0.1)
    return f"{MANY} connections"


def vanish(_scene: Scene, server: Server, draw: random.Random) -> str:
    """Clients that reset the connection within a body, or while their answer is made."""
    body = act_body(server, draw)
    whole = HALF_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for number in range(MANY):
        each = connection(server)
        each.sendall(whole if number % 2 else whole[: draw.randrange(len(HALF_HEAD), len(whole))])
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.close()
    return f"{MANY} clients"


def garbage(scene: Scene, server: Server, draw: random.Random) -> str:
    """Bodies that are no request, and bytes that are no HTTP: each has a refusal of ours, or its connection ends."""
    seen: list[int] = []
    for body in draw.sample(HOSTILE, 6):
        status, answer = post_bytes(server, "/act", body)
        seen.append(status)
        problems = refusal(status, answer, (), healthy=False) if status != 200 else []
        if status >= 500 and (not isinstance(answer, dict) or answer.get("error") not in DEGRADED):
            problems = [(ERROR, f"{status} for a body that is no request: {body[:60]!r}")]
        for kind, text in problems:
            scene.run.violate(kind, text, server.name)
    for data in draw.sample(NOT_HTTP, 3):
        with connection(server) as each, suppress(OSError):
            each.sendall(data)
            each.settimeout(2.0)
            each.recv(1 << 16)
    return f"statuses {sorted(set(seen))}"


def lying_cloud(scene: Scene, server: Server, draw: random.Random) -> str:
    """The fallback answers nonsense while the model here fails."""
    lie = draw.choice([name for name in lying_server.LIES if name not in (GOOD, LIE)])
    scene.cloud.lie = lie
    try:
        sick_robot(RAISE, 12)(scene, server, draw)
    finally:
        scene.cloud.lie = GOOD
    return lie


def dying_model(scene: Scene, server: Server, draw: random.Random) -> str:
    """The model raises while the cloud is well: its chunk stands in."""
    return sick_robot(RAISE, 12)(scene, server, draw)


def swap_slots(scene: Scene, server: Server, draw: random.Random) -> str:
    """Split, promote, roll back and report outcomes under load."""
    seen = []
    for _ in range(4):
        change: dict[str, object] = draw.choice([
            {"split": draw.randrange(101)}, {"promote": draw.choice("ab")}, {"rollback": True},
        ])  # fmt: skip
        status, answer = post(server, "/policies", change | {"reason": "chaos"})
        if status not in (200, 409):
            scene.run.violate(ERROR, f"POST /policies {change}: {status} {answer}", server.name)
        seen.append(f"{next(iter(change))} {status}")
        post(server, f"/episodes/e{draw.randrange(100)}/outcome", {"success": draw.random() < 0.5})
        time.sleep(0.1)
    return ", ".join(seen)


def connection(server: Server) -> socket.socket:
    """Return a new connection."""
    return socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=10)


def post(server: Server, path: str, fields: object) -> tuple[int, object]:
    """Return status and document of the answer."""
    return post_bytes(server, path, json.dumps(fields).encode())


def post_bytes(server: Server, path: str, body: bytes) -> tuple[int, object]:
    """Return status and document of the answer; 0 where there is none."""
    request = Request(server.url + path, body, {"Content-Type": "application/json"})
    try:
        try:
            answer = urlopen(request, timeout=20)
        except HTTPError as error:
            answer = error
        with answer:
            data = answer.read()
            return int(answer.status or 0), json.loads(data)
    except (URLError, OSError, ValueError) as error:
        return 0, {"error": str(error), "message": "", "request_id": ""}


def act_body(server: Server, draw: random.Random) -> bytes:
    """Return a body that would be answered."""
    from benchmarks.chaos.truth import catalogue

    sight = draw.choice(catalogue(server.arm, 0))
    return json.dumps({
        "instruction": sight.instruction, "state": sight.state, "images": {"camera": sight.jpeg_text}, "robot_id": "passer-by",
    }).encode()  # fmt: skip


EVERYWHERE = ("pair", "edge", "so100", "node")
BANDS = {
    "model NaN": (NAN, 14), "model exception": (RAISE, 12), "model slow": (SLOW, 10), "model hang": (HANG, 6),
}  # fmt: skip
HTTP_KINDS = (
    *(Kind(name, sick_robot(*how), EVERYWHERE) for name, how in BANDS.items()),
    Kind("guard trip", wild_robot, ("pair", "edge", "so100")),
    Kind("kill -9 server", kill, ("edge", "so100", "node")),
    Kind("rolling restart", roll, ("edge", "so100")),
    Kind("process paused", pause, ("pair", "edge", "so100")),
    Kind("EMFILE", no_descriptors, EVERYWHERE),
    Kind("slow clients", slowloris, EVERYWHERE),
    Kind("vanished clients", vanish, EVERYWHERE),
    Kind("garbage", garbage, EVERYWHERE),
    Kind("lying cloud", lying_cloud, ("edge",)),
    Kind("cloud stands in", dying_model, ("edge",)),
    Kind("slot swap", swap_slots, ("pair",)),
)
DISK_KINDS = (Kind("ENOSPC", disk_full, ("so100",)), Kind("read-only", read_only, ("so100",)))


def healthy(robots: Sequence[Robot]) -> list[Robot]:
    """Return the robots that nothing is aimed at now."""
    return [robot for robot in robots if not robot._sick]
