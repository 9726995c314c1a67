# SPDX-License-Identifier: Apache-2.0
"""Draw a replay as PNG images: actions per joint, recorded against replayed, and histograms of the latency. Needs matplotlib."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.comparison import Tolerances
from reflex_core.replay.plot_data import Drawn, Kept, Track, apart
from reflex_core.replay.summary import median
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import VELOCITY
from reflex_core.values import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: colours that all eyes tell apart
RECORDED, REPLAYED, APART, ALLOWED = "#0072B2", "#D55E00", "#009E73", "#777777"
COLUMNS_OF_JOINTS = 4
JOINT_INCHES = (3.6, 2.5)
TOP_INCHES, BOTTOM_INCHES = 1.05, 0.85
DOTS_PER_INCH = 110
SI, RATE, SHARE = "rad or m", "rad/s or m/s", "0 to 1"
DASHES = (0, (4, 2))
FEW = 24  # points that are marked one by one
LEAST_SPAN = 1e-3  # of an axis: a joint that stands still must not look as if it moved
MARK, MADE_BY = "Software", "reflex replay --plot"
OURS = re.compile(r"record-\d{6,}\.png|episode-\d{2,}\.png|latency\.png")


def units_of(embodiment: Embodiment | None, names: Sequence[str]) -> dict[str, str]:
    """Return the unit of each joint that is not SI: RATE of velocities, SHARE of grippers of range 0..1."""
    if embodiment is None:
        return {}
    rates = {
        embodiment.joint_names[column]
        for group in embodiment.groups
        if group.commands == VELOCITY
        for column in group.columns
    }
    shares = {
        embodiment.joint_names[end.component_idx]
        for end in embodiment.two_ended
        if (embodiment.action_min[end.component_idx], embodiment.action_max[end.component_idx]) == (0.0, 1.0)
    }
    return {name: SHARE if name in shares else RATE for name in names if name in shares | rates}


def prepare(directory: Path) -> None:
    """Make the directory, and see that it can be written. Raises TraceError without matplotlib, or if it cannot."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise TraceError("--plot needs matplotlib: pip install 'reflex_ros[plot]'") from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise TraceError(f"--plot {directory}: cannot be written: {error.strerror or error}") from error


def draw(kept: Kept, directory: Path, tolerances: Tolerances, units: Mapping[str, str]) -> str:
    """Write all images, then remove those of an earlier replay, and return a sentence that names them.

    Raises TraceError when one cannot be written, or would replace an image that no replay has drawn.
    """
    records, tracks = kept.chosen(), kept.tracks()
    made: dict[str, Callable[[], Figure]] = {
        f"record-{drawn.seq:06d}.png": partial(record_figure, drawn, units) for drawn in records
    }
    made |= {
        f"episode-{number:02d}.png": partial(episode_figure, track, units)
        for number, track in enumerate(tracks, start=1)
    }
    if kept.latencies.values:
        made["latency.png"] = partial(latency_figure, kept.latencies.values, tolerances)
    try:
        before = [path for path in directory.iterdir() if OURS.fullmatch(path.name)]
        taken = sorted(path.name for path in before if path.name in made and not _is_ours(path))
        if taken:
            raise TraceError(
                f"--plot {directory}: {taken[0]} is there and no replay has drawn it: name another directory"
            )
        for name, figure in made.items():
            _save(figure(), directory / name)
        for path in before:
            if path.name not in made and _is_ours(path):
                path.unlink()
    except OSError as error:
        raise TraceError(f"--plot {directory}: cannot be written: {error.strerror or error}") from error
    chosen = "the first and those that differ most" if len(records) > 1 else "the first; no other differs"
    return (
        f"pictures in {directory}: {len(records)} of {kept.records} records ({chosen}),"
        f" {len(tracks)} of {kept.episodes} episodes, {'' if kept.latencies.values else 'no '}latency"
    )


def record_figure(drawn: Drawn, units: Mapping[str, str]) -> Figure:
    """Draw one chunk: for each joint both lines, and how far they are apart under them."""
    figure, panels = _grid(len(drawn.names), _record_title(drawn))
    scale, label = _row_times(drawn.dt_s)
    differences = apart(drawn)
    for (upper, lower), column in zip(panels, range(len(drawn.names)), strict=True):
        name = drawn.names[column]
        _lines(
            upper, _steps(drawn.recorded) * scale, drawn.recorded[:, column], _steps(drawn.replayed) * scale,
            drawn.replayed[:, column],
        )  # fmt: skip
        allowed = drawn.allowed[column]
        _name_joint(upper, name, units, differences[:, column], allowed)
        _apart(lower, _steps(differences) * scale, differences[:, column], allowed)
        lower.set_xlabel(label, fontsize=8)
    return figure


def episode_figure(track: Track, units: Mapping[str, str]) -> Figure:
    """Draw an episode: the first action of every chunk, and the largest difference anywhere in the chunk."""
    from matplotlib.ticker import MaxNLocator

    figure, panels = _grid(len(track.names), _episode_title(track))
    seqs = np.array([point.seq for point in track.points], np.float64)
    recorded, replayed, differences, allowed = (
        np.array([getattr(point, part) for point in track.points])
        for part in ("recorded", "replayed", "apart", "allowed")
    )
    for (upper, lower), column in zip(panels, range(len(track.names)), strict=True):
        _lines(upper, seqs, recorded[:, column], seqs, replayed[:, column])
        _name_joint(upper, track.names[column], units, differences[:, column], allowed[:, column])
        _apart(lower, seqs, differences[:, column], allowed[:, column])
        lower.set_xlabel("record (seq)", fontsize=8)
        lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return figure


def latency_figure(values: Sequence[tuple[float, float, float]], tolerances: Tolerances) -> Figure:
    """Draw histograms of (recorded ms, replayed ms, change in per cent) of every request."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.8), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(f"latency of {len(values)} requests", fontsize=11, fontweight="bold")
    both, change = figure.subplots(1, 2)
    recorded, replayed, pct = np.array(values, np.float64).T
    edges = _edges(np.concatenate([recorded, replayed]))
    sides = (recorded, RECORDED, "-", "recorded"), (replayed, REPLAYED, "--", "replayed")
    for part, colour, style, name in sides:
        middle = median(part.tolist()).value
        both.hist(_within(part, edges), edges, color=colour, alpha=0.35)
        both.hist(_within(part, edges), edges, color=colour, histtype="step", linestyle=style, linewidth=1.5)
        both.axvline(middle, color=colour, linestyle=style, label=f"{name}, median {middle:.3g} ms")
    both.set_xlabel("ms (recorded: the whole request, less what was\ninjected; replayed: the policy alone)")
    edges = _edges(pct)
    change.hist(_within(pct, edges), edges, color=APART, alpha=0.6, edgecolor="white")
    found, allowed = median(pct.tolist()), tolerances.latency_pct
    words = "" if found.low is None else f" (95 %: {found.low:+.1f} to {found.high:+.1f})"
    change.axvspan(-allowed, allowed, color=ALLOWED, alpha=0.3, zorder=0, label=f"within ±{allowed:g} %")
    change.axvline(found.value, color="black", label=f"median {found.value:+.1f} %{words}")
    change.set_xlabel("change of a request, %")
    for axes in (both, change):
        _plain(axes, 9)
        axes.set_ylabel("requests", fontsize=9)
        axes.xaxis.label.set_size(9)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=9, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _grid(joints: int, title: str) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure with two axes per joint, and what the colours mean. Laid out by hand: it takes a third of the time."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(COLUMNS_OF_JOINTS, max(joints, 2))
    rows = -(-max(joints, 1) // columns)
    width, height = columns * JOINT_INCHES[0], rows * JOINT_INCHES[1] + TOP_INCHES + BOTTOM_INCHES
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    grid = figure.add_gridspec(
        rows, columns, left=0.65 / width, right=1 - 0.15 / width, top=1 - TOP_INCHES / height,
        bottom=BOTTOM_INCHES / height, hspace=0.38, wspace=0.27,
    )  # fmt: skip
    panels = []
    for number in range(joints):
        cell = grid[divmod(number, columns)].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.12)
        upper = figure.add_subplot(cell[0])
        lower = figure.add_subplot(cell[1], sharex=upper)
        upper.tick_params(labelbottom=False)
        panels.append((upper, lower))
    figure.suptitle(title, y=1 - 0.1 / height, va="top", fontsize=11, fontweight="bold")
    key = [
        Line2D([], [], color=RECORDED, linewidth=3.5, alpha=0.75, label="recorded"),
        Line2D([], [], color=REPLAYED, linewidth=1.4, linestyle=DASHES, label="replayed"),
        Line2D([], [], color=APART, linewidth=1.5, label="|difference|"),
        Line2D([], [], color=ALLOWED, linewidth=1.2, linestyle=":", label="largest that passes"),
    ]
    figure.legend(handles=key, loc="lower center", ncols=4, fontsize=9, frameon=False)
    return figure, panels


def _lines(axes: Axes, times: Any, recorded: Floats, replayed_times: Any, replayed: Floats) -> None:
    marks = ("o", "x") if len(recorded) <= FEW else ("", "")  # one point has no line, and few are no curve
    recorded, replayed = _finite(recorded), _finite(replayed)
    wide: dict[str, Any] = {"color": RECORDED, "linewidth": 3.5, "alpha": 0.75}
    axes.plot(times, recorded, marker=marks[0], **wide)
    axes.plot(replayed_times, replayed, marker=marks[1], color=REPLAYED, linewidth=1.4, linestyle=DASHES)
    seen = np.concatenate([recorded[np.isfinite(recorded)], replayed[np.isfinite(replayed)]])
    if seen.size and np.ptp(seen) < LEAST_SPAN:
        middle = float(seen.mean())
        axes.set_ylim(middle - LEAST_SPAN, middle + LEAST_SPAN)
    _plain(axes, 7)


def _apart(axes: Axes, times: Any, difference: Floats, allowed: Any) -> None:
    difference = _finite(difference)
    limit = np.broadcast_to(np.asarray(allowed, np.float64), difference.shape)
    axes.fill_between(times, difference, color=APART, alpha=0.4, linewidth=0)
    axes.plot(times, difference, color=APART, linewidth=1.5, marker="." if len(difference) <= FEW else "")
    axes.plot(times, limit, color=ALLOWED, linewidth=1.2, linestyle=":")
    top = max(float(np.nanmax(difference, initial=0.0)), float(np.nanmax(limit, initial=0.0)))
    axes.set_ylim(0, 1.15 * top if top > 0 else 1e-6)
    axes.set_yticks([0, top] if top > 0 else [0], ["0", f"{top:.1e}"] if top > 0 else ["0"])
    _plain(axes, 7)


def _name_joint(
    axes: Axes, name: str, units: Mapping[str, str], differences: Floats, allowed: Floats
) -> None:
    """Write the joint's name, and in bold by how much it fails."""
    judged = np.isfinite(allowed) | ~np.isfinite(
        differences
    )  # chunks of another shape are not judged by joint
    failing = ~(differences < allowed) & judged
    title = _short(name, 34)
    if failing.any():
        beyond = differences[failing]
        furthest = float(beyond.max()) if np.isfinite(beyond).all() else math.inf
        words = f"{furthest:.1e}" if math.isfinite(furthest) else "not comparable"
        title = f"{_short(name, 24)}  FAILS: {words}"
    axes.set_title(title, fontsize=9, loc="left", fontweight="bold" if failing.any() else "normal")
    axes.set_ylabel(units.get(name, SI), fontsize=8)


def _plain(axes: Axes, size: int) -> None:
    axes.tick_params(labelsize=size)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _record_title(drawn: Drawn) -> str:
    before, after = drawn.shapes
    verdict = "replay gives the recorded actions" if drawn.passed else "replay DIFFERS"
    if before != after:
        verdict = f"replay DIFFERS: recorded {before[0]}x{before[1]}, replayed {'x'.join(map(str, after))}"
    parts = [f"record {drawn.seq}: {verdict}"]
    if drawn.episode_id:
        parts.append(f"episode {_short(drawn.episode_id, 40)}")
    if drawn.slot:
        parts.append(f"slot {_short(drawn.slot, 20)}")
    return f"{', '.join(parts)}\nrecorded answer: {_short(drawn.reason, 110)}\nactions of the policy, before the guard"


def _episode_title(track: Track) -> str:
    name = f"episode {_short(track.episode_id, 40)}" if track.episode_id else "records without an episode"
    title = f"{name}: {track.records} records, replay differs in {track.fails}\nfirst action of each chunk, largest difference in it"
    if track.stride > 1:
        title += f"; of each {track.stride} records the one that differs most"
    return title


def _row_times(dt_s: float | None) -> tuple[float, str]:
    return (dt_s, "s after the observation") if dt_s else (1.0, "row of the chunk, from 1")


def _steps(rows: Floats) -> Any:
    """Return the times of the rows: row i is to be reached (i + 1) steps after the observation."""
    return np.arange(1, len(rows) + 1, dtype=np.float64)


def _edges(values: Any) -> Any:
    """Return at most 30 bins over what is not extreme; the rest counts in the outer ones, so that a hiccup hides nothing."""
    low, high = np.percentile(values, [0.5, 99.5])
    if high - low < 1e-9 * max(abs(high), 1.0):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, 1 + min(30, max(6, round(2 * len(values) ** 0.5))))


def _within(values: Any, edges: Any) -> Any:
    return np.clip(values, edges[0], edges[-1])


def _finite(values: Floats) -> Floats:
    """Replace infinity by NaN, which is drawn as a gap."""
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _short(text: str, length: int) -> str:
    """Return a name from a trace for an image: no control characters, no formula, not too long."""
    plain = "".join(character if character.isprintable() else "?" for character in text).replace("$", r"\$")
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={MARK: MADE_BY})


def _is_ours(path: Path) -> bool:
    """Return whether a replay has drawn it, by the image's own metadata near its beginning."""
    with path.open("rb") as stream:
        return f"{MARK}\0{MADE_BY}".encode() in stream.read(1024)
