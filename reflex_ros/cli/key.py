# SPDX-License-Identifier: Apache-2.0
"""`reflex key add|ls|revoke`: keep the file of hashed API keys (docs/how-to/many-robots.md)."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path

from reflex_core.errors import ReflexError
from reflex_ros.cli.parser import Parser, add_command
from reflex_ros.console.terminal import plain_table
from reflex_ros.sidecar.key_file import (
    ACT,
    RIGHTS,
    Key,
    add_key,
    fresh_key,
    read_keys,
    revoke_key,
    seconds_of,
)

_SPAN = re.compile(r"(\d{1,5})(h|d)")
SECONDS = {"h": 3600.0, "d": 86_400.0}


def main(argv: list[str] | None = None) -> int:
    """Change or list the file. 0: done; 1: the file cannot be used; 2: bad command line."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        if options.command == "add":
            return _add(options)
        if options.command == "revoke":
            gone = revoke_key(options.file, options.id)
            print(
                f"revoked {gone.id}{f' of {gone.robot_id}' if gone.robot_id else ''}; a running server refuses it within a second or two"
            )
            return 0
        return _list(options.file, as_json=options.json)
    except (ReflexError, ValueError) as error:
        print(f"reflex key: {error}", file=sys.stderr)
        return 1


def parser() -> Parser:
    """Return the command line of `reflex key`."""
    made = Parser(prog="reflex key", description="Keep the file of hashed API keys that --keys-file names.")
    commands = made.add_subparsers(dest="command", required=True)
    adding = add_command(
        commands, "add", "make a key and print it once; only its hash is kept",
        ("reflex key add keys.jsonl --robot arm-1", "reflex key add keys.jsonl --rights operate,read --note page --expires 90d"),
    )  # fmt: skip
    adding.add_argument("file", type=Path, metavar="FILE", help="the file of keys; made where there is none")
    adding.add_argument(
        "--robot",
        default="",
        metavar="NAME",
        help="robot that holds the key: its requests are counted as that robot's",
    )
    adding.add_argument(
        "--rights",
        type=_rights,
        default=(ACT,),
        metavar="RIGHT",
        help="act, operate, read, or several with commas [default: act]",
    )
    adding.add_argument(
        "--expires",
        type=_expiry,
        metavar="WHEN",
        help="when it expires: 90d, 12h, or a time such as 2027-01-31T12:00:00Z",
    )
    adding.add_argument("--note", default="", metavar="TEXT", help="a note, shown in the list")
    listing = add_command(commands, "ls", "list the keys without their hashes", ("reflex key ls keys.jsonl",))
    listing.add_argument("file", type=Path, metavar="FILE", help="the file of keys")
    listing.add_argument("--json", action="store_true", help="print one JSON object a line")
    revoking = add_command(commands, "revoke", "remove a key", ("reflex key revoke keys.jsonl k-1a2b3c4d",))
    revoking.add_argument("file", type=Path, metavar="FILE", help="the file of keys")
    revoking.add_argument("id", metavar="ID", help="id of the key, as `reflex key ls` lists it")
    return made


def _add(options: argparse.Namespace) -> int:
    token, key = fresh_key(options.rights, options.robot, time.time(), options.expires, options.note)
    add_key(options.file, key)
    print(token)
    robot = f" of {key.robot_id}" if key.robot_id else ""
    until = f", until {key.expires}" if key.expires else ""
    print(f"{key.id}{robot}: {', '.join(key.rights)}{until}. It cannot be shown again.", file=sys.stderr)
    return 0


def _list(path: Path, *, as_json: bool) -> int:
    now_s = time.time()
    keys = read_keys(path)
    if as_json:
        for key in keys:
            document = asdict(key) | {"expired": now_s >= key.expires_s}
            del document["sha256"]
            print(json.dumps(document))
        return 0
    rows = [("id", "robot", "rights", "created", "expires", "note"), *(_row(key, now_s) for key in keys)]
    print("\n".join(plain_table(rows)))
    return 0


def _row(key: Key, now_s: float) -> tuple[str, ...]:
    expires = f"{key.expires} (expired)" if now_s >= key.expires_s else key.expires or "never"
    return (key.id, key.robot_id or "-", ",".join(key.rights), key.created or "-", expires, key.note)


def _rights(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(filter(None, re.split(r"[,\s]+", text))))
    if not found or any(right not in RIGHTS for right in found):
        raise argparse.ArgumentTypeError(f"expected {', '.join(RIGHTS)}, got {text[:40]!r}")
    return found


def _expiry(text: str) -> float:
    span = _SPAN.fullmatch(text)
    now_s = time.time()
    try:
        moment_s = now_s + int(span[1]) * SECONDS[span[2]] if span else seconds_of(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"expected 90d, 12h or 2027-01-31T12:00:00Z, got {text[:40]!r}"
        ) from None
    if moment_s <= now_s:
        raise argparse.ArgumentTypeError(f"expected a time that is to come, got {text[:40]!r}")
    return moment_s


if __name__ == "__main__":
    sys.exit(main())
