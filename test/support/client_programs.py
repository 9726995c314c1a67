# SPDX-License-Identifier: Apache-2.0
"""Programs with clients of other projects, each in the environment that `make test-clients` makes for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from repository import ROOT
from wire_pipe import receive, send

PROGRAMS = ROOT / "test" / "clients" / "programs"


class Peer:
    """One program, to which observations are given."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def infer(self, image: Any, state: Any, instruction: str, *, seed: int = 0, first: bool = False) -> Any:
        """The rows (n, width) that its client was answered with."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wanted = {"image": image, "state": state, "instruction": instruction, "seed": seed, "first": first}
        send(self._process.stdin, **wanted)  # type: ignore[arg-type]
        found = receive(self._process.stdout)  # type: ignore[arg-type]
        assert found is not None, "the program ended; what it wrote is above"
        assert "error" not in found, found["error"]
        return found["rows"]


@contextmanager
def running(environment: str, program: str, *arguments: object) -> Iterator[Peer]:
    python = ROOT / ".venv-clients" / environment / "bin" / "python"
    assert python.exists(), f"{python} is missing: make test-clients makes it"
    command = [str(python), str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Peer(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def lines_of_page() -> dict[str, str]:
    """What docs/reference/wires.md says to type, by client."""
    page = (ROOT / "docs" / "reference" / "wires.md").read_text(encoding="utf-8")
    table = page.partition("## What to type")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| ([^|]+) \| `([^`]+)` \|", table, re.MULTILINE))


def typed(client: str, port: int) -> str:
    """The line for a client, for a server on this port."""
    return re.sub("8000|5555", str(port), lines_of_page()[client])
