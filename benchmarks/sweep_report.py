# SPDX-License-Identifier: Apache-2.0
"""What a latency sweep found, as a Markdown table and as curves. Intervals are 95 %."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reflex_core.metrics.intervals import wilson

DRAWS = 2000
COLOURS = ("#777777", "#1f77b4", "#2ca02c", "#d62728", "#9467bd")
MARKS = "osv^D"
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One episode. distance_m, jump_rad, disagreement_rad: means; jerk_rad_s3: RMS of the commands. too_fast: share of
    the control steps in which a joint was told to move faster than the embodiment allows.
    """

    seed: int
    followed: bool
    distance_m: float
    jump_rad: float
    disagreement_rad: float
    jerk_rad_s3: float
    too_fast: float
    chunks: int
    guided: int
    corrected: int


@dataclass(frozen=True, slots=True)
class Cell:
    """The episodes of one condition at one delay; the same seeds in the same order in every cell."""

    delay: int
    condition: str
    outcomes: tuple[Outcome, ...]

    def values(self, name: str) -> NDArray[np.float64]:
        """(episodes,) one figure of each."""
        return np.array([getattr(one, name) for one in self.outcomes], dtype=np.float64)

    @property
    def followed(self) -> int:
        return sum(one.followed for one in self.outcomes)

    @property
    def interval(self) -> Interval:
        """Of the share that was followed: Wilson's."""
        return wilson(self.followed, len(self.outcomes))


def bootstrap(values: ArrayLike) -> Interval:
    """Percentile interval of the mean; the same values give the same interval."""
    known = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(0).integers(0, len(known), (DRAWS, len(known)))
    low, high = np.percentile(known[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def markdown(cells: Sequence[Cell], *baselines: str) -> str:
    """One line per delay and condition. Differences to the baselines are of pairs of episodes, in percentage points."""
    found = {(one.delay, one.condition): one for one in cells}
    against = [f"against {name}, points" for name in baselines]
    titles = [
        "delay", "condition", "followed", "95 %", *against,
        "distance, cm", "border jump, 0.001 rad", "jerk RMS, rad/s³", "overlap disagreement, 0.001 rad", "too fast, % of steps",
    ]  # fmt: skip
    lines = [titles, ["---"] * len(titles)]
    for one in cells:
        low, high = one.interval
        lines.append([
            str(one.delay), one.condition, f"{one.followed}/{len(one.outcomes)}", f"{100 * low:.0f}-{100 * high:.0f} %",
            *(_difference(one, found[one.delay, name]) for name in baselines),
            _mean(one, "distance_m", 100, 1), _mean(one, "jump_rad", 1000, 1),
            _mean(one, "jerk_rad_s3", 1, 0), _mean(one, "disagreement_rad", 1000, 1),
            f"{100 * one.values('too_fast').mean():.1f}",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(one: Cell, name: str, scale: float, digits: int) -> str:
    values = scale * one.values(name)
    low, high = bootstrap(values)
    return f"{values.mean():.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _difference(one: Cell, base: Cell) -> str:
    """Bold where the two Wilson intervals do not overlap, which is stricter than the interval of the difference."""
    if one is base:
        return ""
    if [two.seed for two in one.outcomes] != [two.seed for two in base.outcomes]:
        raise ValueError(f"delay {one.delay}: {one.condition} and {base.condition} had other scenes")
    points = 100 * (one.values("followed") - base.values("followed"))
    low, high = bootstrap(points)
    text = f"{points.mean():+.0f} ({low:+.0f} to {high:+.0f})"
    apart = one.interval[0] > base.interval[1] or one.interval[1] < base.interval[0]
    return f"**{text}**" if apart else text


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Success, jerk and border jump against delay into a PNG file. Ends the program where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("--picture needs matplotlib: pip install 'reflex_ros[plot]'") from error
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    success, jerk, jump = figure.subplots(1, 3)
    conditions = list(dict.fromkeys(one.condition for one in cells))
    for condition, colour, mark in zip(conditions, COLOURS, MARKS, strict=False):
        own = [one for one in cells if one.condition == condition]
        delays = np.array([one.delay for one in own])
        style = {"color": colour, "marker": mark, "label": condition, "markersize": 5}
        shares = np.array([100 * one.followed / len(one.outcomes) for one in own])
        _curve(success, delays, shares, 100 * np.array([one.interval for one in own]), style)
        for axes, name, scale in ((jerk, "jerk_rad_s3", 1), (jump, "jump_rad", 1000)):
            values = [scale * one.values(name) for one in own]
            _curve(axes, delays, np.array([one.mean() for one in values]), np.array([bootstrap(one) for one in values]), style)  # fmt: skip
    for axes, label in (
        (success, f"followed, % of {len(cells[0].outcomes)} episodes"),
        (jerk, "jerk RMS of the commands, rad/s³"), (jump, "jump at a border, 0.001 rad"),
    ):  # fmt: skip
        axes.set_xlabel("delay, control steps of 50 ms")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    success.set_ylim(-3, 103)
    figure.legend(*success.get_legend_handles_labels(), loc="outside lower center", ncols=len(conditions))
    figure.suptitle("Following a moving block with late chunks (bands: 95 %)")
    figure.savefig(path, dpi=100)


def _curve(axes, delays, middle, intervals, style) -> None:  # type: ignore[no-untyped-def]
    axes.plot(delays, middle, **style)
    axes.fill_between(delays, intervals[:, 0], intervals[:, 1], color=style["color"], alpha=0.15, linewidth=0)


def read(path: Path) -> list[Cell]:
    """The cells of a file that `benchmarks.latency_sweep --output` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return [
        Cell(one["delay"], one["condition"], tuple(Outcome(**outcome) for outcome in one["outcomes"]))
        for one in document["cells"]
    ]


if __name__ == "__main__":
    draw(read(Path(sys.argv[1])), Path(sys.argv[2]))
