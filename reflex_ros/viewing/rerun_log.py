# SPDX-License-Identifier: Apache-2.0
"""Log what a policy saw and commanded to Rerun: one entity tree, one timeline, one blueprint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.review.bounds import Bounds
from reflex_core.review.moments import Moment
from reflex_core.values import Columns, Floats

if TYPE_CHECKING:
    import rerun

Doubles = NDArray[np.float64]

MISSING = "the viewer needs rerun-sdk: pip install 'reflex_ros[view]'; `reflex trace report` writes an HTML file without it"
APPLICATION = "reflex"
# timelines: the clock of the machine that recorded, and the number of the record
TIME, RECORD = "time", "record"
# chunks that overlap are drawn on so many lines; a policy that plans further ahead reuses the oldest
MOST_FANS = 16
JOINTS_SHOWN, CAMERAS_SHOWN = 12, 4  # in the blueprint; the others are logged too
# Okabe and Ito: colours that all eyes tell apart
MEASURED, COMMANDED, RAW, SERVED, LIMIT = (
    (0, 158, 115),
    (0, 114, 178),
    (213, 94, 0),
    (86, 180, 233),
    (204, 121, 167),
)
KEY = (
    "**green** measured · **blue** commanded until the next chunk · **light blue** whole chunks as served ·"
    " **orange** as the policy made them, where the guard changed them · **pink** limits, where they are near"
)
LEAST_SPAN, NEAR = (
    0.02,
    0.25,
)  # rad or m; a limit is in view where it is nearer than this share of the motion's span
ROWS_TOGETHER = 100_000  # numbers that wait to be sent together
ARRANGED_AT = (4, 32, 256)  # records after which the plots are zoomed to the motion again
SERIES = {  # of each joint: name, colour, width in points
    "measured": (MEASURED, 2.0), "commanded": (COMMANDED, 2.0), "limit_min": (LIMIT, 1.0), "limit_max": (LIMIT, 1.0),
}  # fmt: skip
FANS = {"raw": (RAW, 0.8), "served": (SERVED, 0.8)}
LEVELS = {"ERROR": "ERROR", "HELD": "ERROR", "FALLBACK": "WARN", "CLAMPED": "WARN", "SERVED": "INFO"}


class RerunLog:
    """One recording stream. `save` or `spawn` before anything is logged; `close` writes the end.

    Raises ConfigurationError where rerun-sdk is not installed.
    """

    def __init__(self, title: str, bounds: Bounds) -> None:
        self._rr = _sdk()
        self._bounds = bounds
        self._stream: rerun.RecordingStream = self._rr.RecordingStream(APPLICATION)
        self._stream.send_recording_name(title)
        self._joints: list[str] = []
        self._cameras: list[str] = []
        self._fans: dict[str, list[int]] = {kind: [] for kind in FANS}
        self._lines: dict[str, list[tuple[Doubles, Doubles, Columns]]] = {}
        self._waiting = 0
        self._last: Moment | None = None
        self._count = 0
        self._spans: dict[str, tuple[float, float]] = {}
        self._stream.log("key", self._rr.TextDocument(KEY, media_type="text/markdown"), static=True)

    def save(self, path: Path) -> None:
        """Write everything to a file. Raises ConfigurationError where that cannot be done."""
        try:
            path.touch()  # its own error has the reason
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be written: {error.strerror or error}") from error
        self._stream.save(path)

    def spawn(self) -> None:
        """Open the viewer's window, and log into it."""
        self._stream.spawn()

    def close(self) -> None:
        """Write what is still buffered, and end the stream."""
        if self._last is not None:
            last = self._last
            self._commanded(last, math.inf)
            self._limits(last, _start_s(last) + len(last.served) * last.dt_s)
            self.arrange()
        self.flush()
        self._stream.flush()
        self._stream.disconnect()

    def arrange(self) -> None:
        """Arrange the windows for the joints and cameras so far, each plot zoomed to its motion."""
        self._stream.send_blueprint(_blueprint(self._joints, self._cameras, self._in_view()))

    def note(self, text: str, level: str = "INFO") -> None:
        """Log a sentence about the recording itself, before its first moment."""
        self._stream.log("notes", self._rr.TextLog(text, level=level), static=True)

    def add(self, moment: Moment) -> None:
        """Log one request. Those of a recording come in their order."""
        if self._last is not None:
            self._commanded(self._last, _start_s(moment))
        self._arrange(moment)
        self._limits(moment, _start_s(moment))
        self._seen(moment)
        self._answered(moment)
        self._fan("served", moment, moment.served)
        if moment.changed.any() and moment.raw.shape == moment.served.shape:
            self._fan("raw", moment, moment.raw)
        self._last = moment
        self._count += 1
        if self._count in ARRANGED_AT:
            self.arrange()

    def outcome(self, episode_id: str, sentence: str, ended_ns: int) -> None:
        """Log how an episode ended, and when; 0: at the newest moment."""
        if ended_ns > 0:
            self._stream.set_time(TIME, timestamp=ended_ns * 1e-9)
        self._stream.log("episode", self._rr.TextLog(f"{episode_id}: {sentence}", level="INFO"))

    def _seen(self, moment: Moment) -> None:
        rr, stream, last = self._rr, self._stream, self._last
        stream.set_time(TIME, timestamp=_start_s(moment))
        stream.set_time(RECORD, sequence=moment.seq)
        for camera, jpeg in moment.images.items():
            stream.log(_path("cameras", camera), rr.EncodedImage(contents=jpeg, media_type="image/jpeg"))
        for name, value in moment.measured.items():
            stream.log(_path("joints", name, "measured"), rr.Scalars(value))
            self._stretch(name, np.array([value]))
        if last is None or last.instruction != moment.instruction:
            stream.log("instruction", rr.TextDocument(moment.instruction or "(no instruction)"))
        if last is None or last.episode_id != moment.episode_id:
            stream.log(
                "episode", rr.TextLog(f"{moment.episode_id or '-'}: {moment.instruction}", level="INFO")
            )

    def _answered(self, moment: Moment) -> None:
        rr, stream = self._rr, self._stream
        stream.set_time(TIME, timestamp=max(moment.answered_ns * 1e-9, _start_s(moment)))
        stream.log("latency/total_ms", rr.Scalars(moment.total_ms))
        for stage, ms in moment.stages_ms.items():
            stream.log(_path("latency", stage), rr.Scalars(ms))
        if moment.budget_ms is not None:
            stream.log("latency/deadline_ms", rr.Scalars(moment.budget_ms))
        verdict = moment.verdict
        if not verdict.plain:
            text = "\n".join([f"record {moment.seq}: {verdict.sentence}", *verdict.violations])
            stream.log("guard", rr.TextLog(text, level=LEVELS[verdict.word]))

    def _commanded(self, moment: Moment, until_s: float) -> None:
        """Log the rows of a chunk that were due before the next one began."""
        start_s = _start_s(moment)
        due_s = start_s + (np.arange(len(moment.served)) + 1) * moment.dt_s
        rows = np.flatnonzero(due_s < until_s)
        self._columns("commanded", moment, moment.served[rows], due_s[rows])

    def _limits(self, moment: Moment, at_s: float) -> None:
        """Draw the limits on to a moment."""
        self._stream.set_time(TIME, timestamp=at_s)
        for name in moment.names:
            for series, value in zip(("limit_min", "limit_max"), self._bounds.of(name), strict=True):
                if value is not None:
                    self._stream.log(_path("joints", name, series), self._rr.Scalars(value))

    def _fan(self, kind: str, moment: Moment, rows: Floats) -> None:
        """Log a whole chunk on the fan's line whose chunk ended first, so that chunks that overlap stay apart."""
        if not rows.size or moment.dt_s <= 0:
            return
        start_ns, end_ns = (
            round(_start_s(moment) * 1e9),
            round((_start_s(moment) + (len(rows) + 1) * moment.dt_s) * 1e9),
        )
        lines = self._fans[kind]
        free = next((at for at, ends_ns in enumerate(lines) if ends_ns < start_ns), len(lines))
        if free >= MOST_FANS:
            free = min(range(MOST_FANS), key=lines.__getitem__)
        lines[free : free + 1] = [end_ns]
        due_s = _start_s(moment) + (np.arange(len(rows)) + 1) * moment.dt_s
        self._columns(f"{kind}/{free}", moment, rows, due_s, gap_s=moment.dt_s)

    def _columns(self, series: str, moment: Moment, rows: Floats, due_s: Any, gap_s: float = 0.0) -> None:
        """Put one line per joint with what is sent together. gap_s: after it the line is broken, 0: it goes on."""
        if not len(rows):
            return
        times_s = np.append(due_s, due_s[-1] + gap_s / 2) if gap_s else due_s
        parts = np.ones(len(times_s), np.int64)
        if gap_s:
            parts[-1] = 0
        kind = series.partition("/")[0]
        for column, name in enumerate(moment.names):
            values = rows[:, column].astype(np.float64)
            values[~np.isfinite(values)] = np.nan
            self._stretch(name, values)
            path = _path("joints", name, *series.split("/"))
            if path not in self._lines and kind in FANS:
                self._style(path, kind, *FANS[kind])
            self._lines.setdefault(path, []).append((times_s, values, parts))
        self._waiting += len(rows) * len(moment.names)
        if self._waiting > ROWS_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Send the lines that wait: each is one piece of the file, which costs 2 kB whatever it holds."""
        for path, pieces in self._lines.items():
            if pieces:
                times_s, values, parts = (np.concatenate(column) for column in zip(*pieces, strict=True))
                columns = self._rr.Scalars.columns(scalars=values).partition(parts)
                self._stream.send_columns(
                    path, indexes=[self._rr.TimeColumn(TIME, timestamp=times_s)], columns=columns
                )
        self._lines = {path: [] for path in self._lines}
        self._waiting = 0

    def _in_view(self) -> dict[str, tuple[float, float]]:
        """Return the ends of each joint's axis: around the motion, and to a limit that is near."""
        found = {}
        for name, (least, most) in self._spans.items():
            spare = max(LEAST_SPAN - (most - least), 0.0) / 2
            low, high = least - spare, most + spare
            near = NEAR * (high - low)
            lowest, highest = self._bounds.of(name)
            low = lowest if lowest is not None and low - near <= lowest <= low else low
            high = highest if highest is not None and high <= highest <= high + near else high
            found[name] = (low - 0.05 * (high - low), high + 0.05 * (high - low))
        return found

    def _stretch(self, name: str, values: Any) -> None:
        values = values[np.isfinite(values)]
        if len(values):
            low, high = self._spans.get(name, (math.inf, -math.inf))
            self._spans[name] = (min(low, float(values.min())), max(high, float(values.max())))

    def _arrange(self, moment: Moment) -> None:
        """Declare joints and cameras that are new, and arrange the windows again where there are."""
        joints = [name for name in (*moment.names, *moment.measured) if name not in self._joints]
        cameras = [name for name in moment.images if name not in self._cameras]
        for name in dict.fromkeys(joints):
            self._declare(name)
            self._joints.append(name)
        self._cameras += cameras
        if joints or cameras:
            self.arrange()

    def _declare(self, name: str) -> None:
        for series, (colour, width) in SERIES.items():
            self._style(_path("joints", name, series), series, colour, width)

    def _style(self, path: str, label: str, colour: tuple[int, int, int], width: float) -> None:
        self._stream.log(path, self._rr.SeriesLines(colors=colour, names=label, widths=width), static=True)


def _blueprint(
    joints: Sequence[str], cameras: Sequence[str], in_view: Mapping[str, tuple[float, float]]
) -> Any:
    import rerun.blueprint as rrb

    images = [
        rrb.Spatial2DView(origin=_path("cameras", name), name=_short(name))
        for name in cameras[:CAMERAS_SHOWN]
    ]
    plots = [
        rrb.TimeSeriesView(
            origin=_path("joints", name), name=_short(name), plot_legend=rrb.PlotLegend(visible=False),
            axis_y=rrb.ScalarAxis(range=in_view[name]) if name in in_view else None,
        )
        for name in joints[:JOINTS_SHOWN]
    ]  # fmt: skip
    texts = [rrb.TextDocumentView(origin=name, name=name) for name in ("instruction", "key")]
    below = [
        rrb.TimeSeriesView(origin="latency", name="latency, ms", plot_legend=rrb.Corner2D.RightTop),
        rrb.TextLogView(contents=["guard", "episode", "notes"], name="guard and episodes"),
    ]
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Vertical(*texts, *images, row_shares=[1, 2, *[4] * len(images)]),
            rrb.Vertical(rrb.Grid(*plots), rrb.Horizontal(*below), row_shares=[3, 1]),
            column_shares=[1, 3],
        ),
        rrb.TimePanel(timeline=TIME, state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.BlueprintPanel(state="collapsed"),
    )


def _sdk() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise ConfigurationError(MISSING) from error
    return rerun


@lru_cache(maxsize=4096)
def _path(*parts: str) -> str:
    """Return an entity path; recorded names may hold anything."""
    rr = _sdk()
    return str(rr.new_entity_path([_short(part) for part in parts]))


def _short(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)[:80] or "?"


def _start_s(moment: Moment) -> float:
    return moment.observed_ns * 1e-9
