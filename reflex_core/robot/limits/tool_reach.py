# SPDX-License-Identifier: Apache-2.0
"""How far the joints of a robot can move its tool and bodies at most: rad or m of a joint times its reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reflex_core.robot.kinematics.capsules import Capsule
from reflex_core.robot.kinematics.description import Kinematics
from reflex_core.robot.kinematics.tree import Tree

Doubles = NDArray[np.float64]


class Reaches:
    """One entry per column, m per rad (or per m): tool and turning (d,), capsules (c, d), pairs (p, d).

    A joint that slides moves everything by as much as itself, and turns nothing. slides: (d,) 1 where a joint does, else 0. bends:
    (d,) how many times its reach counts where turning bends the way. pairs: of the joints between two bodies. tool_tree: the joints
    that move the tool alone. moving: the capsules that a joint moves.
    """

    def __init__(self, known: Kinematics, slides: Doubles) -> None:
        """Add up the lengths of the links beyond each joint: no position of the others makes its lever longer.

        slides: (d,) how far from 0 a joint goes at most.
        """
        tree = known.tree
        steps, _ = tree.ends[0]
        self.tool_tree = Tree(tree.joints, tree.links[:1], tree.steps[: steps + 1], tree.ends[:1])
        self.tool = _lengths(tree, 0, 0.0, slides)
        self.turning, self.slides = np.zeros(len(tree.joints)), np.zeros(len(tree.joints))
        for step in tree.steps:
            if step.slides:
                self.slides[step.column] = 1.0
            else:
                self.turning[step.column] += abs(step.factor)
        self.bends = 1.0 + 2.0 * self.slides  # a third derivative has three places for the slide
        at = [tree.links.index(one.link) for one in known.capsules]
        self.capsules = np.array(
            [
                _lengths(tree, link, _furthest(one), slides)
                for link, one in zip(at, known.capsules, strict=True)
            ]
        ).reshape(len(at), len(tree.joints))
        self.moving = [number for number, link in enumerate(at) if tree.ends[link][0] >= 0]
        self.pairs = np.array([self._between(known, at, pair, slides) for pair in known.pairs])

    def _between(self, known: Kinematics, at: list[int], pair: tuple[int, int], slides: Doubles) -> Doubles:
        """Return (d,) the reach of the joints that move one of two bodies and not the other."""
        tree = known.tree
        chains = [_chain(tree, tree.ends[at[side]][0]) for side in pair]
        common = set(chains[0]) & set(chains[1])
        found = np.zeros(len(tree.joints))
        for side in pair:
            found += _lengths(tree, at[side], _furthest(known.capsules[side]), slides, common)
        return found


def _furthest(capsule: Capsule) -> float:
    return float(max(np.linalg.norm(capsule.start_m), np.linalg.norm(capsule.end_m)))


def _chain(tree: Tree, step: int) -> list[int]:
    """Return the moving joints from one up to the root."""
    found = []
    while step >= 0:
        found.append(step)
        step = tree.steps[step].parent
    return found


def _lengths(
    tree: Tree, link: int, beyond_m: float, slides: Doubles, without: set[int] | None = None
) -> Doubles:
    """Return (d,) the reach to points within `beyond_m` of a link's origin. slides: (d,) how far from 0 a joint goes at most."""
    step, pose = tree.ends[link]
    reach = beyond_m + float(np.linalg.norm(pose[:3, 3]))
    found = np.zeros(len(tree.joints))
    for at in _chain(tree, step):
        joint = tree.steps[at]
        if joint.slides:
            reach += abs(joint.factor) * float(slides[joint.column]) + abs(joint.offset)
        if not without or at not in without:
            found[joint.column] += abs(joint.factor) * (1.0 if joint.slides else reach)
        reach += float(np.linalg.norm(joint.terms[0][:3, 3]))
    return found
