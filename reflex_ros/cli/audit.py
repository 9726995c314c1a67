# SPDX-License-Identifier: Apache-2.0
"""`reflex audit verify|head`: verify the hash chain of an audit log."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from reflex_core.records.audit.chain import START, Verdict, audit_files, read_tail, verify
from reflex_ros.cli.parser import Parser, add_command

UNPROVEN = 3


def main(argv: list[str] | None = None) -> int:
    """Check a log or print its last hash.

    0 when it is intact and its end is proven, 1 when it is not intact, 2 for a bad command line, 3 when it is intact but
    no expected last hash was given.
    """
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        files = _files(options.log)
        return _head(files) if options.command == "head" else _verify(files, options.head)
    except ValueError as error:
        print(f"reflex audit: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"reflex audit: {error.filename or options.log}: {error.strerror}", file=sys.stderr)
        return 1


def parser() -> Parser:
    """Return the command line of `reflex audit`."""
    made = Parser(prog="reflex audit", description="Check the hash chain of an audit log.")
    commands = made.add_subparsers(dest="command", required=True)
    checking = add_command(
        commands, "verify", "find the first changed, removed, reordered or incomplete record",
        ("reflex audit verify audit/", "reflex audit verify audit/ --head $(cat head-of-yesterday)"),
    )  # fmt: skip
    checking.add_argument("log", type=Path, metavar="LOG", help="the audit directory, or one of its files")
    checking.add_argument(
        "--head",
        type=_hash,
        metavar="HASH",
        help="hash of a record that must exist, printed earlier by `head`",
    )
    printing = add_command(
        commands,
        "head",
        "print the hash of the last record, to be stored elsewhere",
        ("reflex audit head audit/",),
    )
    printing.add_argument("log", type=Path, metavar="LOG", help="the audit directory, or one of its files")
    return made


def _hash(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"expected 64 hex digits, got {text[:80]!r}")
    return text.lower()


def _files(log: Path) -> list[Path]:
    if log.is_file():
        return [log]
    if not log.exists():
        raise ValueError(f"{log}: no such file or directory")
    files = audit_files(log)
    if not files:
        raise ValueError(f"{log}: no audit_<YYYYMMDD>.jsonl in it")
    return files


def _verify(files: list[Path], head: str | None) -> int:
    verdict = verify(files, head)
    if verdict.finding is not None:
        print(verdict.finding)
        return 1
    print(_summary(verdict))
    return 0 if head is not None else UNPROVEN


def _summary(verdict: Verdict) -> str:
    parts = [f"whole: {verdict.records} records in {verdict.files} files", f"head {verdict.head}"]
    if verdict.anchor != START:
        parts.append(f"begins at record {verdict.first_seq}, trusted anchor {verdict.anchor}")
    if verdict.records_after is not None:
        parts.append(f"{verdict.records_after} records after the given head")
    else:
        parts.append(
            "the end is not proven: records may be cut off it; give --head a hash that `head` printed before"
        )
    if verdict.missing:
        parts.append(f"{verdict.missing} records could not be written, as the log says itself")
    if verdict.recovered:
        parts.append(f"{verdict.recovered} torn ends, as the log says itself")
    return "; ".join(parts)


def _head(files: list[Path]) -> int:
    for path in reversed(files):
        tail = read_tail(path)
        if tail.record is not None:
            print(tail.record["hash"])
            return 0
    print(f"{files[-1]}: no whole record in it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
