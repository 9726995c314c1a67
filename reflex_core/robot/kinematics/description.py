# SPDX-License-Identifier: Apache-2.0
"""Read the `kinematics` block of an embodiment: its URDF, the link that is the tool, and the bodies that must not touch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import EmbodimentError
from reflex_core.files.json_fields import JsonFields, is_number
from reflex_core.robot.kinematics.capsules import Capsule, distances, ends_of
from reflex_core.robot.kinematics.tree import Tree, tree_of
from reflex_core.robot.units import LEAST, MOST_M
from reflex_core.robot.urdf import UrdfError, read_description
from reflex_core.text.suggestions import no_such

Doubles = NDArray[np.float64]

KEYS = "urdf root tool capsules pairs ignore"
CAPSULE_KEYS = "link start end radius"
MOST_CAPSULES = 64
POSITIONS_TRIED = 256  # in which two bodies must be apart at least once
SLUG = "bad-kinematics"


@dataclass(frozen=True, slots=True)
class Kinematics:
    """Where a robot's tool and bodies are.

    tree: its columns are those of the robot's actions, and its first link is the tool. tool: name of that link. capsules: own
    bodies. pairs: indices of two capsules that must not touch.
    """

    tree: Tree
    tool: str
    capsules: tuple[Capsule, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def gaps(self, poses: Doubles) -> Doubles:
        """Return (pairs, rows) distance in m between the surfaces of the pairs. poses: (links, rows, 4, 4) of the tree."""
        starts, stops = ends_of(self.capsules, self.tree.links, poses)
        return distances(starts, stops, np.array([one.radius_m for one in self.capsules]), self.pairs)

    def first(self, dim: int) -> Kinematics:
        """Return the same of a robot with the first columns alone; those that were dropped move nothing here."""
        return replace(self, tree=replace(self.tree, joints=self.tree.joints[:dim]))


@dataclass(frozen=True, slots=True)
class Columns:
    """The robot's columns that the block is about. low, high: (n,) rad or m. unfit: column -> why it may move nothing here."""

    names: tuple[str, ...]
    low: Doubles
    high: Doubles
    unfit: Mapping[int, str]


def read_kinematics(block: JsonFields, columns: Columns, path: Path) -> Kinematics:
    """Return the kinematics of an embodiment at `path`. Raises EmbodimentError, or a refusal that names the key."""
    block.only(KEYS.split())
    file = _beside(block, path)
    tool, root = (block.text(key, *default) for key, default in (("tool", ()), ("root", ("",))))
    capsules = _capsules(block)
    links = tuple(dict.fromkeys((tool, *(capsule.link for capsule in capsules))))
    try:
        tree = tree_of(read_description(file), str(file), columns.names, links, root)
    except UrdfError as error:
        raise EmbodimentError(f"{path}: 'kinematics' cannot be used: {error}", SLUG) from error
    if tree.ends[0][0] < 0:
        raise block.refusal(
            "tool", f"a link that a joint moves, seen from '{root}'" if root else "a link that a joint moves"
        )
    for step in tree.steps:
        if step.column in columns.unfit:
            raise block.refusal(
                "tool" if _leads(tree, tool, step.column) else "capsules",
                f"of links that {columns.names[step.column]} does not move, as it {columns.unfit[step.column]}",
            )
    found = Kinematics(tree, tool, capsules, _pairs(block, tree, capsules))
    _check_apart(block, found, columns)
    return found


def _beside(block: JsonFields, path: Path) -> Path:
    """Return the URDF's path, which lies in the folder of the embodiment: who may write there may write the limits."""
    name = block.text("urdf", expected="the name of a URDF file beside this one")
    # by name, not by link target: caches of model hubs are made of links
    folder = Path(os.path.abspath(path.parent))
    file = Path(os.path.abspath(folder / name))
    if (
        not name.isprintable()
        or Path(name).is_absolute()
        or file == folder
        or not file.is_relative_to(folder)
    ):
        raise block.refusal("urdf", f"a file in {folder}, named from there")
    return file


def _capsules(block: JsonFields) -> tuple[Capsule, ...]:
    entries = block.get("capsules", [])
    if not isinstance(entries, list) or len(entries) > MOST_CAPSULES:
        raise block.refusal("capsules", f"a list of at most {MOST_CAPSULES} capsules")
    return tuple(_capsule(block.item("capsules", at)) for at in range(len(entries)))


def _capsule(entry: JsonFields) -> Capsule:
    entry.only(CAPSULE_KEYS.split())
    link = entry.text("link", expected="the name of a link")
    start, end = (_point(entry, key) for key in ("start", "end"))
    return Capsule(link, start, end, entry.number("radius", LEAST, MOST_M))


def _point(entry: JsonFields, key: str) -> Doubles:
    values = entry.get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(map(_is_near, values)):
        raise entry.refusal(key, "three finite numbers, [x, y, z] in m in the frame of its link")
    return np.array(values, dtype=np.float64)


def _pairs(block: JsonFields, tree: Tree, capsules: Sequence[Capsule]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of capsules that must not touch: those of `pairs`, else all but neighbours and those of `ignore`."""
    if "pairs" in block and "ignore" in block:
        raise block.refusal("ignore", "left out, as 'pairs' says which pairs are checked")
    owners = [capsule.link for capsule in capsules]
    chosen = _named(block, "pairs", owners)
    ignored = _named(block, "ignore", owners)
    every = combinations(range(len(capsules)), 2)
    if "pairs" in block:
        return tuple((i, j) for i, j in every if frozenset((owners[i], owners[j])) in chosen)
    return tuple(
        (i, j)
        for i, j in every
        if not _neighbours(tree, owners[i], owners[j]) and frozenset((owners[i], owners[j])) not in ignored
    )


def _named(block: JsonFields, key: str, owners: Sequence[str]) -> set[frozenset[str]]:
    entries: object = block.get(key, [])
    if not isinstance(entries, list):
        raise block.refusal(key, "a list of pairs of links")
    for pair in entries:
        right = isinstance(pair, list) and len(pair) == 2 and all(isinstance(link, str) for link in pair)
        if not right or pair[0] == pair[1]:
            raise block.refusal(key, "pairs of two different links", pair)
        if strangers := [link for link in pair if link not in owners]:
            what = no_such("link with a capsule", strangers, owners)
            raise block.refusal(key, f"pairs of links that have capsules ({what})", pair)
    return {frozenset(pair) for pair in entries}


def _neighbours(tree: Tree, one: str, other: str) -> bool:
    """Return whether no joint or a single one is between two links: they touch there in every position."""
    first, second = (tree.ends[tree.links.index(link)][0] for link in (one, other))
    above = [tree.steps[step].parent if step >= 0 else None for step in (first, second)]
    return first == second or first == above[1] or second == above[0]


def _leads(tree: Tree, link: str, column: int) -> bool:
    step = tree.ends[tree.links.index(link)][0]
    while step >= 0:
        if tree.steps[step].column == column:
            return True
        step = tree.steps[step].parent
    return False


def _check_apart(block: JsonFields, found: Kinematics, columns: Columns) -> None:
    """Raise a refusal for a pair that touches wherever the robot is: it could never move."""
    if not found.pairs:
        return
    rng = np.random.default_rng(0)
    q = rng.uniform(columns.low, columns.high, (POSITIONS_TRIED, len(columns.low)))
    touching = (found.gaps(found.tree.poses(q)) <= 0.0).all(axis=1)
    for at in np.flatnonzero(touching)[:1]:
        one, other = (found.capsules[side].link for side in found.pairs[at])
        raise block.refusal(
            "capsules",
            f"apart in some position: put [{one}, {other}] into 'ignore' or make their capsules smaller",
            f"{one} and {other}, which touch in each of {POSITIONS_TRIED} positions",
        )


def _is_near(value: object) -> bool:
    return is_number(value, -MOST_M, MOST_M)
