# SPDX-License-Identifier: Apache-2.0
"""A tutorial of docs/tutorials as what it tells its reader to do: files to save, commands to run, output to expect.

A fenced block is one of these, by its first words:

    bash          commands that a test runs, in the order of the page; `reflex serve` goes on until the text says Ctrl-C
    bash fails    the same, and they must fail
    bash robot    commands for a machine with a robot: read by a test, not run
    text          lines that the commands before have printed; ... stands for anything
    other         a file, saved under the name that the text before says: Save as `name`:
"""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

from domains import free_domain
from http_client import Client
from repository import ROOT

from reflex_ros.cli.main import main as reflex
from reflex_ros.cli.verbs import VERBS
from reflex_ros.graph.dds_profile import PROFILE_VARIABLES

TUTORIALS = ROOT / "docs" / "tutorials"
PATIENCE_S = 120.0  # a bound for machines under load, never a measure
RUN, FAILS, ROBOT, OUTPUT = "bash", "bash fails", "bash robot", "text"

WITH_VERBS = ("guard", "audit", "ab", "bag", "trace")  # commands that have commands
HERE = ["--port", "0", "--device", "cpu", "--intra-op-threads", "1"]  # a test shares its machine

# a workspace has `reflex` on PATH; elsewhere it is that of this checkout
_COMMANDS = """
program() { if [ -n "${WORKSPACE:-}" ]; then command reflex "$@"; else "$PYTHON" -m reflex_ros.cli.main "$@"; fi; }
reflex() {
  case "$1" in
    serve) program serve --port "$PORT" --device cpu --intra-op-threads 1 "${@:2}" ;;
    doctor) program doctor --port "$PORT" --device cpu --intra-op-threads 1 "${@:2}" ;;
    *) program "$@" ;;
  esac
}
python3() { if [ "${2:-}" = pytest ]; then "$PYTHON" "$@" -p no:cacheprovider; else "$PYTHON" "$@"; fi; }
curl() { command curl --silent --show-error --fail-with-body "$@"; }
"""


@dataclass(frozen=True, slots=True)
class Documented:
    """Commands that pages write. reflex: with the sub-command where it has some. run: executables of `ros2 run`."""

    reflex: set[str]
    run: set[str]


def commands_of(pages: Iterable[Path]) -> Documented:
    """Every command of ours in code and between backticks. Fails for one that is not there at all."""
    found = Documented(set(), set())
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for command, verb in re.findall(
            r"(?:^|`|\$ |=\d+ |run reflex_ros )reflex ([a-z][a-z-]*)(?: ([a-z]+)\b)?", text, re.MULTILINE
        ):
            assert command in VERBS, f"{page}: reflex {command}"
            found.reflex.add(f"{command} {verb}".strip() if command in WITH_VERBS else command)
        found.run.update(re.findall(r"ros2 run reflex_ros (\w+)", text))
    return found


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. before: the text between it and the block before."""

    kind: str
    code: str
    before: str

    @property
    def file(self) -> str:
        """The name under which the reader saves it; empty: it is no file."""
        found = re.search(r"[Ss]ave (?:it )?as `([^`]+)`[^`]*:\s*$", self.before)
        return found[1] if found else ""

    @property
    def serves(self) -> bool:
        """True for what goes on until Ctrl-C."""
        return bool(re.search(r"^(?:\w+=\S+ )?reflex serve ", self.code, re.MULTILINE))

    @property
    def alone(self) -> bool:
        """True where every line is a command of `reflex` and nothing needs a shell."""
        return all(re.fullmatch(r"reflex [^|<>&$\\]*", line) for line in self.code.splitlines())


def blocks(page: str) -> list[Block]:
    """The fenced blocks of docs/tutorials/<page>.md in order."""
    text = (TUTORIALS / f"{page}.md").read_text(encoding="utf-8")
    found, at = [], 0
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        found.append(Block(match[1].strip(), match[2], text[at : match.start()]))
        at = match.end()
    return found


@dataclass
class Reader:
    """A reader who follows a page in a folder of their own, which holds `models` as a checkout does.

    workspace: the install folder of a colcon workspace that they have sourced; None: this checkout is used.
    """

    folder: Path
    port: int
    domain: int
    workspace: Path | None = None
    printed: str = ""
    serving: subprocess.Popen[str] | None = None
    served: list[str] = field(default_factory=list)

    def follow(self, found: list[Block]) -> None:
        """Do what the blocks say, in order; the last server goes on."""
        for block in found:
            if "Ctrl-C" in block.before:
                self.interrupt()
            self._do(block)

    def _do(self, block: Block) -> None:
        if block.kind == ROBOT:
            return
        if block.kind == OUTPUT:
            self._expect(block.code)
        elif block.file:
            (self.folder / block.file).write_text(block.code.replace(":8000", f":{self.port}"))
        elif block.serves:
            self._serve(block.code)
        elif block.kind in (RUN, FAILS):
            here = block.alone and self.workspace is None
            status = self._here(block.code) if here else self._in_a_shell(block.code)
            assert (status != 0) == (block.kind == FAILS), f"{block.code}\n{self.printed}"
        else:
            raise AssertionError(f"a block that is not tested: {block}")

    def _here(self, code: str) -> int:
        """The last status of commands of `reflex`, run in this process: nothing is imported anew."""
        output, status = io.StringIO(), 0
        with chdir(self.folder), redirect_stdout(output), redirect_stderr(output):
            for line in code.splitlines():
                status = reflex(self._words(line))
        self.printed = output.getvalue()
        return status

    def _words(self, line: str) -> list[str]:
        given = shlex.split(line, comments=True)[1:]
        words = [
            name
            for word in given
            for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
        ]
        return [*words, *HERE] if words[0] in ("serve", "doctor") else words

    def _in_a_shell(self, code: str) -> int:
        process = self._begin(code)
        self.printed, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode

    def _expect(self, lines: str) -> None:
        for line in lines.splitlines():
            pattern = ".*".join(map(re.escape, line.split("...")))
            assert re.search(f"^{pattern}$", self.printed, re.MULTILINE), f"{line}\nnot in\n{self.printed}"

    def _begin(self, code: str) -> subprocess.Popen[str]:
        code = code.replace(":8000", f":{self.port}").replace(
            "ROS_DOMAIN_ID=42", f"ROS_DOMAIN_ID={self.domain}"
        )
        environment = dict(
            os.environ, PYTHON=sys.executable, PORT=str(self.port),
            ROS_DOMAIN_ID=str(self.domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", MPLBACKEND="Agg", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        )  # fmt: skip
        environment |= self._sources()
        for name in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", *PROFILE_VARIABLES):
            environment.pop(name, None)
        sourced = f'. "{self.workspace}/setup.sh"\n' if self.workspace is not None else ""
        return subprocess.Popen(
            ["bash", "-c", f"{sourced}set -euo pipefail\n{_COMMANDS}{code}"], cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _sources(self) -> dict[str, str]:
        """Where programs and modules come from: this checkout, or the workspace on top of this environment's ROS."""
        if self.workspace is None:
            return {"PYTHONPATH": str(ROOT)}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        wheels = (
            {}
            if os.environ.get("ROS_DISTRO")
            else {"AMENT_PREFIX_PATH": sys.prefix, "CMAKE_PREFIX_PATH": sys.prefix}
        )
        return {"WORKSPACE": str(self.workspace), "PATH": programs, **wheels}

    def _serve(self, code: str) -> None:
        assert self.serving is None, "the page never said that the server before is to be ended"
        self.serving = self._begin(code)
        client, end = Client(self.port), time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self.serving.poll() is None, self.serving.communicate()[0]
            try:
                if client.get("/health").status == 200:
                    return
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.05)
        raise AssertionError(f"never ready: {code}")

    def interrupt(self) -> None:
        """Ctrl-C in the terminal of the server, which must end in order."""
        serving, self.serving = self.serving, None
        if serving is None:
            return
        os.killpg(serving.pid, signal.SIGINT)
        output, _ = serving.communicate(timeout=PATIENCE_S)
        self.served.append(output)
        assert "Traceback" not in output, output


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """contextlib.chdir, which Python 3.10 lacks."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def reader(folder: Path, workspace: Path | None = None) -> Iterator[Reader]:
    """A reader whose last server does not outlive the test."""
    (folder / "models").symlink_to(ROOT / "models")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = Reader(folder, port, free_domain(), workspace)
    try:
        yield found
    finally:
        if found.serving is not None:
            with suppress(ProcessLookupError):  # it failed and is gone
                os.killpg(found.serving.pid, signal.SIGKILL)
            found.serving.communicate()
