# SPDX-License-Identifier: Apache-2.0
"""Pictures of the rqt panel for the documentation: rqt.png of the running demo, rqt_states.png of every state.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.rqt_pictures

Every state is drawn on a light and on a dark palette from messages made by hand; --each DIR writes one file for each as well.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exports import ROOT
from benchmarks.page_states import CAMERA
from benchmarks.rqt_states import NOW_S, STATES, board_in, synthetic_picture
from reflex_core.values import Pixels

SIZE = (1280, 800)
SHEET_WIDTH = 760  # of one state on the sheet
SECONDS = 45.0  # of the demo before its picture: there is something in every plot
CHUNKS = 40  # before the machine's latency is believed
PATIENCE_S = 240.0
WALL_S = 1_764_532_800.0  # of the made-up states, so that the pictures stay as they are
DARK = {
    "Window": "#1b2127", "WindowText": "#eef3f7", "Base": "#10161c", "AlternateBase": "#1b2127", "Text": "#eef3f7",
    "Button": "#2a323a", "ButtonText": "#eef3f7", "ToolTipBase": "#10161c", "ToolTipText": "#eef3f7", "Highlight": "#2f7fc1",
    "HighlightedText": "#ffffff", "PlaceholderText": "#8796a3", "Light": "#3a4855", "Mid": "#3a4855", "Dark": "#0b0f13",
}  # fmt: skip


class NoRobot:
    """A robot on which no button acts."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def application() -> Any:
    """The one QApplication, in the style that looks the same on every machine."""
    from reflex_ros.rqt.qt import QtWidgets

    found = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
    found.setStyle("Fusion")
    font = found.font()
    font.setPointSize(9)  # as a desktop has it; without a screen Qt takes a larger one
    found.setFont(font)
    return found


def palette_of(dark: bool) -> Any:
    """The palette of a light or of a dark desktop."""
    from reflex_ros.rqt.qt import QtGui, QtWidgets

    palette = QtWidgets.QStyleFactory.create("Fusion").standardPalette()
    for role, colour in DARK.items() if dark else ():
        palette.setColor(getattr(QtGui.QPalette, role), QtGui.QColor(colour))
    if dark:
        for role in ("Text", "WindowText", "ButtonText"):
            palette.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, role), QtGui.QColor("#75828e"))
    return palette


def image_of(state: str, dark: bool, picture: Pixels) -> Any:
    """The panel in one state, as a QImage."""
    from reflex_ros.rqt.widget import Panel

    host = application()
    host.setPalette(palette_of(dark))
    board = board_in(state, picture=picture)
    panel = Panel(board.view, NoRobot(), lambda _: None, lambda: NOW_S, lambda: WALL_S)
    panel.resize(*SIZE)
    panel.show()
    panel.refresh()
    host.processEvents()
    image = panel.grab().toImage()
    panel.end()
    panel.close()
    panel.deleteLater()
    return image


@contextmanager
def demo(out: Path) -> Iterator[str]:
    """The demo in a process of its own: its ROS domain."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "reflex_ros.demo.run",
        "--episodes",
        "200",
        "--port",
        "8137",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        domain = ""
        for line in process.stdout:
            domain = (re.findall(r"ROS_DOMAIN_ID=(\d+)", line) or [domain])[0]
            if "first chunk followed" in line:
                break
        assert domain, f"the demo did not start; see its logs in {out}"
        yield domain
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def photograph_demo(path: Path, out: Path) -> Pixels:
    """Write rqt.png while the demo runs, with a deadline and an objective, and return what its camera shows."""
    from reflex_ros.demo.participant import Participant
    from reflex_ros.rqt.client import Client
    from reflex_ros.rqt.widget import Panel

    with demo(out) as domain:
        os.environ |= {"ROS_DOMAIN_ID": domain, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        host = application()
        host.setPalette(palette_of(False))
        client = Client("/reflex")
        with Participant("photographer") as person:
            person.set_parameters("reflex", bounds_of(client))
        panel = Panel(client.board.view, client, lambda _: None)
        panel.resize(*SIZE)
        panel.show()
        end_s = time.monotonic() + PATIENCE_S
        enough_s = time.monotonic() + SECONDS
        while (
            time.monotonic() < enough_s
            or panel.banner.word.text() != "READY"
            or not client.board.view(0.0).pictures
        ):
            assert time.monotonic() < end_s, f"the panel shows {panel.banner.word.text()}, not READY"
            host.processEvents()
            time.sleep(0.01)
        panel.grab().save(str(path))
        pixels = client.board.view(0.0).pictures[0].pixels
        panel.end()
        panel.close()
        client.close()
        return synthetic_picture() if pixels is None else pixels


def camera_of_the_demo() -> Pixels:
    """What the picking policy's camera showed once, (height, width, 3) uint8 RGB."""
    import simplejpeg

    pixels: Pixels = simplejpeg.decode_jpeg(CAMERA.read_bytes(), colorspace="RGB")
    return pixels


def bounds_of(client: Any) -> dict[str, Any]:
    """A deadline and an objective that this machine keeps, in whole 50 ms, so that both lines are in the plot."""
    end_s = time.monotonic() + PATIENCE_S
    while sum(second.count for second in client.board.view(time.monotonic()).seconds) < CHUNKS:
        assert time.monotonic() < end_s, f"the robot did not get {CHUNKS} chunks"
        time.sleep(0.2)
    p99_ms = client.board.view(time.monotonic()).figures.p99_ms
    objective_ms, deadline_ms = (50 * int(share * p99_ms / 50 + 1) for share in (1.3, 1.8))
    return {"deadline_ms": float(deadline_ms), "slo": f"p99={objective_ms}ms", "slo_mode": "log_only"}


def sheet(images: Sequence[tuple[Any, Any]]) -> Any:
    """Rows of a light and a dark picture, as a Pillow image of few colours."""
    from PIL import Image

    height = SHEET_WIDTH * SIZE[1] // SIZE[0]
    found = Image.new("RGB", (2 * SHEET_WIDTH + 30, len(images) * (height + 10) + 10), "#8a8f98")
    for row, pair in enumerate(images):
        for column, image in enumerate(pair):
            small = Image.fromarray(pixels_of(image)).resize((SHEET_WIDTH, height), Image.Resampling.LANCZOS)
            found.paste(small, (10 + column * (SHEET_WIDTH + 10), 10 + row * (height + 10)))
    return found.quantize(256)


def pixels_of(image: Any) -> Any:
    """(height, width, 3) uint8 of a QImage."""
    from reflex_ros.rqt.qt import QtGui

    image = image.convertToFormat(QtGui.QImage.Format_RGBA8888)
    bits = image.bits()
    bits.setsize(image.byteCount())
    return np.frombuffer(bits, np.uint8).reshape(image.height(), image.width(), 4)[:, :, :3].copy()


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description="Pictures of the rqt panel in every state.")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "pictures", help="folder [docs/pictures]"
    )
    parser.add_argument(
        "--each", type=Path, help="also write one PNG for each state and palette into this folder"
    )
    parser.add_argument(
        "--no-demo", action="store_true", help="leave rqt.png as it is, and draw a kept picture of its camera"
    )
    parser.add_argument("--demo-out", type=Path, default=ROOT / "demo_out" / "rqt", help="logs of the demo")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    picture = camera_of_the_demo()
    if not arguments.no_demo:
        picture = photograph_demo(arguments.output / "rqt.png", arguments.demo_out)
    os.environ["TZ"] = "UTC"
    time.tzset()
    images = []
    for state in STATES:
        pair = (image_of(state, False, picture), image_of(state, True, picture))
        images.append(pair)
        if arguments.each:
            arguments.each.mkdir(parents=True, exist_ok=True)
            for image, palette in zip(pair, ("light", "dark"), strict=True):
                image.save(str(arguments.each / f"{state.lower().replace(' ', '_')}_{palette}.png"))
    sheet(images).save(arguments.output / "rqt_states.png", optimize=True)
    print(
        f"wrote {arguments.output / 'rqt_states.png'}"
        + ("" if arguments.no_demo else f" and {arguments.output / 'rqt.png'}")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
