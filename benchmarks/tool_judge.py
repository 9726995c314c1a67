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
# of each link (n, 3) its origin and (n, 4) its turn
Frames = Mapping[str, tuple[Doubles, Doubles]]


@dataclass(frozen=True)
class Body:
    """A capsule: link, its two ends (3,) there, radius in m."""

    link: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float


class Robot:
    """The joints of a URDF, each as its parent link, translation, turn (w, x, y, z), axis and kind.

    The columns may lack joints that move none of the links that are asked for.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.above: dict[str, tuple[str, str, str, Doubles, Doubles, Doubles]] = {}
        self.leaders: dict[str, tuple[str, float, float]] = {}
        for joint in ElementTree.fromstring(path.read_bytes()).findall("joint"):
            parent, child, origin, axis = (joint.find(tag) for tag in ("parent", "child", "origin", "axis"))
            assert parent is not None
            assert child is not None
            assert origin is not None
            turn = np.array([1.0, 0.0, 0.0, 0.0])
            for angle, along in zip(_floats(origin, "rpy"), np.eye(3), strict=True):
                turn = _product(_turn(along, np.array(angle)), turn)
            direction = np.zeros(3) if axis is None else _floats(axis, "xyz")
            if (mimic := joint.find("mimic")) is not None:
                factor, shift = float(mimic.get("multiplier", 1)), float(mimic.get("offset", 0))
                self.leaders[joint.attrib["name"]] = mimic.attrib["joint"], factor, shift
            self.above[child.attrib["link"]] = (
                joint.attrib["name"], joint.attrib["type"], parent.attrib["link"], _floats(origin, "xyz"), turn, direction,
            )  # fmt: skip

    def frames(self, q: Doubles, links: Sequence[str]) -> Frames:
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
            if kind == "prismatic":
                along = self._position(name, q)[:, None] * (axis / np.linalg.norm(axis))
                origin = origin + rotated(whole, along)
            elif kind != "fixed":
                whole = _product(whole, _turn(axis, self._position(name, q)))
            known[link] = origin, whole
        return known[link]

    def _position(self, name: str, q: Doubles) -> Doubles:
        leader, factor, shift = self.leaders.get(name, (name, 1.0, 0.0))
        found: Doubles = q[:, self.columns.index(leader)] * factor + shift
        return found


def rotated(turn: Doubles, point: Doubles) -> Doubles:
    """(n, 3) a point, or (n, 3) points, of a frame that is turned by (n, 4)."""
    w, v = turn[:, :1], turn[:, 1:]
    once = _cross(v, np.broadcast_to(point, v.shape)) + w * point
    return point + 2.0 * _cross(v, once)


def least_gap(one: Body, other: Body, frames: Frames, at_most_m: float = np.inf) -> float:
    """The smallest m between two capsules. Left out are moments at which it cannot be, as their middles are too far apart.

    at_most_m: what is above it is not looked for: the gap at the moment that may be the nearest is enough then.
    """
    (a, b), (c, d) = (ends(body, frames) for body in (one, other))
    radii = one.radius + other.radius
    middles = np.linalg.norm((a + b - c - d) / 2.0, axis=1)
    half = (np.linalg.norm(b - a, axis=1) + np.linalg.norm(d - c, axis=1)) / 2.0
    least = middles - half  # no gap is below this
    near = least <= min(float(middles.min()), at_most_m + radii)
    near[least.argmin()] = True
    return float(gaps(a[near], b[near], c[near], d[near]).min()) - radii


def gaps(a: Doubles, b: Doubles, c: Doubles, d: Doubles) -> Doubles:
    """(n,) m between the segments a b and c d: at an end of one of them, or where the lines are nearest if that is on both."""
    found = np.minimum(
        np.minimum(_to_segment(a, c, d), _to_segment(b, c, d)),
        np.minimum(_to_segment(c, a, b), _to_segment(d, a, b)),
    )
    one, other, between = b - a, d - c, c - a
    across = _cross(one, other)
    square = (across * across).sum(axis=1)
    apart = square > 1e-18
    safe = np.where(apart, square, 1.0)
    s = (_cross(between, other) * across).sum(axis=1) / safe
    t = (_cross(between, one) * across).sum(axis=1) / safe
    within = apart & (s >= 0.0) & (s <= 1.0) & (t >= 0.0) & (t <= 1.0)
    lines = np.abs((between * across).sum(axis=1)) / np.sqrt(safe)
    return np.where(within, np.minimum(lines, found), found)


def ends(body: Body, frames: Frames) -> tuple[Doubles, Doubles]:
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
    return np.concatenate([scalar, w * u + x * v + _cross(*np.broadcast_arrays(v, u))], axis=-1)


def _cross(one: Doubles, other: Doubles) -> Doubles:
    """(..., 3), as np.cross and several times faster."""
    x, y, z = one[..., 0], one[..., 1], one[..., 2]
    u, v, w = other[..., 0], other[..., 1], other[..., 2]
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)


def _floats(element: ElementTree.Element, key: str) -> Doubles:
    return np.array([float(part) for part in element.get(key, "0 0 0").split()])
