# SPDX-License-Identifier: Apache-2.0
"""The pages whose commands are run as printed: which block runs where, and what cannot run at all, with the reason.

Fenced blocks are those of tutorial.py. A page says where its commands run in comments that a browser does not show:

    <!-- walk: checkout ros-free -->   the blocks from here on run in each of these places; `checkout` where nothing is stated
    <!-- walk: skip KEY -->            the next block does not run, for the reason of that key
    <!-- walk: nowhere KEY -->         neither do all from here on
    <!-- walk: while COMMAND -->       the next block runs while this command does
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repository import ROOT
from tutorial import FAILS, OUTPUT, ROBOT, RUN, Block

CHECKOUT, WORKSPACE, ROS_FREE = PLACES = ("checkout", "workspace", "ros-free")
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    ROOT / "docs" / "reference" / "features.md",
]

INSTALL = "bash install"  # needs the network, which the other commands do not get
UNNAMED = ""
COMMANDS = {UNNAMED, RUN, FAILS, ROBOT, INSTALL}
FILES = {"cpp", "ini", "json", "promql", "python", "toml", "yaml"}

REASONS = {
    "robot": "needs a robot; test/docs/test_tutorials.py compares every name with a node that runs",
    "itself": "runs this test",
    "elsewhere": "needs a server on another machine; test/ros and test/http run it against one on this machine",
    "gpu": "needs an NVIDIA GPU or a Jetson",
    "lerobot": "needs torch and LeRobot; test/export follows the page in .venv-export (make test-export)",
    "package": "needs a package that another program wrote; test/exporting imports some",
    "upgrade": "needs files of an earlier version; test/docs/test_upgrade_page.py follows the page",
    "training": "trains for hours",
    "apt": "installs with apt, or needs the ROS 2 of apt",
}
# what a page asks for in words, as a command
SENTENCES = {
    "needs matplotlib": "pip install 'reflex_ros[plot]'",
    "the test pytest": "pip install pytest",
}
# commands that do not run here, by how they begin, each with a key of REASONS
NOT_HERE = {
    "amtool": "apt",
    "make test": "itself",
    "hf": "elsewhere",
    "promtool": "apt",
    "ros2": "robot",
    "rosdep": "apt",
    "rqt_plot": "robot",
    "sudo": "apt",
}

_MARK = re.compile(
    r"<!-- walk: (?P<walk>.*?) -->|^```(?P<kind>[^\n]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Step:
    """One block, where it runs, and why not.

    places: empty where it does not run. reason: a key of REASONS, or empty. beside: a command that runs meanwhile.
    """

    block: Block
    places: tuple[str, ...]
    reason: str = ""
    beside: str = ""

    @property
    def commands(self) -> str:
        """The lines to run: without the prompt, and without those whose program is not here."""
        if self.block.kind not in COMMANDS or self.block.kind == ROBOT:
            return ""
        code = re.sub(r"^\$ ", "", self.block.code, flags=re.MULTILINE)
        if "<<" in code:
            return code
        return "".join(line for line in logical_lines(code) if not not_here(line))

    @property
    def listed(self) -> list[str]:
        """The reasons for what does not run, as keys of REASONS; several where lines of the block differ."""
        if self.block.kind not in COMMANDS:
            return []
        if self.block.kind == ROBOT:
            return ["robot"]
        if self.reason:
            return [self.reason]
        lines = [] if "<<" in self.block.code else logical_lines(self.block.code)
        return [key for key in map(not_here, lines) if key]


def steps(text: str) -> list[Step]:
    """Return the blocks of a page in order.

    Raises:
        ValueError: a comment that this reader does not know, or a block of an unknown kind.
    """
    found, at = list[Step](), 0
    places, reason, beside, rest = (CHECKOUT,), "", "", ""
    for match in _MARK.finditer(text):
        words = (match["walk"] or "").split()
        if not words:
            kind, code = match["kind"].strip(), match["code"]
            if kind not in COMMANDS | FILES | {OUTPUT}:
                raise ValueError(
                    f"a block is labelled `{kind}`: commands are `bash`, what they print is `text`"
                )
            why = reason or rest
            block = Block(kind, code, text[at : match.start()])
            found.append(Step(block, () if why else places, why, beside))
            reason, beside, at = "", "", match.end()
        elif words[0] in ("skip", "nowhere") and len(words) == 2 and words[1] in REASONS:
            reason, rest = (words[1], rest) if words[0] == "skip" else (reason, words[1])
        elif words[0] == "while":
            beside = " ".join(words[1:])
        elif set(words) <= set(PLACES):
            places, rest = tuple(words), ""
        else:
            raise ValueError(f"<!-- walk: {match['walk']} --> is neither places, skip, nowhere nor while")
    return found


def page_steps(page: Path) -> list[Step]:
    """Return the blocks of a page of the repository in order."""
    return steps(page.read_text(encoding="utf-8"))


def needs(text: str) -> list[str]:
    """Return what the sentences of a page have a reader install, as commands."""
    inline = re.findall(r"`(pip install (?:pytest|'reflex_ros\[\w+\]'))`", text)
    return sorted({*inline, *(command for words, command in SENTENCES.items() if words in text)})


def walks() -> Iterator[tuple[str, Path]]:
    """Yield every place with every page that has commands for it."""
    for place in PLACES:
        for page in PAGES:
            if any(place in step.places and step.commands for step in page_steps(page)):
                yield place, page


def logical_lines(code: str) -> list[str]:
    """Return the lines of a block, each with those that it continues on."""
    return re.findall(r"(?:[^\n]*\\\n)*[^\n]*\n", code)


def not_here(line: str) -> str:
    """Return the reason, a key of REASONS, why a line does not run anywhere; empty where it does."""
    command = re.sub(r"^\s*(?:\$ )?(?:\w+=\S* )*", "", line)
    return next((key for begin, key in NOT_HERE.items() if f"{command.strip()} ".startswith(f"{begin} ")), "")
