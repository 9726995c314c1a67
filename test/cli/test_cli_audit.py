# SPDX-License-Identifier: Apache-2.0
"""`reflex audit`: what it says about a log that was tampered with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from audits import DAY_NS, Clock, opened
from recordings import make_request, served

from reflex_core.records.audit.chain import audit_files, with_hash
from reflex_ros.cli.audit import UNPROVEN
from reflex_ros.cli.main import main

Touch = Callable[[list[bytes]], list[bytes]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three days of one request each."""
    clock = Clock()
    log = opened(tmp_path, clock)
    for _ in range(3):
        for _ in range(3):
            log(make_request(), served(make_request()))
        clock.now_ns += DAY_NS
    log.close()
    return tmp_path


def touched(directory: Path, touch: Touch, day: int = 2) -> Path:
    path = directory / f"audit_2026030{day}.jsonl"
    path.write_bytes(b"\n".join(touch(path.read_bytes().split(b"\n"))))
    return path


def forged(lines: list[bytes]) -> list[bytes]:
    """A record with a right hash of its own, put in by a person who knows the format."""
    before = json.loads(lines[1])
    body = json.dumps(
        {"seq": before["seq"] + 1, "prev": before["hash"], "kind": "act"}, separators=(",", ":")
    )
    return [*lines[:2], with_hash(body.encode())[0], *lines[2:]]


def with_new_hash(lines: list[bytes]) -> list[bytes]:
    """A changed record whose own hash was made right again."""
    record = json.loads(lines[2])
    record.pop("hash")
    body = json.dumps(record | {"clamped": True}, separators=(",", ":"))
    return [*lines[:2], with_hash(body.encode())[0], *lines[3:]]


def test_a_whole_log_is_one_line_and_0_when_its_end_is_proven(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", str(directory)]) == UNPROVEN
    output = capsys.readouterr().out
    assert re.fullmatch(
        r"whole: 16 records in 4 files; head [0-9a-f]{64}; the end is not proven: .* --head .*\n", output
    )
    head = re.findall("[0-9a-f]{64}", output)[0]
    assert main(["audit", "verify", str(directory), "--head", head]) == 0
    output = capsys.readouterr().out
    assert re.fullmatch(
        r"whole: 16 records in 4 files; head [0-9a-f]{64}; 0 records after the given head\n", output
    )


@pytest.mark.parametrize("number", range(4))
def test_an_emptied_file_is_1(directory: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    path = audit_files(directory)[number]
    path.write_bytes(b"")
    assert main(["audit", "verify", str(directory)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}:1: removed: the file is empty")


def test_an_emptied_log_is_1(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in audit_files(directory):
        path.write_bytes(b"")
    assert main(["audit", "verify", str(directory)]) == 1
    assert "removed: the file is empty" in capsys.readouterr().out
    assert main(["audit", "head", str(directory)]) == 1


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_log_whose_last_records_are_cut_is_not_called_proven(
    directory: Path, capsys: pytest.CaptureFixture[str], lines: int
) -> None:
    assert main(["audit", "head", str(directory)]) == 0
    head = capsys.readouterr().out.strip()
    path = audit_files(directory)[-2]
    audit_files(directory)[-1].unlink()
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[: -1 - lines]) + b"\n")
    assert main(["audit", "verify", str(directory)]) == UNPROVEN
    assert "the end is not proven" in capsys.readouterr().out
    assert main(["audit", "verify", str(directory), "--head", head]) == 1
    assert "removed: no record has the hash" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("touch", "line", "what"),
    [
        pytest.param(
            lambda ls: [*ls[:2], ls[2].replace(b"red cup", b"rad cup"), *ls[3:]], 3, "changed", id="byte"
        ),
        pytest.param(lambda ls: [*ls[:2], ls[2].replace(b":", b": ", 1), *ls[3:]], 3, "changed", id="space"),
        pytest.param(lambda ls: [*ls[:2], ls[2][:90], *ls[3:]], 3, "changed", id="cut in the middle"),
        pytest.param(with_new_hash, 4, "changed", id="changed and hashed anew"),
        pytest.param(lambda ls: ls[:2] + ls[3:], 3, "removed", id="line"),
        pytest.param(lambda ls: ls[1:], 1, "removed", id="first line"),
        pytest.param(lambda ls: [*ls[:2], ls[3], ls[2], *ls[4:]], 3, "reordered", id="two lines"),
        pytest.param(lambda ls: [*ls[:3], ls[1], *ls[3:]], 4, "inserted", id="copy"),
        pytest.param(forged, 4, "inserted", id="forged"),
    ],
)
def test_a_touched_log_is_1_and_names_file_line_and_what(
    directory: Path, capsys: pytest.CaptureFixture[str], touch: Touch, line: int, what: str
) -> None:
    path = touched(directory, touch)
    assert main(["audit", "verify", str(directory)]) == 1
    output = capsys.readouterr().out
    assert output.startswith(f"{path}:{line}: {what}: ")
    assert output.count("\n") == 1


def test_a_removed_day_is_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "audit_20260302.jsonl").unlink()
    assert main(["audit", "verify", str(directory)]) == 1
    assert f"{directory / 'audit_20260303.jsonl'}:1: removed: " in capsys.readouterr().out


def test_a_removed_first_day_shows_as_the_anchor(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = audit_files(directory)
    anchor = json.loads(second.read_bytes().split(b"\n")[0])["prev"]
    first.unlink()
    assert main(["audit", "verify", str(directory)]) == UNPROVEN
    assert f"begins at record 6, trusted anchor {anchor}" in capsys.readouterr().out


def test_a_cut_off_end_is_found_by_the_head(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "head", str(directory)]) == 0
    head = capsys.readouterr().out.strip()
    assert main(["audit", "verify", str(directory), "--head", head]) == 0
    assert "0 records after the given head" in capsys.readouterr().out
    last = audit_files(directory)[-1]
    last.write_bytes(b"\n".join(last.read_bytes().split(b"\n")[:-2]) + b"\n")
    assert main(["audit", "verify", str(directory)]) == UNPROVEN  # nothing in the log itself can tell
    assert main(["audit", "verify", str(directory), "--head", head]) == 1
    assert "removed: no record has the hash" in capsys.readouterr().out
    last.unlink()
    assert main(["audit", "verify", str(directory), "--head", head]) == 1


def test_an_older_head_is_fine_and_says_what_came_after(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = audit_files(directory)[0]
    assert main(["audit", "head", str(first)]) == 0
    head = capsys.readouterr().out.strip()
    assert main(["audit", "verify", str(directory), "--head", head]) == 0
    assert "10 records after the given head" in capsys.readouterr().out


def test_a_torn_end_is_1_until_the_log_itself_has_reported_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = audit_files(directory)[-1]
    last.write_bytes(last.read_bytes()[:-30])
    assert main(["audit", "verify", str(last)]) == 1
    assert f"{last}:2: torn: the last " in capsys.readouterr().out
    opened(directory).close()
    assert main(["audit", "verify", str(directory)]) == UNPROVEN
    assert "1 torn ends, as the log says itself" in capsys.readouterr().out


def test_one_file_can_be_checked_alone(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(audit_files(directory)[1])]) == UNPROVEN
    assert "whole: 4 records in 1 files" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["verify", "nowhere"], ["verify", "."], ["head", "nowhere"]])
def test_what_is_not_a_log_is_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *arguments]) == 2
    assert capsys.readouterr().err.startswith("reflex audit: ")


@pytest.mark.parametrize("arguments", [[], ["verify"], ["mend", "."], ["verify", ".", "--head", "abc"]])
def test_a_command_line_that_is_not_understood_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *arguments])
    assert ended.value.code == 2
