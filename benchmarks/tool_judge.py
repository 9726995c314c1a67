# SPDX-License-Identifier: Apache-2.0
"""Where tool and bodies of a robot are, found in another way than the product does: quaternions along the URDF's own tree.

Nothing of reflex_core is used for it, so that a mistake there cannot hide here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

GOLDEN = (5.0**0.5 - 1.0) / 2.0
NARROWINGS = 18  # of the place on one segment that is nearest to the other: to 2e-4 of its length


@dataclass(frozen=True)
class Body:
    """A capsule: link, its two ends (3,) there, radius in m."""

    link: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float


class Robot:
    """The joints of a URDF, each as its parent link, translation, turn (w, x, y, z), axis and kind."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.above: dict[str, tuple[str, str, str, Doubles, Doubles, Doubles]] = {}
        for joint in ElementTree.fromstring(path.read_bytes()).findall("joint"):
            parent, child, origin, axis = (joint.find(tag) for tag in ("parent", "child", "origin", "axis"))
            assert parent is not None
            assert child is not None
            assert origin is not None
            turn = np.array([1.0, 0.0, 0.0, 0.0])
            for angle, along in zip(_floats(origin, "rpy"), np.eye(3), strict=True):
                turn = _product(_turn(along, np.array(angle)), turn)
            direction = np.zeros(3) if axis is None else _floats(axis, "xyz")
            self.above[child.attrib["link"]] = (
                joint.attrib["name"], joint.attrib["type"], parent.attrib["link"], _floats(origin, "xyz"), turn, direction,
            )  # fmt: skip

    def frames(self, q: Doubles, links: Sequence[str]) -> Mapping[str, tuple[Doubles, Doubles]]:
        """(n, 3) origin and (n, 4) turn of some links at q (n, columns)."""
        known: dict[str, tuple[Doubles, Doubles]] = {}
        return {link: self._frame(link, q, known) for link in links}

    def _frame(
        self, link: str, q: Doubles, known: dict[str, tuple[Doubles, Doubles]]
    ) -> tuple[Doubles, Doubles]:
        if link not in self.above:
            return np.zeros((len(q), 3)), np.tile([1.0, 0.0, 0.0, 0.0], (len(q), 1))
        if link not in known:
            name, kind, parent, offset, turn, axis = self.above[link]
            origin, whole = self._frame(parent, q, known)
            origin, whole = origin + rotated(whole, offset), _product(whole, turn)
            if kind == "revolute":
                whole = _product(whole, _turn(axis, q[:, self.columns.index(name)]))
            known[link] = origin, whole
        return known[link]


def rotated(turn: Doubles, point: Doubles) -> Doubles:
    """(n, 3) a point of a frame that is turned by (n, 4)."""
    w, v = turn[:, :1], turn[:, 1:]
    once = np.cross(v, point) + w * point
    return point + 2.0 * np.cross(v, once)


def least_gap(one: Body, other: Body, frames: Mapping[str, tuple[Doubles, Doubles]]) -> float:
    """The smallest m between two capsules; moments at which it cannot be, as their middles are too far apart, are left out."""
    (a, b), (c, d) = (ends(body, frames) for body in (one, other))
    middles = np.linalg.norm((a + b - c - d) / 2.0, axis=1)
    half = (np.linalg.norm(b - a, axis=1) + np.linalg.norm(d - c, axis=1)) / 2.0
    near = middles - half <= middles.min()
    return float(gaps(a[near], b[near], c[near], d[near]).min()) - one.radius - other.radius


def gaps(a: Doubles, b: Doubles, c: Doubles, d: Doubles) -> Doubles:
    """(n,) m between two segments. The distance of a point on the one to the other has one minimum along the first."""
    low, high = np.zeros(len(a)), np.ones(len(a))
    for _ in range(NARROWINGS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        nearer = _to_segment(a + left[:, None] * (b - a), c, d) <= _to_segment(
            a + right[:, None] * (b - a), c, d
        )
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    middle = (low + high)[:, None] / 2.0
    at_ends = np.minimum(_to_segment(a, c, d), _to_segment(b, c, d))  # inside, the minimum is flat
    return np.minimum(_to_segment(a + middle * (b - a), c, d), at_ends)


def ends(body: Body, frames: Mapping[str, tuple[Doubles, Doubles]]) -> tuple[Doubles, Doubles]:
    """(n, 3) both ends of a body's segment."""
    origin, turn = frames[body.link]
    return origin + rotated(turn, np.array(body.start)), origin + rotated(turn, np.array(body.end))


def _to_segment(point: Doubles, begin: Doubles, end: Doubles) -> Doubles:
    along = end - begin
    length = np.maximum((along * along).sum(axis=1), 1e-30)
    share = np.clip(((point - begin) * along).sum(axis=1) / length, 0.0, 1.0)
    found: Doubles = np.linalg.norm(point - begin - share[:, None] * along, axis=1)
    return found


def _turn(axis: Doubles, angle: Doubles) -> Doubles:
    half = np.asarray(angle)[..., None] / 2.0
    return np.concatenate([np.cos(half), np.sin(half) * axis / np.linalg.norm(axis)], axis=-1)


def _product(one: Doubles, other: Doubles) -> Doubles:
    w, v, x, u = one[..., :1], one[..., 1:], other[..., :1], other[..., 1:]
    scalar = w * x - (v * u).sum(axis=-1, keepdims=True)
    return np.concatenate([scalar, w * u + x * v + np.cross(v, u)], axis=-1)


def _floats(element: ElementTree.Element, key: str) -> Doubles:
    return np.array([float(part) for part in element.get(key, "0 0 0").split()])
