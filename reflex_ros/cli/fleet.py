# SPDX-License-Identifier: Apache-2.0
"""`reflex fleet`: do the same to every server of a list (docs/how-to/operate-a-fleet.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reflex_core.errors import ConfigurationError
from reflex_core.files.json_lines import json_line
from reflex_core.text.untrusted import escaped
from reflex_ros.cli.argument_types import comma_separated, positive
from reflex_ros.cli.parser import Parser, add_command
from reflex_ros.fleet.collect import collect
from reflex_ros.fleet.exchange import Access, FleetError, document
from reflex_ros.fleet.fan_out import Result, fan_out
from reflex_ros.fleet.servers import Server, read_servers, selected
from reflex_ros.fleet.status_table import after_change, status_lines

TIMEOUT_S = 5.0
COLLECT_TIMEOUT_S = 600.0
REASON_CHARACTERS = 500
FAILURE_CHARACTERS = 600

Work = Callable[[Server, Access], Any]


def main(argv: list[str] | None = None) -> int:
    """Do it on every server. 0: all did it; 1: a server did not, or the list is refused; 2: bad command line; 130: stopped."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        servers = selected(read_servers(options.fleet), options.cell, options.only)
    except ConfigurationError as error:
        print(f"reflex fleet: {error}", file=sys.stderr)
        return 1
    access = Access(options.keys, options.ca, min(options.timeout, TIMEOUT_S * 2))
    work, show = COMMANDS[options.command](options)
    results = []
    for result in fan_out(servers, lambda server: work(server, access), options.timeout):
        results.append(result)
        if options.command == "stop":  # each at once: the slowest must not hide the others
            print(*show([result]), sep="\n", flush=True)
    order = {server.name: number for number, server in enumerate(servers)}
    results.sort(key=lambda result: order[result.server.name])
    if options.json:
        for result in results:
            print(
                json_line(
                    {"robot_id": result.server.name, "failure": result.failure, "answer": result.value}
                ).decode()
            )
    elif options.command != "stop":
        print(*show(results), sep="\n")
    return _ended(results)


def _ended(results: Sequence[Result[Any]]) -> int:
    """Name the servers that failed, and how to do it again for them alone; return the exit status."""
    failed = [result for result in results if result.failure]
    if not failed:
        return 0
    sys.stdout.flush()
    for result in failed:
        print(
            f"reflex fleet: {result.server.name}: {escaped(result.failure, FAILURE_CHARACTERS)}",
            file=sys.stderr,
        )
    names = ",".join(result.server.name for result in failed)
    print(
        f"reflex fleet: {len(failed)} of {len(results)} servers failed; again for these: --only {names}",
        file=sys.stderr,
    )
    return 1


def parser() -> Parser:
    """Return the command line of `reflex fleet`."""
    made = Parser(prog="reflex fleet", description="Read and change many servers at once.")
    commands = made.add_subparsers(dest="command", required=True)
    for name, what, example in (
        ("status", "print state, policy, split, p99 and holds of every server", "reflex fleet status fleet.csv --keys keys"),
        ("split", "send this percentage of new episodes to slot a", "reflex fleet split fleet.csv 20 --keys keys --cell north"),
        ("promote", "send all new episodes to one slot", "reflex fleet promote fleet.csv b --keys keys --reason better"),
        ("rollback", "undo the last change of the split", "reflex fleet rollback fleet.csv --keys keys --only arm-001,arm-002"),
        ("stop", "let every robot hold until it is resumed at its page", "reflex fleet stop fleet.csv --keys keys"),
        ("collect", "copy the traces of every server, for reflex ab report", "reflex fleet collect fleet.csv traces --keys keys"),
    ):  # fmt: skip
        command = add_command(commands, name, what, (example,))
        command.add_argument("fleet", type=Path, metavar="FILE", help="the list of servers, a CSV file")
        if (add_own := _OWN.get(name)) is not None:
            add_own(command)
        _add_common(command, COLLECT_TIMEOUT_S if name == "collect" else TIMEOUT_S)
    return made


def _add_common(command: argparse.ArgumentParser, timeout_s: float) -> None:
    add = command.add_argument
    add("--keys", type=Path, metavar="DIR", help="the API key of each server, in a file of its name")
    add("--ca", type=Path, metavar="FILE", help="certificates to trust for https; without it the system's")
    add("--cell", default="", metavar="NAME", help="this cell alone")
    add(
        "--only",
        type=comma_separated,
        default=(),
        metavar="NAMES",
        help="these servers alone: arm-001,arm-002",
    )
    add(
        "--timeout",
        type=positive,
        default=timeout_s,
        metavar="S",
        help="a server that is not done by then has failed",
    )
    add("--json", action="store_true", help="print one JSON object per server and line")


def _add_split(command: argparse.ArgumentParser) -> None:
    command.add_argument("split", type=_percent, metavar="PERCENT", help="share of new episodes for slot a")
    _add_reason(command)


def _add_promote(command: argparse.ArgumentParser) -> None:
    command.add_argument("slot", choices=("a", "b"), metavar="SLOT", help="the slot: a or b")
    command.add_argument("--running", action="store_true", help="running episodes change too")
    _add_reason(command)


def _add_reason(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reason", default="", type=_reason, metavar="TEXT", help="why, for the history of each server"
    )


def _add_collect(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", type=Path, metavar="DIR", help="where they go: DIR/NAME/ for each server")


def _percent(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 100):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 100, got {text[:40]!r}")
    return int(text)


def _reason(text: str) -> str:
    if len(text) > REASON_CHARACTERS or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"must be a printable text of at most {REASON_CHARACTERS} characters"
        )
    return text


def _status(_: argparse.Namespace) -> tuple[Work, Callable[[Sequence[Result[Any]]], list[str]]]:
    return lambda server, access: _confirmed(
        server, access, "GET", "/status", None, "word", str
    ), status_lines


def _confirmed(
    server: Server,
    access: Access,
    method: str,
    path: str,
    body: Any,
    name: str,
    kind: type | tuple[type, ...],
) -> Any:
    """Return an answer that says what this program answers; another one at that address may say 200 to everything.

    Raises FleetError where it does not have `name`, of this kind.
    """
    found = document(server, access, method, path, body)
    if not isinstance(found.get(name), kind):
        raise FleetError(
            f"{path} was answered 200 without {name!r}: {server.host}:{server.port} is no reflex server that did it"
        )
    return found


def _change(
    change: Mapping[str, Any], reason: str
) -> tuple[Work, Callable[[Sequence[Result[Any]]], list[str]]]:
    body = {**change, "reason": reason} if reason else dict(change)
    return lambda server, access: _confirmed(
        server, access, "POST", "/policies", body, "split", (int, float)
    ), after_change


def _stop(_: argparse.Namespace) -> tuple[Work, Callable[[Sequence[Result[Any]]], list[str]]]:
    def lines(results: Sequence[Result[Any]]) -> list[str]:
        return [f"{one.server.name}  {'NOT STOPPED' if one.failure else 'stopped'}" for one in results]

    def work(server: Server, access: Access) -> Any:
        found = _confirmed(server, access, "POST", "/stop", {}, "stopped", bool)
        if not found["stopped"]:
            raise FleetError("/stop was answered 200 with 'stopped': false")
        return found

    return work, lines


def _collect(options: argparse.Namespace) -> tuple[Work, Callable[[Sequence[Result[Any]]], list[str]]]:
    def lines(results: Sequence[Result[Any]]) -> list[str]:
        return [
            f"{one.server.name}  failed" if one.value is None
            else f"{one.server.name}  {one.value['files']} traces, {one.value['new']} new or longer, {one.value['copied_bytes'] / 1e6:.1f} MB copied"
            for one in results
        ]  # fmt: skip

    def work(server: Server, access: Access) -> Any:
        return collect(server, access, options.output).document()

    return work, lines


_OWN: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "split": _add_split, "promote": _add_promote, "rollback": _add_reason, "collect": _add_collect,
}  # fmt: skip
COMMANDS: Mapping[str, Callable[[argparse.Namespace], tuple[Work, Callable[[Sequence[Result[Any]]], list[str]]]]] = {
    "status": _status,
    "split": lambda options: _change({"split": options.split}, options.reason),
    "promote": lambda options: _change({"promote": options.slot, "running": options.running}, options.reason),
    "rollback": lambda options: _change({"rollback": True}, options.reason),
    "stop": _stop,
    "collect": _collect,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
