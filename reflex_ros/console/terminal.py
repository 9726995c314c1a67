# SPDX-License-Identifier: Apache-2.0
"""Progress bars and small tables: drawn on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO, TypeVar

from reflex_core.concurrency.progress import reported_to

BAR_WIDTH = 24
REDRAW_S = 0.1

Row = tuple[str, ...]
Result = TypeVar("Result")


class Bar:
    """Show a progress bar where the stream is a terminal; anywhere else a line every 10 % goes to `plain`, if given."""

    def __init__(
        self, stream: TextIO | None = None, plain: Callable[[str], None] | None = None, unit: str = "requests"
    ) -> None:
        """Create the bar. stream: standard error if left out. unit: what is counted where `draw` gets a number."""
        self._stream = sys.stderr if stream is None else stream
        self._plain = plain
        self._unit = unit
        self._on = self._stream.isatty()
        self._began_s = time.monotonic()
        self._drawn_s = self._shown = 0.0
        self._task, self._tenth = "", 0

    def clear(self) -> None:
        """Erase the bar, so that a line can be printed."""
        if self._on:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def draw(self, fraction: float, done: int | str) -> None:
        """Show the fraction done, 0 to 1, and of what; on a terminal at most ten times a second, unless the text changes."""
        if self._on:
            self._redraw(fraction, done)
        elif self._plain is not None:
            self._log_progress(self._plain, fraction, done)

    def _words(self, done: int | str) -> str:
        if isinstance(done, str):
            return done
        return f"{done} {self._unit}  {done / max(time.monotonic() - self._began_s, 1e-3):.0f}/s"

    def _log_progress(self, plain: Callable[[str], None], fraction: float, done: int | str) -> None:
        task = done.split(":", 1)[0] if isinstance(done, str) else self._unit
        tenth = int(fraction * 10 + 1e-9)
        if task == self._task and tenth == self._tenth:
            return
        self._task, self._tenth = task, tenth
        plain(f"{fraction:4.0%}  {self._words(done)}")

    def _redraw(self, fraction: float, done: int | str) -> None:
        now_s = time.monotonic()
        finished = fraction >= 1.0 > self._shown
        other = isinstance(done, str) and done != self._task
        if now_s - self._drawn_s < REDRAW_S and not finished and not other:
            return
        self._drawn_s, self._shown = now_s, fraction
        self._task = done if isinstance(done, str) else self._unit
        full = round(min(max(fraction, 0.0), 1.0) * BAR_WIDTH)
        bar = "#" * full + "." * (BAR_WIDTH - full)
        # the cursor goes back to the start: another log line then overwrites the bar instead of following it
        self._stream.write(f"\r\x1b[K[{bar}] {fraction:4.0%}  {self._words(done)}\r")
        self._stream.flush()


def watched(work: Callable[[], Result], plain: Callable[[str], None] | None = None) -> Result:
    """Run slow work of the core in this thread and show the progress that it reports, as a bar or plain lines."""
    bar = Bar(plain=plain)
    with reported_to(bar.draw):
        try:
            return work()
        finally:
            bar.clear()


def plain_table(rows: Sequence[Row]) -> list[str]:
    """Return the rows as lines, each column as wide as its widest cell."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[at]) for row in rows if len(row) > at), default=0) for at in range(columns)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]


def drawn(rows: Sequence[Row], title: str, stream: TextIO, styles: Sequence[str] = ()) -> bool:
    """Draw a table with rich, where there is rich and the stream is a terminal. False where it was not drawn.

    styles: one per row, as rich names them; "" is plain.
    """
    if not stream.isatty():
        return False
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(show_header=False, box=box.SIMPLE)
    for at in range(max((len(row) for row in rows), default=0)):
        table.add_column(no_wrap=at == 0, overflow="fold")
    for number, row in enumerate(rows):
        style = styles[number] if number < len(styles) else ""
        table.add_row(*(Text(cell) for cell in row), style=style or None)  # Text: brackets are no markup here
    console = Console(file=stream)
    console.print(title, style="bold", soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    return True
