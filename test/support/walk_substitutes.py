# SPDX-License-Identifier: Apache-2.0
"""What a reader brings along and this machine has not: each name in the pages with its substitute, in one table."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from foreign_export import foreign_export
from urdfs import urdf

from reflex_core.files.share import embedded_policy

REACH = "models/reach_panda"

# a page of its own, which leaves a trace of two requests with images
RECORDED = """
```bash
reflex serve models/reach_panda --no-ros --record given --record-images full
```
```bash
for grey in 140 170; do
  pixels=$(head -c 150528 /dev/zero | tr '\\000' "\\\\$grey" | base64 -w0)
  echo '{"images": {"camera": {"data": "'$pixels'", "encoding": "rgb8", "height": 224, "width": 224}},
    "state": [0, 0.2, 0, -2.4, 0, 2.6, 0.8], "instruction": "reach the red block", "episode_id": "given"}' >request.json
  curl -o reply.json localhost:8000/act -d @request.json
done
rm request.json reply.json
```
Ctrl-C:
```bash
mkdir -p traces
cp given/*.jsonl.gz grasp.jsonl.gz
mv given/*.jsonl.gz traces/
```
"""


@dataclass(frozen=True, slots=True)
class Substitute:
    """What takes the place of something that a page names.

    word: as the page prints it. replacement: what is run instead; empty: the word itself, which `make` or `walk` made.
    walk: text of a page that is walked before.
    """

    word: str
    replacement: str = ""
    walk: str = ""


SUBSTITUTES = (
    Substitute("/path/to/export", REACH),
    Substitute("EXPORT", "export"),
    Substitute("FOLDER", "seen"),
    Substitute("SEEN", "seen"),
    Substitute("MOVED", "moved"),
    Substitute("my_export"),
    Substitute("my_robot.json"),
    Substitute("my_robot.yaml"),
    Substitute("robot.urdf"),
    Substitute("robot_limits.json"),
    Substitute("./v1"),
    Substitute("other/"),
    Substitute("grasp.jsonl.gz", walk=RECORDED),
    Substitute("traces/", walk=RECORDED),
)


def make(word: str, folder: Path) -> None:
    """Put what takes the place of a word into the folder of the reader."""
    if word == "robot.urdf":
        urdf(folder).rename(folder / word)
    elif word == "robot_limits.json":
        names = [f"panda_joint{number}" for number in range(1, 8)]
        (folder / word).write_text(
            f'{{"joint_names": {names}, "velocity_max": {[1.0] * 7}}}'.replace("'", '"')
        )
    elif word == "my_robot.json":
        shutil.copy(embedded_policy() / "embodiment.json", folder / word)
    elif word == "my_robot.yaml":
        (folder / word).write_text(f"export_dir: {REACH}\ndeadline_ms: 200\n")
    elif word == "other/":
        foreign_export(folder / "other")
    elif word in ("EXPORT", "my_export", "./v1"):
        for name in {"EXPORT": ["export"], "my_export": ["my_export"], "./v1": ["v1", "v2"]}[word]:
            shutil.copytree(embedded_policy(), folder / name, dirs_exist_ok=True)
        if word == "EXPORT":  # a manifest that is there is not replaced
            for name in ("VERIFICATION.md", "parity.npz"):
                (folder / "export" / name).unlink()
    elif word in ("FOLDER", "SEEN", "MOVED"):
        observations(folder / ("moved" if word == "MOVED" else "seen"), column=66 if word == "MOVED" else 60)


def observations(folder: Path, *, column: int) -> None:
    """Write three observations of one scene, with a red block that begins at a column."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0)
    for name in ("desk-1", "desk-2", "desk-3"):
        image = noise.integers(120, 130, (224, 224, 3)).astype(np.uint8)
        image[90:120, column : column + 30] = 0, 0, 200
        cv2.imwrite(str(folder / f"{name}.png"), image)
        (folder / f"{name}.json").write_text(
            '{"instruction": "reach the red block", "state": [0, 0.2, 0, -2.4, 0, 2.6, 0.8],'
            f' "images": {{"camera": "{name}.png"}}}}'
        )
