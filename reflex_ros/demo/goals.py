# SPDX-License-Identifier: Apache-2.0
"""The demo's two goals: to pick a cube up, and to reach a block. What they differ in, for table, pictures and processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reflex_core.files.share import DEMO, PICK
from reflex_ros.demo.pick_scene import PICK_JOINT_NAMES, make_pick_scene
from reflex_ros.demo.scene import JOINT_NAMES, make_scene


@dataclass(frozen=True)
class Goal:
    """One of the demo's goals.

    export: the embedded policy that has it. done: the word of success. thing: what the instruction names.
    measure: heading of the column with the distance or height in cm; of: how a caption words it, from cm.
    joints: the columns of an action chunk. instruction: of the scene of a seed; example: one that may be sent by hand.
    settles: whether the arm must come to rest for an episode to end. limit_s: how
    long it may take. crop: rows and columns of a 640x480 view that are shown.
    """

    name: str
    export: str
    done: str
    thing: str
    measure: str
    of: Callable[[float], str]
    joints: tuple[str, ...]
    instruction: Callable[[int], str]
    example: str
    first_seed: int
    settles: bool
    limit_s: float
    crop: tuple[slice, slice]

    def verdict(self, succeeded: bool) -> str:
        """Return `picked up` or `not picked up`."""
        return self.done if succeeded else f"not {self.done}"


PICK_UP = Goal(
    name="pick", export=PICK, done="picked up", thing="cube", measure="height", of=lambda cm: f"{max(cm, 0.0):.0f} cm up",
    joints=PICK_JOINT_NAMES, instruction=lambda seed: make_pick_scene(seed).instruction, example="pick up the red cube",
    first_seed=9015, settles=False, limit_s=10.0, crop=(slice(0, 480), slice(90, 570)),
)  # fmt: skip
REACH = Goal(
    name="reach", export=DEMO, done="reached", thing="block", measure="distance", of=lambda cm: f"{cm:.1f} cm to go",
    joints=JOINT_NAMES, instruction=lambda seed: make_scene(seed).instruction, example="reach the red block",
    first_seed=9015, settles=True, limit_s=6.0, crop=(slice(40, 400), slice(215, 555)),
)  # fmt: skip
GOALS = {goal.name: goal for goal in (PICK_UP, REACH)}
