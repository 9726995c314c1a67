# SPDX-License-Identifier: Apache-2.0
"""Pictures of the page for the documentation: every state, on a desk and on a phone, light and dark.

    python -m benchmarks.page_pictures --output docs/pictures

Serves the embedded policy and lets a real browser look at each state of `benchmarks.page_states`. The tests of the page
compare what they see with the sheets that this writes.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.chromium import ROOT, Browser, Page, browser
from benchmarks.page_states import AT, EVERY, LOST, STATES, Shown, State, shown

QUALITY = 82  # of the sheets, WebP
COLOURS = 256  # of the single pictures, PNG: fewer turn a yellow cube brown
GAP = 8  # pixels between the pictures of a sheet


@dataclass(frozen=True)
class Size:
    """What the page is looked at with. columns: of the sheet; scale: of a picture in it."""

    name: str
    width: int
    height: int
    phone: bool
    columns: int
    scale: float

    @property
    def tile(self) -> tuple[int, int]:
        """Width and height of a picture in the sheet."""
        return round(self.width * self.scale), round(self.height * self.scale)

    def place(self, number: int) -> tuple[int, int]:
        """Where in the sheet the picture of a state is."""
        width, height = self.tile
        return number % self.columns * (width + GAP), number // self.columns * (height + GAP)


SIZES = (Size("desk", 1440, 900, False, 2, 0.5), Size("phone", 390, 844, True, 4, 0.72))
THEMES = ("light", "dark")
SETTLED = "document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))"


def sheet_name(size: Size, theme: str) -> str:
    """Return the file name of the sheet of every state."""
    return f"page_{size.name}_{theme}.webp"


def opened(chromium: Browser, server: Shown, size: Size, theme: str) -> Page:
    """Open the page at a size, in a theme, while nothing is wrong."""
    server.show(STATES[1])
    page = chromium.open(server.sidecar.url, size.width, size.height, phone=size.phone, theme=theme)
    page.wait_text("#word", STATES[1].word)
    page.wait("document.querySelector('#cameras img')?.naturalWidth")
    return page


def look(page: Page, server: Shown, state: State) -> None:
    """Bring the page into a state and wait until it is drawn."""
    url = server.locked.url if state.locked else server.sidecar.url
    if not str(page.look("location.href")).startswith(url):
        page.call("Page.navigate", url=url)
        page.wait("location.href", lambda href: href.startswith(url))
        page.wait(
            "document.getElementById('word')?.textContent", lambda word: word not in (None, "CONNECTING")
        )
    if state.locked:
        page.wait_text("#word", state.word)
        page.wait("!document.getElementById('key-form').hidden")
        page.look(SETTLED)
        return
    if state is LOST:  # while it was ready
        server.show(STATES[1])
        page.wait_text("#word", STATES[1].word)
        page.wait_text("#guard-note", "0 of 10")
        page.wait(
            "document.querySelector('#cameras img')?.complete && !document.querySelector('#cameras .empty')"
        )
        server.lose()
    else:
        server.show(state)
    page.wait_text("#word", state.word)
    if state.answers and state is not LOST:
        page.wait("document.querySelector('#cameras img')?.complete")
        page.wait("document.querySelectorAll('.joint').length", lambda many: many == len(AT))
    page.wait(
        "document.querySelectorAll('#cameras .empty').length",
        lambda many: many == (0 if state.answers else 1),
    )
    page.wait("document.getElementById('top').dataset.level", lambda level: level == state.level)
    page.look(SETTLED)


def photographed(page: Page, size: Size) -> Image.Image:
    """Return what can be seen, in CSS pixels."""
    picture = Image.open(io.BytesIO(page.png())).convert("RGB")
    return picture.resize((size.width, size.height), Image.Resampling.LANCZOS)


def photographs(
    chromium: Browser, server: Shown, size: Size, theme: str
) -> Iterator[tuple[State, Image.Image]]:
    """Yield every state with its picture."""
    page = opened(chromium, server, size, theme)
    try:
        for state in EVERY:
            look(page, server, state)
            yield state, photographed(page, size)
    finally:
        page.close()


def sheet(size: Size, pictures: Sequence[Image.Image]) -> Image.Image:
    """Return the pictures side by side."""
    width, height = size.tile
    rows = -(-len(pictures) // size.columns)
    columns = min(size.columns, len(pictures))
    found = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), (127, 127, 127))
    for number, picture in enumerate(pictures):
        found.paste(picture.resize(size.tile, Image.Resampling.LANCZOS), size.place(number))
    return found


def tile_of(kept: Image.Image, size: Size, number: int) -> Image.Image:
    """Return the picture of a state in a sheet."""
    left, top = size.place(number)
    width, height = size.tile
    return kept.crop((left, top, left + width, top + height))


def main(argv: Sequence[str] | None = None) -> int:
    """Write a sheet per size and theme, and the pictures of README and of the page's reference."""
    parser = argparse.ArgumentParser(description="Pictures of the page in every state.")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "pictures", help="folder for the pictures [docs/pictures]"
    )  # fmt: skip
    parser.add_argument(
        "--whole", type=Path, default=None, help="folder for every picture at its full size [none]"
    )
    arguments = parser.parse_args(argv)
    with shown() as server, browser() as chromium:
        for size in SIZES:
            for theme in THEMES:
                found = list(photographs(chromium, server, size, theme))
                made = sheet(size, [picture for _, picture in found])
                made.save(arguments.output / sheet_name(size, theme), quality=QUALITY, method=6)
                if theme == "light":
                    _single(found[1][1]).save(arguments.output / single_name(size), optimize=True)
                if arguments.whole is not None:
                    arguments.whole.mkdir(parents=True, exist_ok=True)
                    for state, picture in found:
                        picture.save(arguments.whole / f"{size.name}_{theme}_{state.name}.png")
                print(f"wrote {arguments.output / sheet_name(size, theme)}", flush=True)
    return 0


def single_name(size: Size) -> str:
    """Return the file name of the picture of the page while it is ready."""
    return "page_phone.png" if size.phone else "page.png"


def _single(picture: Image.Image) -> Image.Image:
    return picture.quantize(COLOURS, dither=Image.Dither.NONE, kmeans=1)


if __name__ == "__main__":
    sys.exit(main())
