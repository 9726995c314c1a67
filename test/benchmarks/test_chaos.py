# SPDX-License-Identifier: Apache-2.0
"""The judge of the chaos run finds what it is there for, and a short run of it finds nothing. Nothing here looks at a time."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repository import ROOT

from benchmarks.chaos.dds_injections import DDS_KINDS
from benchmarks.chaos.injections import DISK_KINDS, HTTP_KINDS
from benchmarks.chaos.judge import (
    ERROR,
    LATE,
    LIMITS,
    WRONG,
    Answered,
    Asked,
    Memory,
    Past,
    Verdict,
    judge,
    refusal,
    unrepeated,
)
from benchmarks.chaos.ledger import (
    GROWTH,
    LEAST_SAMPLES,
    LOST,
    UNHANDLED,
    Records,
    compare_records,
    grown,
    read_records,
    unhandled,
)
from benchmarks.chaos.policy_files import NAN, arm, make_export, sick_in
from benchmarks.chaos.robots import Run, digest
from benchmarks.chaos.scene import BROKEN, to_its_end
from benchmarks.chaos.schedule import Injected, plan
from benchmarks.chaos.summary import results, text
from benchmarks.chaos.supervised import Life, Server
from benchmarks.chaos.truth import Truth, catalogue
from reflex_core.values import Floats

PANDA = arm("panda")
SIGHT = catalogue(PANDA, 0)[0]
REQUEST = Asked("arm", "json", SIGHT, False, 3, "arm-1")
KINDS = [*HTTP_KINDS, *DISK_KINDS, *DDS_KINDS]
SERVERS = ("pair", "edge", "so100", "node")
DEADLINE_MS = 300.0


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    found = Truth()
    found.add(make_export(tmp_path_factory.mktemp("chaos") / "panda", "panda"), "franka")
    return found


@pytest.fixture(scope="module")
def version(truth: Truth) -> str:
    [only] = truth._policies
    return only


def block(version: str = "", **changes: Mapping[str, Any]) -> dict[str, Any]:
    """The telemetry of an answer by the policy; changes: of its groups."""
    groups: dict[str, dict[str, Any]] = {
        "chunk": {"source": "policy", "hold_reason": "", "start_index": 0},
        "timing": {"latency_ms": 5.0},
        "guard": {"clamped": False},
        "fallback": {"deadline_exceeded": False},
        "request": {"seed": 3, "request_id": "arm-1"},
        "rtc": {"mode": "", "delay": 0, "previous": ""},
        "policy": {"model_version": version},
    }
    return {name: {**group, **changes.get(name, {})} for name, group in groups.items()}


def verdict(
    truth: Truth, rows: Floats, telemetry: dict[str, Any], request: Asked = REQUEST, **more: Any
) -> Verdict:
    memory = more.pop("memory", None) or Memory()
    return judge(request, Answered(rows, telemetry, **more), PANDA, truth, memory, DEADLINE_MS)


def kinds(found: Verdict) -> list[str]:
    return [kind for kind, _ in found.problems]


def test_the_chunk_of_the_same_export_is_right_to_the_last_bit(truth: Truth, version: str) -> None:
    rows = truth.predict(version, SIGHT, False, 3).actions
    assert verdict(truth, rows, block(version)) == Verdict("exact")


@pytest.mark.parametrize(("row", "joint"), [(0, 0), (19, 6), (7, 3)])
def test_one_wrong_bit_of_one_action_is_found(truth: Truth, version: str, row: int, joint: int) -> None:
    rows = truth.predict(version, SIGHT, False, 3).actions.copy()
    rows[row, joint] = np.nextafter(rows[row, joint], np.float32(9))
    assert kinds(verdict(truth, rows, block(version))) == [WRONG]


def test_the_chunk_of_another_seed_observation_or_picture_is_found(truth: Truth, version: str) -> None:
    other = catalogue(PANDA, 0)[1]
    for rows in (
        truth.predict(version, SIGHT, False, 4).actions,
        truth.predict(version, other, False, 3).actions,
        truth.predict(version, SIGHT.at(0.002), False, 3).actions,
    ):
        assert kinds(verdict(truth, rows, block(version))) == [WRONG]


def test_a_policy_that_nothing_serves_and_a_seed_that_was_not_asked_for_are_found(
    truth: Truth, version: str
) -> None:
    rows = truth.predict(version, SIGHT, False, 3).actions
    assert kinds(verdict(truth, rows, block("other@0"))) == [WRONG]
    assert kinds(verdict(truth, rows, block(version, request={"seed": 4}))) == [WRONG]


def test_a_guided_chunk_is_compared_with_one_that_the_same_chunk_guides(truth: Truth, version: str) -> None:
    first = truth.predict(version, SIGHT, False, 3)
    made = truth.guided(version, SIGHT, False, 4, first.normalised, 3.0, 2)
    guided = Asked("arm", "json", SIGHT, False, 4, "arm-2", 3.0, "arm-1")
    telemetry = block(
        version, rtc={"mode": "guided_identity", "delay": 2, "previous": "arm-1"}, request={"seed": 4, "request_id": "arm-2"}
    )  # fmt: skip

    def remembered() -> Memory:
        memory = Memory()
        memory.answers.append(Past("arm-1", first.actions, first.normalised))
        return memory

    assert verdict(truth, made.actions, telemetry, guided, memory=remembered()) == Verdict("guided")
    unguided = truth.predict(version, SIGHT, False, 4).actions
    assert kinds(verdict(truth, unguided, telemetry, guided, memory=remembered())) == [WRONG]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_found(truth: Truth, version: str, value: float) -> None:
    rows = truth.predict(version, SIGHT, False, 3).actions.copy()
    rows[4, 2] = value
    assert WRONG in kinds(verdict(truth, rows, block(version)))


def test_rows_out_of_range_or_too_fast_are_found_in_a_changed_chunk_too(truth: Truth, version: str) -> None:
    clamped = block(version, guard={"clamped": True})
    rest = np.tile(np.array(SIGHT.state, np.float32), (20, 1))
    assert verdict(truth, rest, clamped) == Verdict("limits")
    beyond = rest.copy()
    beyond[:, 3] = PANDA.high[3] + 0.01
    assert set(kinds(verdict(truth, beyond, clamped))) == {LIMITS}
    leaps = rest.copy()
    leaps[10:, 1] += PANDA.speed[1] * PANDA.dt_s * 1.1
    assert kinds(verdict(truth, leaps, clamped)) == [LIMITS]
    far = rest + np.float32(PANDA.speed[0] * PANDA.dt_s * 1.3)
    assert LIMITS in kinds(verdict(truth, far, clamped))


def test_an_answer_that_is_late_and_does_not_say_so_is_found(truth: Truth, version: str) -> None:
    rows = truth.predict(version, SIGHT, False, 3).actions
    late = {"latency_ms": 900.0}
    assert kinds(verdict(truth, rows, block(version, timing=late))) == [LATE]
    assert kinds(verdict(truth, rows, block(version), duration_ms=2000.0)) == [LATE]
    flagged = block(version, timing=late, fallback={"deadline_exceeded": True})
    assert not verdict(truth, rows, flagged, duration_ms=900.0).problems
    assert not verdict(truth, rows, block(version, timing=late), slack_ms=600.0).problems


def test_a_hold_gives_its_reason_and_ends_at_rest(truth: Truth) -> None:
    rest = np.tile(np.array(SIGHT.state, np.float32), (20, 1))
    good = block(chunk={"source": "hold", "hold_reason": "non_finite"})
    assert verdict(truth, rest, good) == Verdict("hold")
    assert kinds(verdict(truth, rest, block(chunk={"source": "hold"}))) == [WRONG]
    moving = rest + 0.001 * np.arange(20, dtype=np.float32)[:, None]
    assert kinds(verdict(truth, moving, good)) == [WRONG]


def test_a_last_good_chunk_is_one_that_this_robot_had(truth: Truth, version: str) -> None:
    rows = truth.predict(version, SIGHT, False, 3).actions
    telemetry = block(version, chunk={"source": "last_known_good", "start_index": 5})

    def memory() -> Memory:
        found = Memory()
        found.answers.append(Past("arm-0", rows, None))
        return found

    assert verdict(truth, rows[5:], telemetry, memory=memory()) == Verdict("continued")
    other = truth.predict(version, SIGHT, False, 4).actions
    assert kinds(verdict(truth, other[5:], telemetry, memory=memory())) == [WRONG]


def test_what_a_cloud_lies_is_found(truth: Truth) -> None:
    telemetry = block(chunk={"source": "cloud"})
    rows = np.tile(np.array([0.0, 0.1, 0.0, -1.5, 0.0, 1.8, 0.1], np.float32), (10, 1))
    near = Asked("arm", "json", SIGHT.at(0.0), False, 3)
    assert WRONG not in kinds(verdict(truth, rows, telemetry, near))
    rows[3, 4] = 0.02
    assert WRONG in kinds(verdict(truth, rows, telemetry, near))


def test_an_unknown_source_is_found(truth: Truth) -> None:
    rest = np.tile(np.array(SIGHT.state, np.float32), (20, 1))
    assert kinds(verdict(truth, rest, block(chunk={"source": "guess"}))) == [WRONG]


def test_a_refusal_is_one_of_ours_and_has_a_cause() -> None:
    ours = {"error": "server-degraded", "message": "later", "request_id": "1"}
    assert refusal(503, ours, ["server-degraded"], healthy=True) == []
    assert refusal(503, ours, [], healthy=False) == []
    for status, document, excused in (
        (503, ours, []),
        (500, "<html>500</html>", ["server-degraded"]),
        (500, {"error": "internal-error", "message": "", "request_id": ""}, ["internal-error"]),
        (502, ours, ["server-degraded"]),
        (503, {"error": "server-degraded"}, ["server-degraded"]),
    ):
        assert [kind for kind, _ in refusal(status, document, excused, healthy=True)] == [ERROR], (
            status,
            document,
        )


def trace(folder: Path, records: list[tuple[str, Floats]], *, footer: bool = True, dropped: int = 0) -> Path:
    """A trace file with these answers."""
    lines: list[dict[str, Any]] = [{"kind": "header", "schema_version": 1, "dropped": 0}]
    lines += [
        {
            "kind": "request", "schema_version": 1, "seq": number, "request": {"request_id": request_id},
            "response": {"actions": rows.tolist()},
        }
        for number, (request_id, rows) in enumerate(records)
    ]  # fmt: skip
    lines += [{"kind": "footer", "schema_version": 1, "dropped": dropped}] if footer else []
    path = folder / "trace.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return path


def test_records_are_compared_with_what_clients_had(tmp_path: Path) -> None:
    rows = [np.full((3, 7), number, np.float32) for number in range(3)]
    answers = {f"r{number}": (digest(each), 100.0 + number) for number, each in enumerate(rows)}
    trace(tmp_path, [(f"r{number}", each) for number, each in enumerate(rows)])
    found = read_records(tmp_path)
    assert found.whole
    assert compare_records(answers, found) == []
    lost = Records({key: value for key, value in found.rows.items() if key != "r1"}, 0, True)
    assert [kind for kind, _ in compare_records(answers, lost)] == [LOST]
    assert compare_records(answers, Records(lost.rows, 1, True)) == [], "it says itself that one is missing"
    other = Records({**found.rows, "r2": digest(rows[0])}, 0, True)
    assert [kind for kind, _ in compare_records(answers, other)] == [LOST]
    damaged = Records(found.rows, 0, True, ("trace.jsonl.gz: line 3",))
    assert [kind for kind, _ in compare_records(answers, damaged)] == [LOST]


def test_a_kill_may_cost_the_last_flush_and_no_more(tmp_path: Path) -> None:
    rows = np.zeros((3, 7), np.float32)
    trace(tmp_path, [("r0", rows)], footer=False)
    found = read_records(tmp_path)
    assert not found.whole
    answers = {"r0": (digest(rows), 50.0), "r1": (digest(rows), 99.5)}
    assert compare_records(answers, found, killed_s=100.0) == []
    early = {**answers, "r1": (digest(rows), 80.0)}
    assert [kind for kind, _ in compare_records(early, found, killed_s=100.0)] == [LOST]


def test_a_last_row_that_a_wire_repeats_is_the_same_answer() -> None:
    rows = np.arange(21, dtype=np.float32).reshape(3, 7)
    padded = np.vstack([rows, rows[-1:], rows[-1:]])
    assert digest(padded) == digest(rows)
    assert digest(rows[:2]) != digest(rows)
    assert unrepeated(np.zeros((5, 7), np.float32)).shape == (1, 7)


KNOWN = """2026 ERROR reflex: request 'a' failed: expert_denoise.onnx: indices out of bounds
  | Traceback (most recent call last):
  |   File "session.py", line 193, in _call
  |     raise InferenceError(x)
  | reflex_core.errors.InferenceError: expert_denoise.onnx: Error in execution
2026 INFO reflex: all is well
"""


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("2026 INFO reflex: serving\n", 0),
        (KNOWN, 0),
        (KNOWN.replace("InferenceError: expert_denoise.onnx", "KeyError: 'x'"), 1),
        ("Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: no\n", 1),
        (KNOWN + "Traceback (most recent call last):\n  File \"a.py\", line 1\n", 1),
        ("sys:1: RuntimeWarning: coroutine 'act' was never awaited\n", 1),
        ("Task exception was never retrieved\n", 1),
        ("Fatal Python error: Segmentation fault\n", 2),
    ],
)  # fmt: skip
def test_an_exception_that_nothing_handled_is_found_in_a_log(log: str, found: int) -> None:
    assert [kind for kind, _ in unhandled(log.splitlines(keepends=True))] == [UNHANDLED] * found


def test_growth_is_found_and_one_moment_of_it_is_none() -> None:
    steady = [(float(second), 120 << 20, 20, 14) for second in range(4 * LEAST_SAMPLES)]
    assert grown(steady) == []
    peak = [*steady]
    peak[70] = (70.0, 900 << 20, 500, 90)
    assert grown(peak) == []
    for column, step in ((1, 2 << 20), (2, 1), (3, 1)):
        rising = [
            tuple(value + (step * second if at == column else 0) for at, value in enumerate(sample))
            for second, sample in enumerate(steady)
        ]
        assert [kind for kind, _ in grown(rising)] == [GROWTH], column  # type: ignore[arg-type]


def test_a_process_that_has_just_ended_leaves_no_sample_and_harms_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    server = Server("gone", PANDA, [], tmp_path, tmp_path, {}, DEADLINE_MS)
    server.lives.append(Life(0, process, tmp_path, tmp_path, 0.0, ready_s=1.0))
    server.sample()
    assert server.life.vital == []
    process.wait()


def test_a_thread_of_the_benchmark_that_ends_is_a_violation() -> None:
    run = Run(Truth(), 5)

    def work() -> None:
        raise KeyError("VmRSS")

    with pytest.raises(KeyError):
        to_its_end(run, "watch", work)
    assert [each.kind for each in run.violations] == [BROKEN]


def test_a_schedule_is_that_of_its_seed_and_has_every_kind() -> None:
    first = plan(KINDS, SERVERS, 10_000, 60, 7)
    assert first == plan(KINDS, SERVERS, 10_000, 60, 7)
    assert first != plan(KINDS, SERVERS, 10_000, 60, 8)
    assert {each.kind.name for each in first} == {kind.name for kind in KINDS}
    assert all(each.server in each.kind.where for each in first)
    assert [each.after for each in first] == sorted(each.after for each in first)


def test_a_violation_is_printed_with_what_runs_it_again() -> None:
    run = Run(Truth(), 5)
    run.violate(WRONG, "row 3, joint 1", "edge", "edge-json-0")
    fault = Injected(0, "model NaN", "edge", 0.0, 1e6, 0.1, "3 requests")
    document = results(run, [fault], "python -m benchmarks.chaos --seed 5", 1.0, {})
    assert document["kinds"][0]["violations"] == 1
    printed = text(document)
    assert "1 x wrong action" in printed
    assert "again: python -m benchmarks.chaos --seed 5" in printed


def test_the_sick_export_is_sick_in_its_bands_alone(truth: Truth, version: str) -> None:
    assert np.isfinite(truth.predict(version, SIGHT, False, 1).actions).all()
    assert np.isnan(truth.predict(version, SIGHT.at(sick_in(NAN)), False, 1).actions).all()


@pytest.mark.slow
def test_a_short_run_of_every_fault_violates_nothing(tmp_path: Path) -> None:
    output = tmp_path / "chaos.json"
    command = [
        sys.executable, "-m", "benchmarks.chaos", "--requests", "4000", "--faults", str(len(KINDS)), "--seed", "1",
        "--folder", str(tmp_path / "kept"), "--output", str(output),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    document = json.loads(output.read_text())
    assert document["violations"] == []
    assert document["requests"] >= 4000
    assert {row["fault"] for row in document["kinds"]} >= {kind.name for kind in (*HTTP_KINDS, *DDS_KINDS)}
    assert document["compared"]["exact"] > 1000
    assert document["compared"]["guided"] > 50
    assert document["node chunks"]["policy"] > 3
    assert document["records"] > 2000
