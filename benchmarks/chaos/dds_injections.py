# SPDX-License-Identifier: Apache-2.0
"""Faults between the simulated arm and the node: DDS loss, stamps that step, sensors that lie, the arm's process killed."""

from __future__ import annotations

import random
import time

from benchmarks.chaos.injections import Inject, Kind, reset_guard
from benchmarks.chaos.policy_files import HANG, NAN, RAISE
from benchmarks.chaos.scene import Scene
from benchmarks.chaos.supervised import Server

JUDGED_S = 0.5  # by then the last chunk of the fault has been judged
STEPS_S = (-3600.0, -30.0, -1.5, 1.5, 30.0, 3600.0)


def told(before: dict[str, object], after: dict[str, object], low_s: float, high_s: float) -> Inject:
    """Return a fault that the arm's process makes itself; ten chunks of it in a row trip the guard, and a person resets that."""

    def inject(scene: Scene, server: Server, draw: random.Random) -> str:
        assert scene.ros is not None
        chunks = scene.ros.chunks.copy()
        scene.ros.tell(**before)
        time.sleep(draw.uniform(low_s, high_s))
        scene.ros.tell(**after)
        time.sleep(JUDGED_S)
        return f"{changed(scene, chunks)}, {reset_guard(server)} guards reset"

    return inject


def stepped_stamps(scene: Scene, server: Server, draw: random.Random) -> str:
    """Stamps of camera and joints that leap; the clock of the process itself cannot be set here."""
    step_s = draw.choice(STEPS_S)
    told({"shift_s": step_s}, {"shift_s": 0.0}, 0.5, 1.5)(scene, server, draw)
    return f"{step_s:+g} s"


def killed_arm(scene: Scene, _server: Server, draw: random.Random) -> str:
    """Kill -9 of the arm's process, and a new one some time later."""
    assert scene.ros is not None
    scene.ros.kill()
    time.sleep(draw.uniform(0.2, 2.0))
    scene.ros.start()
    return "begun again"


def changed(scene: Scene, before: dict[str, int]) -> str:
    """Return which chunks came since then."""
    assert scene.ros is not None
    since = {name: count - before.get(name, 0) for name, count in scene.ros.chunks.items()}
    return ", ".join(f"{count} {name}" for name, count in sorted(since.items()) if count) or "no chunk"


NODE = ("node",)
DDS_KINDS = (
    Kind("DDS loss", told({"loss": 0.7}, {"loss": 0.0}, 0.5, 2.0), NODE),
    Kind("DDS reorder", told({"late": 0.4}, {"late": 0.0}, 0.5, 2.0), NODE),
    Kind("clock steps (stamps)", stepped_stamps, NODE),
    Kind("joint NaN", told({"nan": True}, {"nan": False}, 0.2, 1.0), NODE),
    Kind("camera gone", told({"camera_on": False}, {"camera_on": True}, 0.5, 2.0), NODE),
    Kind("model NaN, node", told({"sick": NAN}, {"sick": ""}, 0.3, 1.0), NODE),
    Kind("model exception, node", told({"sick": RAISE}, {"sick": ""}, 0.3, 1.0), NODE),
    Kind("model hang, node", told({"sick": HANG}, {"sick": ""}, 0.3, 1.0), NODE),
    Kind("kill -9 robot", killed_arm, NODE),
)
