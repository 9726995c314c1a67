# SPDX-License-Identifier: Apache-2.0
"""The audit log: chain over days and restarts, what a reader finds in it, and what happens when it cannot write."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audits import DAY_NS, Clock, opened
from recordings import lines_of, make_request, served, tiny_disk
from repository import ROOT, SUPPORT

from reflex_core.errors import ConfigurationError
from reflex_core.records.audit.chain import START, audit_files, verify
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.trace.hashing import observation_hash
from reflex_core.reports import GuardReport
from reflex_core.values import Frame


def records(directory: Path) -> list[dict[str, Any]]:
    return [record for path in audit_files(directory) for record in lines_of(path)]


def kinds(directory: Path) -> list[str]:
    return [record.get("event") or record["kind"] for record in records(directory)]


def wait_for(condition: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, "waited 20 s in vain"
        time.sleep(0.005)


def test_a_record_says_who_was_asked_what_and_what_was_answered(tmp_path: Path) -> None:
    log = opened(tmp_path)
    request = make_request(instruction="pick up the röd cup")
    clamped = GuardReport(True, 2, ("panda_joint1 above max: 3 > 2.9",))
    answer = served(request)
    limited = replace(answer.chunk, actions=np.clip(answer.chunk.actions, -0.5, 0.5))
    log(request, answer)
    log(request, replace(answer, chunk=limited, guard=clamped))
    log.close()
    plain, changed = [record for record in records(tmp_path) if record["kind"] == "act"]
    assert plain["instruction"] == "pick up the röd cup"
    assert (plain["request_id"], plain["episode_id"], plain["robot_id"]) == ("r-1", "ep-1", "arm7")
    assert plain["input_hash"] == observation_hash(request.observation)
    assert (plain["model_version"], plain["model_hash"]) == ("pi0@0123456789abcdef", "0123456789abcdef")
    assert (plain["config_hash"], plain["seed"], plain["slot"]) == ("fedcba9876543210", 7, "prod")
    assert (plain["clamped"], plain["violations"], plain["actions_raw"]) == (False, [], None)
    assert (changed["clamped"], changed["violations"]) == (True, ["panda_joint1 above max: 3 > 2.9"])
    for name, actions in (("actions_raw", answer.raw_actions), ("actions_safe", limited.actions)):
        np.testing.assert_array_equal(np.array(changed[name]).astype(np.float32), actions)
    assert plain["timestamp"] == "2026-03-01T12:00:00.000Z"


def test_numbers_that_are_none_are_spelled_for_strict_readers(tmp_path: Path) -> None:
    log = opened(tmp_path)
    request = make_request()
    answer = served(request)
    raw = answer.raw_actions.copy()
    raw[0, :3] = np.nan, np.inf, -np.inf
    log(request, replace(answer, raw_actions=raw, latency_ms=float("nan")))
    log.close()
    (record,) = [
        json.loads(line, parse_constant=pytest.fail)
        for path in audit_files(tmp_path)
        for line in path.read_text().splitlines()
        if '"act"' in line
    ]
    assert record["actions_raw"][0][:3] == ["NaN", "Infinity", "-Infinity"]
    np.testing.assert_array_equal(
        np.array([float(value) for row in record["actions_raw"] for value in row]).astype(np.float32),
        raw.ravel(),
    )


def test_the_input_hash_changes_with_everything_the_policy_saw() -> None:
    base = make_request().observation
    frame = base.frames["base"]
    others = [
        base,
        replace(base, instruction="other"),
        replace(base, state=None),
        replace(base, state=base.state + np.float32(1e-6)),
        replace(base, frames={"wrist": frame}),
        replace(base, frames={"base": replace(frame, data=bytes(frame.data) + b"x")}),
        replace(base, frames={"base": Frame(frame.data, "png", frame.height, frame.width)}),
        replace(base, frames={}),
        replace(base, history=(base,)),
        replace(base, history=(base, base)),
        replace(base, history=(replace(base, state=None),)),
        replace(base, history=(replace(base, frames={}),)),
    ]
    assert len({observation_hash(other) for other in others}) == len(others)
    assert observation_hash(replace(base, stamp_ns=5)) == observation_hash(base)


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        log = opened(tmp_path)
        log(make_request(), served(make_request()))
        log.close()
    found = records(tmp_path)
    assert [record["seq"] for record in found] == list(range(len(found)))
    assert found[0]["prev"] == START
    assert kinds(tmp_path) == ["checkpoint", *["opened", "model", "act", "closed"] * 3]
    verdict = verify(audit_files(tmp_path))
    assert (verdict.finding, verdict.records, verdict.anchor) == (None, len(found), START)


def test_each_day_has_its_file_and_begins_with_a_checkpoint_that_carries_the_chain(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, clock)
    for _ in range(3):
        log(make_request(), served(make_request()))
        clock.now_ns += DAY_NS
    log.close()
    files = audit_files(tmp_path)
    assert [path.name for path in files] == [f"audit_2026030{day}.jsonl" for day in (1, 2, 3, 4)]
    for before, after in pairwise(files):
        first = lines_of(after)[0]
        assert (first["kind"], first["previous_file"]) == ("checkpoint", before.name)
        assert first["prev"] == lines_of(before)[-1]["hash"]
    assert verify(files).finding is None


def test_a_clock_that_goes_back_does_not_reorder_the_log(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, clock)
    clock.now_ns -= 3 * DAY_NS
    log(make_request(), served(make_request()))
    log.close()
    assert [path.name for path in audit_files(tmp_path)] == ["audit_20260301.jsonl"]
    assert verify(audit_files(tmp_path)).finding is None


def test_old_files_go_only_when_a_new_day_begins_and_the_rest_still_verifies(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, clock, retention_days=2)
    for _ in range(5):
        log.event("guard-trip", joint="panda_joint1")
        clock.now_ns += DAY_NS
    log.close()
    files = audit_files(tmp_path)
    assert [path.name for path in files] == [f"audit_2026030{day}.jsonl" for day in (4, 5, 6)]
    assert lines_of(files[-1])[0]["removed_by_retention"] == ["audit_20260303.jsonl"]
    verdict = verify(files)
    assert verdict.finding is None
    assert verdict.anchor == lines_of(files[0])[0]["prev"] != START


def test_a_retention_of_0_keeps_every_day(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, clock, retention_days=0)
    log.event("guard-trip")
    clock.now_ns += 1000 * DAY_NS
    log.close()
    assert len(audit_files(tmp_path)) == 2


def test_a_torn_end_is_reported_kept_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for _ in range(3):
        log(make_request(), served(make_request()))
    log.close()
    (path,) = audit_files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert verify([path]).finding.what == "torn"  # type: ignore[union-attr]
    log = opened(tmp_path)
    log(make_request(), served(make_request()))
    log.close()
    assert path.read_bytes().startswith(whole[:-40] + b"\n")
    verdict = verify([path])
    assert (verdict.finding, verdict.recovered) == (None, 1)


def test_a_record_cut_only_of_its_newline_is_whole(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (path,) = audit_files(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert verify([path]).finding is None
    opened(tmp_path).close()
    verdict = verify([path])
    assert (verdict.finding, verdict.recovered) == (None, 0)


def test_a_changed_last_record_does_not_pass_as_a_torn_one(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (path,) = audit_files(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"closed"', b'"clozed"'))
    opened(tmp_path).close()
    assert verify([path]).finding.what == "changed"  # type: ignore[union-attr]


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from recordings import make_request, served
from reflex_core.records.audit.log import AuditLog
log = AuditLog(Path(sys.argv[1]), robot_id="arm7", flush_interval_s=0.01)
request = make_request()
while True:
    log(request, served(request))
"""


def test_kill_minus_nine_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    paths = [str(SUPPORT), str(ROOT)]
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), *paths])
    try:
        wait_for(lambda: any(path.stat().st_size > 300_000 for path in audit_files(tmp_path)))
        with pytest.raises(ConfigurationError, match="another process writes this audit log"):
            opened(tmp_path)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait(20)
    AuditLog(tmp_path, robot_id="arm7").close()
    verdict = verify(audit_files(tmp_path))
    assert verdict.finding is None
    assert verdict.records > 50
    assert kinds(tmp_path)[-3:] == ["opened", "model", "closed"]


SIXTY = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from recordings import make_request, served
from reflex_core.records.audit.log import AuditLog
log = AuditLog(Path(sys.argv[1]), robot_id="arm7", flush_interval_s=3600.0)
request = make_request()
for _ in range(60):
    log(request, served(request))
log.error(request, "inference-error", "the model raised")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_answered_before_kill_minus_nine_is_in_the_log(tmp_path: Path) -> None:
    paths = [str(SUPPORT), str(ROOT)]
    killed = subprocess.run([sys.executable, "-c", SIXTY, str(tmp_path), *paths], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert verify(audit_files(tmp_path)).finding is None
    assert (kinds(tmp_path).count("act"), kinds(tmp_path).count("error")) == (60, 1)


def test_an_answer_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("reflex_core.records.audit.log.WAIT_S", 0.05)
    log = opened(tmp_path)
    log(make_request(), served(make_request()))
    assert log.problem == ""
    hangs, append = threading.Event(), log._store.append

    def hanging(records: Any) -> None:
        hangs.wait(60)
        append(records)

    monkeypatch.setattr(log._store, "append", hanging)
    began_s = time.monotonic()
    for _ in range(200):
        log(make_request(), served(make_request()))
    assert time.monotonic() - began_s < 10  # only the first one waited
    assert log.problem.startswith("audit-behind")
    assert caplog.text.count("slug=audit-behind") == 1
    hangs.set()
    wait_for(lambda: log.problem == "")
    log(make_request(), served(make_request()))
    log.close()
    assert kinds(tmp_path).count("act") == 202
    assert verify(audit_files(tmp_path)).finding is None


def test_what_is_written_is_synced_while_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("reflex_core.records.audit.store.os.fsync", synced.append)
    log = opened(tmp_path)
    wait_for(lambda: synced)
    before = len(synced)
    log(make_request(), served(make_request()))
    wait_for(lambda: len(synced) > before)
    log.close()


def test_a_full_disk_is_seen_counted_and_left_when_space_returns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tiny_disk(tmp_path / "disk", 512 << 10) as disk, caplog.at_level(logging.WARNING):
        log = opened(disk.path / "audit", retry_s=0.0)
        wait_for(lambda: disk.files("*.jsonl"))
        disk.fill()
        wait_for(lambda: log(make_request(), served(make_request())) or log.problem)
        assert "audit-disk-full" in log.problem
        lost = log.dropped
        assert lost > 0
        disk.free()
        wait_for(lambda: log(make_request(), served(make_request())) or not log.problem)
        log.close()
        found = records(disk.path / "audit")
        verdict = verify(audit_files(disk.path / "audit"))
    assert verdict.finding is None
    assert verdict.missing == log.dropped >= lost
    assert sum(record.get("missing", 0) for record in found) == log.dropped
    assert len([record for record in caplog.records if "slug=audit-disk-full" in record.message]) == 1


def test_a_directory_that_cannot_be_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        opened(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="retention"):
        opened(tmp_path, retention_days=-1)


def test_failed_requests_and_a_new_model_are_in_the_log(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.error(make_request(), "inference-error", "the model raised")
    log.model("pi1@1111222233334444", "1111222233334444", "aaaabbbbccccdddd")
    log.error(make_request(), "inference-error", "the model raised")
    log.close()
    before, after = [record for record in records(tmp_path) if record["kind"] == "error"]
    assert before["error"] == {"slug": "inference-error", "message": "the model raised"}
    assert (before["model_hash"], after["model_hash"]) == ("0123456789abcdef", "1111222233334444")


def test_one_record_that_cannot_be_made_does_not_take_the_others_along(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.event("before", odd=object(), big=2**80, text="\ud800", level=float("nan"))
    log(make_request(), replace(served(make_request()), raw_actions=None))  # type: ignore[arg-type]
    log.event("after")
    log.close()
    assert kinds(tmp_path) == ["checkpoint", "opened", "model", "before", "record-failed", "after", "closed"]
    assert verify(audit_files(tmp_path)).finding is None
