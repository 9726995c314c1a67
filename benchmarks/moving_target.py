# SPDX-License-Identifier: Apache-2.0
"""The simulated arm and a block that moves, in simulated time: nothing here looks at a clock of the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reflex_core.values import Floats, Observation
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.observations import look
from reflex_ros.demo.scene import BLOCK_AREA_M, BLOCK_SPACING_M, Scene, distances_m

Doubles = NDArray[np.float64]

DIRECTIONS_TRIED = 64
BEGIN_NS = 1_000_000_000  # a stamp of 0 would mean "unknown"
AFTER_THE_STEP_NS = 1_000  # an answer is there just after a row begins, never in the same nanosecond


def straight_path(scene: Scene, steps: int, metres_per_step: float) -> Doubles:
    """(steps + 1, 2) metres: the named block goes straight on and is reflected at the edges of the table.

    Of many directions it takes the first in which it does not come too near to another block, else the best of them.
    """
    others = np.array(
        [[block.x_m, block.y_m] for block in scene.blocks if block.colour != scene.target_colour]
    )
    generator, best, widest_m = np.random.default_rng((scene.seed, 7)), np.empty((0, 2)), -1.0
    for _ in range(DIRECTIONS_TRIED):
        path = _reflected(scene, steps, metres_per_step, generator.uniform(0, 2 * np.pi))
        spacing_m = float(np.linalg.norm(path[:, None] - others, axis=-1).min())
        if spacing_m > widest_m:
            best, widest_m = path, spacing_m
        if widest_m > BLOCK_SPACING_M:
            break
    return best


def _reflected(scene: Scene, steps: int, metres_per_step: float, angle: float) -> Doubles:
    low, high = np.transpose(BLOCK_AREA_M)
    block = scene.blocks[scene.target_index]
    way = np.arange(steps + 1)[:, None] * metres_per_step * np.array([np.cos(angle), np.sin(angle)])
    folded = np.mod(np.array([block.x_m, block.y_m]) + way - low, 2 * (high - low))
    return np.asarray(low + np.minimum(folded, 2 * (high - low) - folded))


@dataclass(slots=True)
class Followed:
    """What the robot plays. zero_step: the control step in which row 0 is, or would have been, its command."""

    actions: Floats
    zero_step: int


class World:
    """One episode: an arm that plays rows, one per control step, and the block that goes its way meanwhile."""

    def __init__(
        self, arm: Arm, scene: Scene, path_m: Doubles, period_s: float, camera: str,
        streamed: Callable[[World], list[Doubles]] | None = None,
    ) -> None:  # fmt: skip
        """path_m: (steps + 1, 2), where the named block is before each step and at the end.

        streamed: returns what is sent during the present control step, in equal times; None: the row of `followed`.
        """
        self.step = 0
        self._streamed = streamed
        self.followed: Followed | None = None
        self.commands: list[Floats] = []
        self.distances_m: list[float] = []
        self._arm, self._scene, self._path_m = arm, scene, path_m
        self._period_s, self._camera = period_s, camera
        arm.reset(self._now())
        self._rest = arm.joint_positions_rad.astype(np.float32)

    @property
    def over(self) -> bool:
        return self.step >= len(self._path_m) - 1

    def stamp_ns(self) -> int:
        """The robot's clock at the beginning of the present control step."""
        return BEGIN_NS + round(self.step * self._period_s * 1e9)

    def clock_ns(self) -> int:
        """What a monotonic clock would say now."""
        return self.stamp_ns() + AFTER_THE_STEP_NS

    def look(self) -> Observation:
        """What the camera sees and the joints feel now."""
        return replace(look(self._arm, self._scene, self._camera), stamp_ns=self.stamp_ns())

    def command(self) -> Floats:
        """(7,) rad: what the robot was told last."""
        return self.commands[-1] if self.commands else self._rest

    def run(self, steps: int) -> None:
        """Let control steps pass; the last row is kept when a chunk is spent."""
        for _ in range(steps):
            if self.over:
                return
            self._advance()

    def _advance(self) -> None:
        sent = self._sent()
        self.step += 1
        self._arm.place_blocks(self._now())
        for command in sent:
            self._arm.step(command, self._period_s / len(sent))
        self.commands.append(sent[-1].astype(np.float32))
        self.distances_m.append(
            float(distances_m(self._now(), self._arm.end_effector_m)[self._scene.target_index])
        )

    def _sent(self) -> Sequence[Floats | Doubles]:
        if self._streamed is None:
            return [self._row()]
        return self._streamed(self) or [self.command()]

    def _row(self) -> Floats:
        if self.followed is None:
            return self._rest
        actions = self.followed.actions
        row: Floats = actions[min(self.step - self.followed.zero_step, len(actions) - 1)]
        return row

    def _now(self) -> Scene:
        blocks = list(self._scene.blocks)
        x_m, y_m = self._path_m[self.step]
        blocks[self._scene.target_index] = replace(
            blocks[self._scene.target_index], x_m=float(x_m), y_m=float(y_m)
        )
        return replace(self._scene, blocks=tuple(blocks))
