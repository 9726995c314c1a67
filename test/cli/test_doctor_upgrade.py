# SPDX-License-Identifier: Apache-2.0
"""`reflex doctor --upgrade`: each file of the first version is read, needs a command, or is refused with what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from first_version import MADE, TEST, VERDICTS, WAS_MEASURED, judged
from grouped_robots import ARM, document
from repository import ROOT

from reflex_core.calibration import cache
from reflex_core.doctor.upgrade.judgement import COMMAND, READ, REFUSED, Judgement, worst
from reflex_core.files.share import embedded_policy
from reflex_ros.cli.main import main

Output = pytest.CaptureFixture[str]
FRANKA = ("--embodiment", "franka")


def test_every_file_of_the_first_version_is_read_needs_a_command_or_is_refused(capsys: Output) -> None:
    status, found = judged(capsys, *(MADE / name for name in VERDICTS), *FRANKA)
    assert status == 1
    assert {str(Path(path).relative_to(MADE)): one["verdict"] for path, one in found.items()} == VERDICTS
    assert all(bool(one["do"]) == (one["verdict"] != READ) for one in found.values())


def test_nothing_that_was_made_is_left_out_of_the_list() -> None:
    there = {
        path.relative_to(MADE).as_posix()
        for folder in MADE.iterdir()
        if folder.is_dir()
        for path in folder.iterdir()
    }
    parts = {"embedded/reflex_config.json", "observations/desk-0.jpg", "observations/desk-1.jpg"}
    whole = {name for name in there if name.startswith(("audit/", "answers/"))}
    assert there - parts - whole == set(VERDICTS) - {"audit"}


@pytest.mark.parametrize(
    ("name", "words", "do"),
    [
        ("settings/misspelt.yaml", ["safety_confg", "did you mean safety_config?"], "--config"),
        ("embodiments/degrees.json", ["action_space.ranges[0]", "rad or m"], "m and rad"),
        ("safety/degrees.json", ["panda_joint1", "rad or m"], "reflex guard init"),
        ("exports/degrees", ["panda_joint1", "degrees"], "export the policy again"),
        (
            "exports/misspelt_key",
            ["'normalisation'", "did you mean normalization?"],
            "docs/reference/exports.md",
        ),
        ("exports/processors_own_step", ["'somebodys_own_step'"], "export the policy again"),
        ("exports/measured", ["'adaptive'", "'prefix_cache'", "first version"], "reflex calibrate-adaptive "),
    ],
)
def test_what_is_not_read_says_what_is_wrong_and_what_to_do(
    name: str, words: list[str], do: str, capsys: Output
) -> None:
    status, found = judged(capsys, MADE / name, *FRANKA)
    (one,) = found.values()
    assert status == 1
    assert all(word in one["said"] for word in words), one["said"]
    assert do in one["do"]


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("settings/embedded.yaml", "export_dir: demo"),
        ("exports/processors_quantiles", "normalised by quantiles instead of mean_std"),
        ("exports/mono_smolvla", "letterbox_top_left and bilinear instead of letterbox and area"),
        ("exports/mono_pi05", "State: STATE"),
        ("exports/gr00t", "time runs from 0 to 1 instead of from 1 to 0"),
        ("exports/calm", "the first version, which hashed only the weights, recorded 274f8ff9ac33be21"),
        ("traces/plain.jsonl", "`reflex replay` lists the differences"),
        ("bags/mcap.bag", "`reflex replay` lists the differences"),
        ("audit", "exits with 3"),
    ],
)
def test_what_is_done_otherwise_today_is_a_note(name: str, note: str, capsys: Output) -> None:
    status, found = judged(capsys, MADE / name)
    (one,) = found.values()
    assert status == 0
    assert any(note in text for text in one["notes"]), one["notes"]


def test_an_objective_without_a_mode_says_what_its_default_is_now(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "arm.yaml"
    path.write_text("reflex:\n  ros__parameters:\n    export_dir: x\n    slo: p99=150ms\n")
    status, found = judged(capsys, path)
    assert status == 0
    assert [note.partition(":")[0] for note in found[str(path)]["notes"]] == [
        "slo_mode defaults to auto instead of degrade"
    ]


def test_what_is_shipped_today_is_read_without_a_word_about_earlier_versions(capsys: Output) -> None:
    shipped = [*(ROOT / "config" / "embodiments").glob("*.json"), embedded_policy() / "a2c2.npz"]
    status, found = judged(capsys, ROOT / "config" / "serve.yaml", embedded_policy(), *shipped)
    assert status == 0, found
    assert {one["kind"] for one in found.values()} == {
        "parameter file",
        "export",
        "embodiment",
        "correction head",
    }


def test_traces_of_another_program_are_read_and_not_taken_for_ours(capsys: Output) -> None:
    status, found = judged(capsys, TEST / "fixtures" / "traces")
    assert status == 0
    assert len(found) == 2
    assert all(not one["notes"] for one in found.values())


def test_an_export_is_judged_for_the_robot_that_is_named(capsys: Output) -> None:
    path = MADE / "exports" / "degrees"
    _, alone = judged(capsys, path)
    _, for_a_robot = judged(capsys, path, *FRANKA)
    assert (alone[str(path)]["verdict"], for_a_robot[str(path)]["verdict"]) == (READ, REFUSED)
    assert any(note.startswith("judged without an embodiment") for note in alone[str(path)]["notes"])


def test_a_file_for_a_node_in_a_namespace_needs_the_name_of_every_node(capsys: Output) -> None:
    inside = ("--ros-args", "-r", "__ns:=/robot1")
    status, found = judged(capsys, MADE / "settings/serve.yaml", MADE / "settings/every_node.yaml", *inside)
    one, other = found.values()
    assert (status, one["verdict"], other["verdict"]) == (1, REFUSED, READ)
    assert "write /**: for every node, or /robot1/reflex:" in one["said"]


@pytest.mark.parametrize(
    "written",
    [
        "output: nonsense",
        "slo: p99",
        "cloud_fallback: foo",
        "embodiment: frank",
        "otel_endpoint: localhost:4318",
        "split: 80",
        "/**: {ros__parameters: {output: nonsense}}",
    ],
)
def test_a_value_that_serve_would_refuse_is_refused_in_the_same_words(
    written: str, tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "arm.yaml"
    path.write_text(written)
    assert main(["serve", "demo", "--no-ros", "--config", str(path)]) == 78
    sentence = capsys.readouterr().err.removeprefix("reflex serve: ").rstrip("\n")
    status, found = judged(capsys, path)
    assert (status, found[str(path)]["verdict"]) == (1, REFUSED)
    assert found[str(path)]["said"] == sentence


@pytest.mark.parametrize("written", ["embodimnt: franka", "/**: {ros__parameters: {embodimnt: franka}}"])
def test_a_file_whose_only_name_is_misspelt_is_refused_with_what_was_meant(
    written: str, tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "arm.yaml"
    path.write_text(written)
    _, found = judged(capsys, path)
    assert (found[str(path)]["kind"], found[str(path)]["verdict"]) == ("parameter file", REFUSED)
    assert "did you mean embodiment?" in found[str(path)]["said"]


def test_every_value_of_a_file_that_is_wrong_is_named_and_its_paths_are_left_to_the_doctor(
    tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "arm.yaml"
    path.write_text("export_dir: nope\nslo: p99\noutput: nonsense\nsafety_config: nope.json\n")
    _, found = judged(capsys, path)
    message = found[str(path)]["said"]
    assert ("slo: " in message, "'output'" in message, "nope" in message) == (True, True, False)


def test_a_calibration_of_this_machine_is_read_and_of_another_needs_the_command(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(MADE / WAS_MEASURED, tmp_path))
    machine = cache.read(path).fingerprint
    monkeypatch.setattr("reflex_core.calibration.fingerprint.this_machine", lambda: machine)
    monkeypatch.setattr(cache, "OLDEST_DAYS", 100_000)
    status, found = judged(capsys, path)
    assert (status, found[str(path)]["verdict"]) == (0, READ)
    document = json.loads(path.read_text())
    document["hardware_fingerprint"]["cpu_count"] += 1
    path.write_text(json.dumps(document))
    status, found = judged(capsys, path)
    assert (status, found[str(path)]["verdict"]) == (1, COMMAND)
    assert "cpu_count" in found[str(path)]["said"]
    assert "--auto-calibrate" in found[str(path)]["do"]


def test_what_was_torn_or_cut_off_needs_the_command_that_mends_it(tmp_path: Path, capsys: Output) -> None:
    trace = tmp_path / "torn.jsonl"
    trace.write_bytes((MADE / "traces/plain.jsonl").read_bytes()[:-400])
    bag = Path(shutil.copytree(MADE / "bags/mcap.bag", tmp_path / "cut"))
    (bag / "metadata.yaml").unlink()
    status, found = judged(capsys, trace, bag)
    assert status == 1
    assert [one["verdict"] for one in found.values()] == [COMMAND, COMMAND]
    assert "--allow-damage" in found[str(trace)]["do"]
    assert found[str(bag)]["do"] == f"reflex bag reindex {bag}"
    assert main(["bag", "reindex", str(bag)]) == 0
    status, found = judged(capsys, bag)
    assert (status, found[str(bag)]["verdict"]) == (0, READ)


def test_the_commands_that_are_named_make_an_export_of_the_first_version_right(
    tmp_path: Path, capsys: Output
) -> None:
    export = shutil.copytree(MADE / "exports/measured", tmp_path / "measured")
    seen = ("--observations", str(MADE / "observations"), *FRANKA)
    assert main(["calibrate-adaptive", str(export), *seen, "--max-difference", "0.99", "--write"]) == 0
    assert main(["calibrate-prefix", str(export), *seen, "--write"]) == 0
    status, found = judged(capsys, export)
    assert (status, found[str(export)]["verdict"]) == (0, READ), found


def test_a_reader_that_raises_whatever_it_likes_does_not_hide_the_other_files(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("of a library,\nin two lines")

    monkeypatch.setattr("reflex_core.robot.limits.safety_config.load_safety_config", broken)
    status, found = judged(capsys, MADE / "safety/limits.json", MADE / "embodiments/arm.json")
    one, other = found.values()
    assert (status, one["verdict"], other["verdict"]) == (1, REFUSED, READ)
    assert one["said"] == "RuntimeError: of a library, in two lines"


@pytest.mark.parametrize(
    ("source", "name"), [("traces/plain.jsonl", "x.mcap"), ("traces/demo.jsonl.gz", "x"), ("bags", "y.mcap")]
)
def test_recordings_are_read_under_any_name(source: str, name: str, tmp_path: Path, capsys: Output) -> None:
    path = MADE / source if source != "bags" else next(MADE.glob("bags/mcap.bag/*.mcap"))
    other = Path(shutil.copy(path, tmp_path / name))
    status, found = judged(capsys, other)
    assert (status, found[str(other)]["verdict"]) == (0, READ)


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_bag_without_its_ending_gets_it_back(suffix: str, tmp_path: Path, capsys: Output) -> None:
    other = Path(shutil.copy(next(MADE.glob(f"bags/*/*{suffix}")), tmp_path / "from a stick.bak"))
    status, found = judged(capsys, other)
    assert (status, found[str(other)]["verdict"]) == (1, COMMAND)
    subprocess.run(found[str(other)]["do"], shell=True, check=True)
    status, found = judged(capsys, f"{other}{suffix}")
    assert status == 0, found


def test_a_folder_stands_for_everything_in_it(tmp_path: Path, capsys: Output) -> None:
    shutil.copytree(MADE / "safety", tmp_path / "a" / "b")
    (tmp_path / "notes.txt").write_text("to do\n")
    status, found = judged(capsys, tmp_path)
    assert status == 1
    assert [one["kind"] for one in found.values()] == ["safety configuration"] * 2 + ["folder"]
    assert found[str(tmp_path)]["said"].endswith("of no kind that can be judged: notes.txt")


def test_what_is_damaged_in_a_folder_is_not_passed_over(tmp_path: Path, capsys: Output) -> None:
    whole = shutil.copytree(MADE / "safety", tmp_path / "safety") / "limits.json"
    whole.write_bytes(whole.read_bytes()[:100])
    status, found = judged(capsys, tmp_path)
    assert status == 1
    assert found[str(whole)]["verdict"] == REFUSED
    assert "is not valid JSON" in found[str(whole)]["said"]


def test_a_folder_of_too_many_files_says_that_it_was_not_finished(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflex_core.doctor.upgrade.kinds.MOST_FILES", 1)
    shutil.copytree(MADE / "safety", tmp_path / "safety")
    status, found = judged(capsys, tmp_path)
    assert status == 1
    assert [one["kind"] for one in found.values()] == ["safety configuration", "folder"]
    assert "more than 1 files" in found[str(tmp_path)]["said"]


def test_people_get_a_line_per_file_with_the_way_out_below_it(capsys: Output) -> None:
    status = main(["doctor", "--upgrade", str(MADE / "safety")])
    lines = capsys.readouterr().out.splitlines()
    assert status == 1
    assert lines[0].startswith("REFUSED  safety configuration  ")
    assert lines[1].lstrip().startswith("-> correct what the sentence names")
    assert lines[2].startswith("read     safety configuration  ")
    assert lines[-1] == "1 read, 0 need a command, 1 refused"


def test_on_a_terminal_it_is_a_table() -> None:
    reader, writer = os.openpty()
    words = [
        sys.executable,
        "-m",
        "reflex_ros.cli.main",
        "doctor",
        "--upgrade",
        str(MADE / "safety/limits.json"),
    ]
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    done = subprocess.run(words, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, env=variables, check=False)
    os.close(writer)
    shown = os.read(reader, 65536).decode()
    os.close(reader)
    assert done.returncode == 0, done.stderr
    assert "reflex doctor --upgrade" in shown
    assert "1 read, 0 need a command, 0 refused" in shown


@pytest.mark.parametrize(
    "words", [["--upgrade"], ["--upgrade", "x", "--port", "1"], ["demo", "--upgrade", "x"]]
)
def test_what_does_not_go_with_upgrade_is_a_bad_option(words: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *words])
    assert stop.value.code == 2
    assert "--upgrade" in capsys.readouterr().err


def test_text_of_others_forges_no_line(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "a\x1b[2Jb\nread  trace"
    path.write_text("{")
    assert main(["doctor", "--upgrade", str(path)]) == 1
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert len(output.splitlines()) == 4  # the file, the way out, and the count


def test_a_verdict_that_is_not_read_has_a_way_out_and_the_worst_counts() -> None:
    good, bad = Judgement("a", "", READ, "s"), Judgement("b", "", REFUSED, "s", "do")
    assert worst([]) == READ
    assert worst([good, Judgement("c", "", COMMAND, "s", "do")]) == COMMAND
    assert worst([bad, good]) == REFUSED
    for wrong in ((READ, "do"), (COMMAND, "")):
        with pytest.raises(ValueError, match="way out"):
            Judgement("a", "", wrong[0], "s", wrong[1])


def test_groups_are_read_and_their_interfaces_named(tmp_path: Path, capsys: Output) -> None:
    robot, broken = tmp_path / "robot.json", tmp_path / "broken.json"
    robot.write_text(json.dumps(document()), encoding="utf-8")
    broken.write_text(json.dumps(document(groups=[ARM])), encoding="utf-8")
    status, found = judged(capsys, robot, broken)
    assert status == 1
    assert found[str(robot)]["verdict"] == READ
    assert found[str(robot)]["said"].endswith("; arm by joint_trajectory, hand by parallel_gripper")
    assert found[str(broken)]["verdict"] == REFUSED
    assert "for finger" in found[str(broken)]["said"]
