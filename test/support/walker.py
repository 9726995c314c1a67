# SPDX-License-Identifier: Apache-2.0
"""A reader who runs the commands of a page in a place, as printed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tutorial import FAILS, OUTPUT
from walk_pages import INSTALL, Step, steps
from walk_places import Place, install
from walk_substitutes import SUBSTITUTES, make

COMMAND_S = 900.0  # bounds for machines under load, never measures
READY_S = 300.0
SERVES = re.compile(r"^(?:\w+=\S* )*reflex serve ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Server:
    """A command that goes on. output: the file that it prints into."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def printed(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    @property
    def port(self) -> str:
        """The port of the first address of this machine in its output; empty before there is one."""
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.printed)
        return found[1] if found else ""

    def end(self) -> None:
        """Ctrl-C, which it must take without a traceback."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=READY_S)
        assert "Traceback" not in self.printed, self.printed


@dataclass
class Walker:
    """A reader in a place. enter: words that begin a command which is alone (walk_places.alone)."""

    place: Place
    enter: list[str]
    logs: Path
    printed: str = ""
    serving: Server | None = None
    ran: list[str] = field(default_factory=list)

    def walk(self, found: list[Step]) -> None:
        """Prepare what the page takes for granted, and do what it says for this place.

        Raises:
            AssertionError: a command ends otherwise than the page says, or prints something else.
        """
        here = [step for step in found if self.place.name in step.places]
        self._prepare(here)
        self._follow(found, here)

    def _follow(self, found: list[Step], here: list[Step]) -> None:
        after_a_command = False
        for step in found:
            if "Ctrl-C" in step.block.before:
                self._end()
            if step.block.kind == OUTPUT:
                if after_a_command and step in here:
                    self._expect(step.block.code)
            elif step in here and step.block.file:
                (self.place.folder / step.block.file).write_text(step.block.code)
            elif step.commands.strip():
                after_a_command = step in here
                if after_a_command:
                    self._do(step)
        self._end()

    def _prepare(self, here: list[Step]) -> None:
        made = {step.block.file for step in here}
        code = "".join(step.commands for step in here)
        for each in SUBSTITUTES:
            if self._first_is_ours(each.word, code, made):
                if each.walk and not (self.place.folder / each.word).exists():
                    self._follow(recorded := steps(each.walk), recorded)
                make(each.word, self.place.folder)

    def _first_is_ours(self, word: str, code: str, made: set[str]) -> bool:
        """True where a page names something that none of its own commands makes."""
        if word not in code or word in made:
            return False
        until = code[: code.index(word) + len(word)]
        name = re.escape(word.rstrip("/"))
        return not re.search(rf"^cp .* {name}/?$|(?:--output|--record|>) ?{name}\b", until, re.MULTILINE)

    def _do(self, step: Step) -> None:
        self.ran.append(step.commands)
        lines = step.commands.splitlines(keepends=True)
        code = "".join(line for line in lines if line.strip() not in self.place.done)
        for each in SUBSTITUTES:
            code = code.replace(each.word, each.replacement or each.word)
        if step.block.kind == INSTALL:
            install(self.place, code)
            return
        if step.beside:
            self._end()
            self.serving = self._serve(step.beside)
        if SERVES.search(code):
            self._end()
            self.serving = self._serve(code)
            return
        process = self._begin(code, subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=COMMAND_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self.printed = output.decode(errors="replace")
        served = self.serving.printed[-2000:] if self.serving else ""
        assert (process.returncode != 0) == (step.block.kind == FAILS), (
            f"ended with {process.returncode}:\n{code}\n{self.printed[-4000:]}\n{served}"
        )
        if step.beside:
            self._end()

    def _expect(self, lines: str) -> None:
        for line in lines.splitlines():
            pattern = ".*".join(map(re.escape, line.split("...")))
            assert re.search(f"^{pattern}$", self.printed, re.MULTILINE), (
                f"{line}\nnot in\n{self.printed[-4000:]}"
            )

    def _begin(self, code: str, output: int) -> subprocess.Popen[bytes]:
        shell = f"set -eo pipefail\ncd {shlex.quote(str(self.place.folder))}\n{self.place.before}\n{code}"
        return subprocess.Popen(
            [*self.enter, "bash", "-c", shell], env=self.place.environment(at_home=True), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _serve(self, code: str) -> Server:
        log = self.logs / f"server-{len(self.ran)}.log"
        with log.open("wb") as output:
            server = Server(self._begin(code, output.fileno()), log)
        self.serving = server
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            assert server.process.poll() is None, f"{code}\nended:\n{server.printed[-4000:]}"
            if server.port and self._healthy(server.port):
                return server
            time.sleep(0.2)
        raise AssertionError(f"never ready:\n{code}\n{server.printed[-4000:]}")

    def _healthy(self, port: str) -> bool:
        ask = [*self.enter, "curl", "--silent", "--fail", "--output", "/dev/null", "--max-time", "5", f"http://127.0.0.1:{port}/health"]  # fmt: skip
        return subprocess.run(ask, check=False).returncode == 0

    def _end(self) -> None:
        serving, self.serving = self.serving, None
        if serving is not None:
            try:
                serving.end()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(serving.process.pid, signal.SIGKILL)


@contextmanager
def walker(place: Place, enter: list[str], logs: Path) -> Iterator[Walker]:
    """A walker in a place as it was installed, whose server ends with it."""
    place.clean()
    found = Walker(place, enter, logs)
    try:
        yield found
    finally:
        if found.serving is not None:
            with suppress(ProcessLookupError):
                os.killpg(found.serving.process.pid, signal.SIGKILL)
            found.serving.process.wait()
