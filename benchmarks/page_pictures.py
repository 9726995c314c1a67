# SPDX-License-Identifier: Apache-2.0
"""Pictures of the page for the documentation, taken while the demo's arm moves.

    python -m benchmarks.page_pictures --output docs

Starts the demo, asks the node for a deadline and an objective over ROS, as a person would, and photographs the page at
the size of a desktop and of a phone.
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

from benchmarks.chromium import Page, browser
from benchmarks.exports import ROOT
from reflex_ros.demo.participant import Participant

DESKTOP, PHONE = (1280, 800), (390, 844)
CHUNKS = 120  # so many answers make a histogram
PATIENCE_S = 240.0


@contextmanager
def demo(out: Path) -> Iterator[tuple[str, str]]:
    """The demo in a process of its own: the page's address and the ROS domain."""
    command = [sys.executable, "-u", "-m", "reflex_ros.demo.run", "--episodes", "200", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = domain = ""
        for line in process.stdout:
            url = (re.findall(r"http://\S+", line) or [url])[0]
            domain = (re.findall(r"ROS_DOMAIN_ID=(\d+)", line) or [domain])[0]
            if "first chunk followed" in line:
                break
        assert domain, "the demo did not start; see its logs in " + str(out)
        yield url, domain
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def photograph(page: Page, path: Path) -> None:
    """What can be seen without scrolling, once there is something in every panel."""
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.wait("document.getElementById('word').innerText", lambda word: word == "READY")
    page.wait("document.querySelector('#cameras img')?.naturalWidth")
    page.picture(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write page.png and page_phone.png."""
    parser = argparse.ArgumentParser(description="Pictures of the page, taken while the demo runs.")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "docs" / "pictures",
        help="folder for the pictures [docs/pictures]",
    )
    parser.add_argument(
        "--chunks", type=int, default=CHUNKS, help=f"answers before the first picture [{CHUNKS}]"
    )
    parser.add_argument("--demo-out", type=Path, default=ROOT / "demo_out" / "page", help="logs of the demo")
    arguments = parser.parse_args(argv)
    with demo(arguments.demo_out) as (url, domain), browser() as chromium:
        os.environ |= {"ROS_DOMAIN_ID": domain, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        with Participant("photographer") as person:
            person.set_parameters(
                "reflex", {"deadline_ms": 300.0, "slo": "p99=200ms", "slo_mode": "log_only"}
            )
        desktop = chromium.open(url, *DESKTOP)
        wait_for_answers(desktop, arguments.chunks)
        tall = int(desktop.look("document.getElementById('chunk').getBoundingClientRect().bottom")) + 16
        desktop.resize(DESKTOP[0], max(tall, DESKTOP[1]))
        photograph(desktop, arguments.output / "page.png")
        phone = chromium.open(url, *PHONE, phone=True)
        photograph(phone, arguments.output / "page_phone.png")
    print(f"wrote {arguments.output / 'page.png'} and {arguments.output / 'page_phone.png'}")
    return 0


def wait_for_answers(page: Page, many: int) -> None:
    """Until the page has counted so many answers."""
    answers = "Number(document.querySelector('#counter-facts dd')?.innerText ?? 0)"
    end_s = time.monotonic() + PATIENCE_S
    while int(page.look(answers)) < many:
        assert time.monotonic() < end_s, f"the robot did not get {many} chunks"
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
