# SPDX-License-Identifier: Apache-2.0
"""The camera image in the pictures of the page: the embedded picking policy on its way to the cube, as its camera sees it.

    python -m benchmarks.page_camera

Writes benchmarks/page_camera.jpg and prints the instruction and the joints to copy into `benchmarks.page_states`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import simplejpeg

from reflex_core.engine.engine import Engine
from reflex_core.files.share import PICK, embedded_policy
from reflex_core.settings.table import Settings
from reflex_core.values import Frame, Observation
from reflex_ros.demo.pick_task import PickTask

CAMERA = Path(__file__).with_name("page_camera.jpg")
SEED, SIZE = 7, 320
ROWS, ROW_S = 12, 0.05  # of the chunk; the arm is above the cube then


def main() -> None:
    """Execute the first rows of a chunk, then draw."""
    engine = Engine(Settings(export_dir=str(embedded_policy(PICK))))
    engine.load()
    engine.warm_up()
    try:
        task = PickTask()
        with contextlib.closing(task.arm):
            instruction = task.reset(SEED)
            frame = Frame(simplejpeg.encode_jpeg(task.arm.image(), quality=90, colorspace="RGB"), "jpeg")
            observation = Observation({"camera": frame}, task.state[0].astype(np.float32), instruction)
            rows = engine.act(engine.request(observation, seed=SEED)).chunk.actions[:ROWS]
            for row in rows:
                task.gripper.set(row[7:])
                task.step(row[:7], ROW_S)
            picture = task.arm.image("policy", SIZE, SIZE)
            CAMERA.write_bytes(simplejpeg.encode_jpeg(picture, quality=90, colorspace="RGB"))
            print(f"wrote {CAMERA.name}: {instruction}, {np.round(task.state[0], 3).tolist()}")
    finally:
        engine.unload()


if __name__ == "__main__":
    main()
