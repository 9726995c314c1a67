# SPDX-License-Identifier: Apache-2.0
"""What a life of a server leaves: its records against the answers that clients had, its log, its growth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from benchmarks.chaos.robots import digest
from benchmarks.chaos.supervised import Life
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.reader import TraceReader

LOST, UNHANDLED, GROWTH = "lost record", "unhandled exception", "growth"
FLUSH_S = 1.0  # a kill may cost what was written since
FLUSH_SLACK_S = 3.0  # and a machine that others use writes late

# exceptions that the model itself raises here; everything else that is logged with its traceback is unhandled
KNOWN_EXCEPTIONS = re.compile(r"InferenceError: expert_denoise\.onnx")
TRACEBACK = "Traceback (most recent call last)"
EXCEPTION = re.compile(r"^[| ]*([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Group)\b.*)$")
FATAL = (
    "Segmentation fault",
    "core dumped",
    "terminate called",
    "Fatal Python error",
    "never awaited",
    "was never retrieved",
)

LEAST_SAMPLES = 30  # of a second; a shorter life says nothing
MEMORY_SHARE, MEMORY_BYTES = 1.25, 48 << 20
DESCRIPTORS, THREADS = 24, 16  # pools of threads fill as they are needed; a leak has no end


@dataclass(frozen=True, slots=True)
class Records:
    """What was read of one life. dropped: how many the files themselves say are missing. whole: there is a footer."""

    rows: Mapping[str, int]
    dropped: int
    whole: bool
    problems: tuple[str, ...] = ()


def read_records(folder: Path) -> Records:
    """Read every trace file of a life."""
    rows: dict[str, int] = {}
    dropped, whole, problems = 0, False, []
    for path in sorted(folder.glob("*.jsonl*"), key=lambda path: path.stat().st_mtime):
        try:
            with TraceReader(path) as reader:
                dropped = max(dropped, int(reader.header.get("dropped") or 0))
                whole = False
                for document in reader.documents():
                    dropped = max(dropped, int(document.get("dropped") or 0))
                    whole = whole or document.get("kind") == "footer"
                    if document.get("kind") == "request":
                        actions = document["response"]["actions"]
                        rows[str(document["request"]["request_id"])] = digest(np.array(actions, np.float32))
        except (TraceError, orjson.JSONDecodeError, KeyError, ValueError) as error:
            problems.append(f"{path.name}: {error}")
    return Records(rows, dropped, whole, tuple(problems))


def compare_records(
    answers: Mapping[str, tuple[int, float]], records: Records, killed_s: float = 0.0
) -> list[tuple[str, str]]:
    """Return what is missing or recorded otherwise than it was answered, beyond what is promised.

    A kill may cost the answers of the last flush. A full disk costs as many as the files say.

    Args:
        answers: By request id: digest of the rows, and when the client had them.
        records: Of the same life.
        killed_s: When the server was killed, 0 where it ended by itself.
    """
    found = [(LOST, problem) for problem in records.problems]
    missing = {
        request_id: at_s for request_id, (_, at_s) in answers.items() if request_id not in records.rows
    }
    other = [
        request_id
        for request_id, (rows, _) in answers.items()
        if request_id in records.rows and records.rows[request_id] != rows
    ]
    found += [
        (LOST, f"{request_id} was answered with other rows than it was recorded with") for request_id in other
    ]
    early = [
        key for key, at_s in missing.items() if not killed_s or at_s < killed_s - FLUSH_S - FLUSH_SLACK_S
    ]
    if len(early) > records.dropped:
        text = f"{len(early)} answers are not recorded, {records.dropped} are counted as dropped (first: {min(early)})"
        found.append((LOST, text))
    return found


def unhandled(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Return the exceptions of a log that nothing has handled: every traceback whose last line is not the model's own failure."""
    found, inside, last = [], False, ""
    for line in [*lines, ""]:
        if TRACEBACK in line:
            inside, last = True, last if inside else ""
            continue
        if inside:
            if match := EXCEPTION.match(line):
                last = match[1]
            elif not line.startswith((" ", "|", "\t", "^")) and line.strip():
                inside = False
                found += [] if KNOWN_EXCEPTIONS.search(last) else [(UNHANDLED, last or line.strip())]
        found += [(UNHANDLED, line.strip()[:300]) for word in FATAL if word in line]
    if inside and not KNOWN_EXCEPTIONS.search(last):
        found.append((UNHANDLED, last or "a traceback without an end"))
    return found


def grown(vital: Sequence[tuple[float, int, int, int]]) -> list[tuple[str, str]]:
    """Return what has grown from the first third of a life to its end: medians of the samples, so that one moment says nothing."""
    if len(vital) < LEAST_SAMPLES:
        return []
    third = len(vital) // 3
    _, memory, descriptors, threads = np.median(
        np.array(vital[third : third + third // 2 + 1], float), axis=0
    )
    _, memory_end, descriptors_end, threads_end = np.median(
        np.array(vital[-max(third // 2, 3) :], float), axis=0
    )
    found = []
    if memory_end > memory * MEMORY_SHARE + MEMORY_BYTES:
        found.append(
            (GROWTH, f"memory {memory / 1e6:.0f} MB after warm-up, {memory_end / 1e6:.0f} MB at the end")
        )
    if descriptors_end > descriptors + DESCRIPTORS:
        found.append(
            (GROWTH, f"{descriptors:.0f} descriptors after warm-up, {descriptors_end:.0f} at the end")
        )
    if threads_end > threads + THREADS:
        found.append((GROWTH, f"{threads:.0f} threads after warm-up, {threads_end:.0f} at the end"))
    return found


def audit(life: Life) -> list[tuple[str, str]]:
    """Return everything that is wrong with a life that is over; its files and answers are dropped then."""
    with life.errors.open(encoding="utf-8", errors="replace") as lines:
        found = unhandled(lines)
    found += compare_records(life.answers, read_records(life.records), life.killed_s)
    found += grown(life.vital)
    if not life.killed_s and life.exit_code not in (0, None):
        found.append((UNHANDLED, f"the process ended with status {life.exit_code}"))
    for path in () if found else life.records.glob("*"):  # what was found is to be looked at
        path.unlink()
    life.answers.clear()
    return found
