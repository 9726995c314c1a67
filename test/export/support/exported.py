# SPDX-License-Identifier: Apache-2.0
"""What `reflex export` makes of a small checkpoint, a server of it, and what that answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from checkpoints import Made
from http_client import Client, text
from numpy.typing import NDArray
from raw_observations import RawObservation
from servers import Server

from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from
from reflex_ros.sidecar.server import Sidecar

REFLEX = Path(__file__).with_name("tiny_reflex.py")
VERIFIED = 0
# as wide as an embodiment may be: what is compared is the policy, not the guard
RANGE, FASTEST = [-25.0, 25.0], 10.0


def export(made: Made, out: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    known = {"--tokenizer": made.tokenizer, "--vlm": made.vlm, "--dataset": made.dataset}
    given = [word for name, value in known.items() if value is not None for word in (name, value)]
    command = [sys.executable, REFLEX, "export", made.folder, out, *given, "--units", "radians", *words]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=900)


def verified(made: Made, out: Path, *words: object) -> Path:
    """Return an export that was verified, with its embodiment filled in; fails with what the command printed."""
    done = export(made, out, *words)
    assert done.returncode == VERIFIED, done.stdout + done.stderr
    fill(out)
    return out


def fill(folder: Path) -> None:
    """Answer what the embodiment's skeleton asks for. No joint is called a gripper: that one cannot be left without a limit."""
    file = folder / "embodiment.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document.pop("gripper", None)
    document["action_space"]["ranges"] = [RANGE for _ in document["action_space"]["ranges"]]
    document["velocity_max"] = [None for _ in document["velocity_max"]]
    document["constraints"] = {"max_ee_velocity": FASTEST, "collision_check": False}
    file.write_text(json.dumps(document), encoding="utf-8")


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Server]:
    """Serve an export on a free port."""
    given = {"export_dir": str(folder), "device": "cpu", "intra_op_threads": 1, "port": 0} | settings
    engine = Engine(settings_from(given))
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    try:
        yield Server(engine, sidecar, Client(sidecar.port))
    finally:
        sidecar.stop()
        engine.unload()


def actions_of(server: Server, seen: RawObservation, seed: int, **fields: Any) -> NDArray[np.float64]:
    """Ask over HTTP, with PNG pictures as a program sends them, and return the (rows, n) actions of the answer."""
    answer = server.client.act(sent(seen) | {"instruction": seen.task, "seed": seed} | fields)
    assert answer.status == 200, answer.body
    assert not answer.json["guard_clamped"], answer.json["guard_violations"]
    return np.asarray(answer.json["actions"])


def sent(seen: RawObservation) -> dict[str, Any]:
    """What a request says of an observation, and an entry of its `history` of an earlier one."""
    first, *others = seen.pictures
    pictures = {"image": first} | {f"image_{camera}": camera for camera in others}
    document: dict[str, Any] = {name: _png(seen.pictures[camera]) for name, camera in pictures.items()}
    return document | {"state": seen.state.tolist()}


def _png(picture: NDArray[np.uint8]) -> str:
    return text(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
