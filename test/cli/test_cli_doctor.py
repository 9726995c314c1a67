# SPDX-License-Identifier: Apache-2.0
"""`reflex doctor` as a command: the embedded policy is all green, and what is broken turns its check red."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from controller_bench import Bench
from described_panda import described
from domains import free_domain
from echoes import echo
from grouped_robots import document
from pyproject_file import requirements
from repository import ROOT

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.doctor.served_policy import policy
from reflex_core.doctor.system import OPTIONAL, PACKAGES
from reflex_core.files.share import embedded_policy
from reflex_core.settings.table import settings_from
from reflex_ros.cli.doctor import exports_of, http, main, parser, table, written_to
from reflex_ros.cli.serve import parser as serve_parser

ExportDir = Callable[[str], Path]
Output = pytest.CaptureFixture[str]
QUICK = ("--no-ros", "--device", "cpu", "--intra-op-threads", "1", "--port", "0")

OWN = ("json", "no_ros", "show_calibration", "config", "upgrade")

EVERY_CHECK = [
    "python", "packages", "shared memory", "clock", "ros", "middleware", "messages", "domain", "image transport",
    "ros clock", "loopback", "other servers", "settings", "controller",
    "port", "api key", "onnxruntime", "providers", "export", "hashes", "safety", "policy",
    "embodiment", "not checked", "canary", "parity",
]  # fmt: skip


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A program that listens on a port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def findings_of(capsys: Output, *arguments: object) -> tuple[int, dict[str, Finding]]:
    """Exit status and the findings by name, as a program reads them."""
    status = main(["--json", *map(str, arguments)])
    document = json.loads(capsys.readouterr().out)
    return status, by_name(document)


def by_name(document: dict[str, Any]) -> dict[str, Finding]:
    return {entry["name"]: Finding(**entry) for entry in document["findings"]}


def process(*arguments: str, **variables: str) -> tuple[int, dict[str, Finding]]:
    """The same of a process of its own, whose environment is made up of what ROS reads."""
    environment = {
        name: value for name, value in os.environ.items() if name != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
    }
    environment |= {
        "ROS_DOMAIN_ID": str(free_domain()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_shm.xml"),
    } | variables
    done = subprocess.run(
        [sys.executable, "-m", "reflex_ros.cli.main", "doctor", "--port", "0", *arguments, "--json"],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, by_name(json.loads(done.stdout))


def test_the_embedded_policy_is_all_green() -> None:
    status, found = process("demo")
    assert [finding for finding in found.values() if finding.level != OK] == []
    assert list(found) == EVERY_CHECK
    assert status == 0


def test_a_controller_that_would_refuse_every_trajectory_fails_with_the_line_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")  # as in the other process
    joints = [f"panda_joint{number}" for number in range(1, 8)]
    for _ in range(5):  # on a machine under load a node may be discovered later than doctor looks
        domain = free_domain()
        with Bench(domain, dict.fromkeys([*joints, "panda_finger"], 0.0)) as bench:
            bench.trajectory_controller("arm_controller", [*joints, "panda_finger"])
            remap = ["--ros-args", "-r", "reflex/joint_trajectory:=/arm_controller/joint_trajectory", "--"]
            status, found = process("demo", *remap, ROS_DOMAIN_ID=str(domain))
        if "controller /arm_controller" in found:
            break
    finding = found["controller /arm_controller"]
    assert (status, finding.level) == (1, FAIL)
    assert (
        "the policy does not command panda_finger of its joints: it refuses every trajectory" in finding.said
    )
    assert "`allow_partial_joints_goal: true` under ros__parameters of /arm_controller" in finding.do


def test_an_rmw_implementation_that_is_not_there_fails_and_ros_is_left_alone() -> None:
    status, found = process(RMW_IMPLEMENTATION="rmw_nowhere_cpp")
    assert (status, found["middleware"].level) == (1, FAIL)
    assert "RMW_IMPLEMENTATION=rmw_nowhere_cpp cannot be loaded" in found["middleware"].said
    assert "unset RMW_IMPLEMENTATION" in found["middleware"].do
    assert "loopback" not in found
    assert found["canary"].level == OK  # rcl would have ended this process


def test_a_good_export_on_its_robot_has_nothing_that_fails(export_dir: ExportDir, capsys: Output) -> None:
    status, found = findings_of(capsys, export_dir("mono_pi0_7"), "--embodiment", "franka", *QUICK)
    assert status == 0
    assert {name for name, finding in found.items() if finding.level == FAIL} == set()
    assert "50 x 7 actions" in found["policy"].said
    assert found["hashes"].level == WARN  # the test export brings no manifest


def test_the_doctor_says_what_is_checked_of_the_tool_and_what_is_not(
    export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    _, found = findings_of(
        capsys, "--export-dir", export_dir("mono_pi0_7"), "--embodiment", "franka", "--no-ros"
    )
    assert found["not checked"].level == OK
    assert found["not checked"].said.startswith("max_ee_velocity (1.7 m/s): the embodiment has no kinematics")
    robot = described(tmp_path, 0.3)
    _, found = findings_of(
        capsys, "--export-dir", export_dir("mono_pi0_7"), "--custom-embodiment-config", robot, "--no-ros"
    )
    assert "not checked" not in found
    assert found["tool"].said == "link8 at most 0.3 m/s"


def test_without_an_embodiment_it_warns_and_says_that_no_robot_is_commanded(
    export_dir: ExportDir, capsys: Output
) -> None:
    export = export_dir("mono_pi0_7")
    status, found = findings_of(capsys, export, *QUICK)
    assert (status, found["embodiment"].level) == (0, WARN)
    driven = embodiment_finding(export_dir=str(export))
    assert driven.level == WARN
    assert "a robot needs an embodiment" in driven.said
    assert embodiment_finding(export_dir=str(export), record_bag="bags").level == FAIL


def test_the_embedded_policy_by_omission_is_a_warning_where_there_is_ros() -> None:
    found = embodiment_finding()
    assert (found.level, found.do) == (WARN, "name an export, or `demo`")
    assert "no export was named" in found.said
    assert embodiment_finding(export_dir="demo").level == OK
    assert embodiment_finding(http=False).level == FAIL


def test_cameras_that_the_robot_lacks_are_a_warning(export_dir: ExportDir) -> None:
    settings = settings_from({"export_dir": str(export_dir("mono_pi0_7")), "embodiment": "franka"})
    found = {finding.name: finding for finding in policy(settings, False)}
    assert found["cameras"].level == WARN
    assert "no camera of the robot feeds wrist_l, wrist_r" in found["cameras"].said


def embodiment_finding(**settings: object) -> Finding:
    """What the doctor says of the robot, where there is ROS."""
    return {found.name: found for found in policy(settings_from(settings), True)}["embodiment"]


@pytest.mark.parametrize(
    ("export", "embodiment", "check", "says"),
    [
        ("nowhere", "franka", "export", "no such export directory"),
        ("mono_pi0_7", "robbie", "embodiment", "no embodiment preset 'robbie'"),
        ("mono_pi0_7", "so100", "policy", "so100"),
        ("always_nan", "franka", "canary", "NaN or Inf"),
    ],
)
def test_what_is_wrong_with_a_policy_fails(
    export_dir: ExportDir, capsys: Output, export: str, embodiment: str, check: str, says: str
) -> None:
    path = Path("nowhere") if export == "nowhere" else export_dir(export)
    status, found = findings_of(capsys, path, "--embodiment", embodiment, *QUICK)
    assert status == 1
    assert found[check].level == FAIL
    assert says in found[check].said


def test_a_graph_of_another_shape_fails(export_copy: ExportDir, capsys: Output) -> None:
    export = export_copy("mono_pi0_7")
    config = json.loads((export / "reflex_config.json").read_text())
    (export / "reflex_config.json").write_text(json.dumps(config | {"chunk_size": 20}))
    status, found = findings_of(capsys, export, "--embodiment", "franka", *QUICK)
    assert (status, found["policy"].level) == (1, FAIL)
    assert "20" in found["policy"].said


def test_a_file_that_is_cut_off_fails(export_copy: ExportDir, capsys: Output) -> None:
    export = export_copy("mono_pi0_7")
    model = export / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    status, found = findings_of(capsys, export, "--embodiment", "franka", *QUICK)
    assert (status, found["policy"].level) == (1, FAIL)
    assert "model.onnx" in found["policy"].said


@pytest.mark.parametrize(
    ("content", "check", "says"),
    [
        ("{", "safety", "not readable as JSON"),
        ('{"joint_names": ["panda_joint1"], "velocity_max": [-1]}', "safety", "'velocity_max' must be"),
        ('{"joint_names": ["elbow"], "velocity_max": [1]}', "safety limits", "elbow"),
    ],
)
def test_a_safety_configuration_that_is_wrong_fails(
    tmp_path: Path, capsys: Output, content: str, check: str, says: str
) -> None:
    path = tmp_path / "safety.json"
    path.write_text(content)
    status, found = findings_of(capsys, "--safety-config", path, *QUICK)
    assert (status, found[check].level) == (1, FAIL), found
    assert says in found[check].said


def test_a_taken_port_fails_with_the_command_that_shows_who_has_it(
    listener: socket.socket, capsys: Output
) -> None:
    number = listener.getsockname()[1]
    status, found = findings_of(capsys, "nowhere", *QUICK, "--port", number)
    assert (status, found["port"].level) == (1, FAIL)
    assert f"ss -ltnp 'sport = :{number}'" in found["port"].do
    assert "port" not in findings_of(capsys, "nowhere", *QUICK, "--no-http", "--port", number)[1]


def test_an_address_open_to_the_network_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFLEX_API_KEY", raising=False)
    (tmp_path / "key").write_text("secret")
    open_to_all = {"host": "0.0.0.0", "port": 0}
    key_of = {finding.name: finding for finding in http(settings_from(open_to_all))}["api key"]
    assert key_of.level == FAIL
    *_, key_of = http(settings_from(open_to_all | {"api_key_file": str(tmp_path / "key")}))
    assert (key_of.level, key_of.said) == (OK, "required")
    *_, key_of = http(settings_from({"port": 0, "api_key_file": str(tmp_path / "none")}))
    assert (key_of.level, "No such file" in key_of.said) == (FAIL, True)


@pytest.mark.parametrize("port", [0, 8000])
def test_a_host_that_cannot_be_resolved_is_reported_once(port: int) -> None:
    [finding] = http(settings_from({"host": "nohost.invalid", "port": port}))
    assert (finding.name, finding.level) == ("port", FAIL)
    assert finding.said.startswith("--host nohost.invalid: ")


def test_nothing_is_written_where_serving_would_record(tmp_path: Path, capsys: Output) -> None:
    folders = {flag: tmp_path / flag for flag in ("record", "record-bag", "audit-log")}
    flags = [word for flag, folder in folders.items() for word in (f"--{flag}", folder)]
    _, found = findings_of(capsys, *QUICK, *flags)
    assert [name for name, each in found.items() if each.level == FAIL] == ["settings"], "bags need ROS"
    assert [found[f"disk --{flag}"].level for flag in folders] == [OK] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_record_directory_that_cannot_be_made_fails(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "file").write_text("in the way")
    status, found = findings_of(capsys, "nowhere", *QUICK, "--record", tmp_path / "file" / "traces")
    assert (status, found["disk --record"].level) == (1, FAIL)
    assert "is not a directory" in found["disk --record"].said


def test_the_calibration_cache_is_looked_at_where_it_would_be_written(tmp_path: Path) -> None:
    cache = str(tmp_path / "calibration.json")
    assert written_to(settings_from({"calibration_cache": cache})) == {}
    wanted = settings_from({"calibration_cache": cache, "auto_calibrate": True})
    assert written_to(wanted) == {"--calibration-cache": str(tmp_path)}


def test_both_exports_of_two_slots_are_checked(export_copy: ExportDir, capsys: Output) -> None:
    one, other = export_copy("calm"), export_copy("mono_pi0_7")
    slots = ["--policy-a", one, "--policy-b", other, "--no-rtc", "--embodiment", "franka"]
    status, found = findings_of(capsys, *QUICK, *slots)
    assert status == 0
    assert {"export a", "export b", "parity a", "parity b"} <= set(found)
    (other / "model.onnx").unlink()
    status, found = findings_of(capsys, *QUICK, *slots)
    assert (status, found["policy"].level) == (1, FAIL)


def test_the_export_is_the_embedded_one_unless_another_is_named() -> None:
    assert exports_of(settings_from({})) == {"": embedded_policy()}
    assert exports_of(settings_from({"export_dir": "x", "shadow_policy": "y"})) == {
        "": Path("x"),
        " shadow": Path("y"),
    }


def test_it_runs_where_nothing_can_be_imported_and_says_what_to_install() -> None:
    missing = ["numpy", "onnxruntime", "safetensors", "aiohttp", "prometheus_client"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}));"
        "from reflex_ros.cli.doctor import main; sys.exit(main(['--no-ros', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    found = by_name(json.loads(done.stdout))
    assert (done.returncode, found["packages"].level) == (1, FAIL), done.stderr
    assert found["packages"].do.startswith(
        f"pip install {' '.join(PACKAGES[name] for name in PACKAGES if name in missing)} (onnxruntime-gpu in its place"
    )


@pytest.mark.parametrize("missing", ["onnxruntime", "aiohttp"])
def test_a_library_that_is_missing_is_one_sentence_of_every_command(missing: str) -> None:
    code = (
        f"import sys; sys.modules['{missing}'] = None;"
        "from reflex_ros.cli.main import main; sys.exit(main(['serve', '--no-ros', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"reflex serve: {missing} is not installed: pip install {missing}")


def test_every_library_that_the_wheel_asks_for_is_looked_for() -> None:
    needed = set(requirements("cpu"))
    assert set(PACKAGES.values()) == needed
    assert {wheel for wheel, _ in OPTIONAL.values()} == set(requirements("bag", "opencv")) - needed


def test_a_device_that_is_not_there_fails(capsys: Output) -> None:
    status, found = findings_of(capsys, "nowhere", *QUICK, "--device", "tensorrt")
    assert (status, found["providers"].level) == (1, FAIL)
    assert "TensorrtExecutionProvider" in found["providers"].said
    assert "--device cpu" in found["providers"].do


def test_it_takes_what_serve_takes() -> None:
    flags = {option for action in serve_parser()._actions for option in action.option_strings}
    assert flags - {"--print-config"} < {
        option for action in parser()._actions for option in action.option_strings
    }


def test_what_a_parameter_file_says_is_judged(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(
        "/**: {ros__parameters: {export_dir: /nope, safety_config: nope.json, slo: fast, record: /proc/x}}\n"
    )
    status, found = findings_of(capsys, *QUICK, "--ros-args", "--params-file", file)
    assert status == 1
    for name, says in (
        ("export", "/nope: no such export directory"), ("safety", "nope.json: No such file"), ("settings", "slo: expected"),
        ("disk --record", "/proc/x"),
    ):  # fmt: skip
        assert (found[name].level, says in found[name].said) == (FAIL, True), found


def test_a_file_of_settings_counts_and_options_win_over_it(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("export_dir: nowhere\nhttp: true\nport: 1\n")
    _, found = findings_of(capsys, *QUICK, "--config", file, "--ros-args", "-p", "robot_id:=r1")
    assert (
        found["settings"].said
        == "given to /reflex: device, export_dir, http, intra_op_threads, port, robot_id"
    )
    assert "--port 0" in found["port"].said
    assert "nowhere" in found["export"].said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cloud-fallback", "notaurl"], "is not the URL of a server"),
        (["--otel-endpoint", "notaurl"], "is not the base URL"),
        (["--a2c2-checkpoint", "nope.npz"], "cannot be read"),
        (["--calibrate-force"], "--auto-calibrate"),
        (["--no-http"], "nothing would be served"),
        (["--record-bag", "bags"], "records what goes over ROS"),
    ],
)
def test_what_serve_would_refuse_fails(capsys: Output, words: list[str], says: str) -> None:
    status, found = findings_of(capsys, "nowhere", *QUICK, *words)
    assert (status, found["settings"].level) == (1, FAIL)
    assert says in found["settings"].said


def test_a_bad_setting_is_status_2(capsys: Output) -> None:
    assert main(["--port", "70000"]) == 2
    assert "setting 'port' takes" in capsys.readouterr().err


def test_people_get_lines_and_a_sum(capsys: Output) -> None:
    assert main([*QUICK, "nowhere"]) == 1
    output = capsys.readouterr().out
    assert "FAIL  export" in output
    assert "-> copy the export again, or name another one" in output
    assert output.splitlines()[-1].endswith(" 1 failures")


def test_the_table_puts_each_way_out_below_its_finding() -> None:
    lines = table([Finding("rclpy", OK, "here"), Finding("policy", FAIL, "broken", "mend it")])
    assert lines == ["ok    rclpy   here", "FAIL  policy  broken", "              -> mend it"]


def test_every_finding_that_is_not_ok_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="needs a way out"):
        Finding("policy", FAIL, "broken")
    with pytest.raises(ValueError, match="needs no way out"):
        Finding("policy", OK, "fine", "nothing")


PAGE = (ROOT / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")


def test_the_page_lists_every_check() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (?!not ok)[^|]+ \|$", PAGE, re.MULTILINE)
    listed = {name.strip() for row in rows for name in row.split(",")}
    assert set(EVERY_CHECK) <= listed
    assert {f"`{flag}`" for flag in ("--record-bag", "--audit-log", "--calibration-cache")} <= listed


def test_the_commands_of_the_page_are_understood() -> None:
    commands = [line.split("#")[0] for line in re.findall(r"^reflex doctor *(.*)$", PAGE, re.MULTILINE)]
    assert len(commands) == 4
    for words in commands:
        options = vars(parser().parse_args(words.split()))
        settings_from({name: options[name] for name in options if name not in OWN})


def test_what_libraries_print_does_not_get_into_the_json() -> None:
    """Fast DDS, which is C++, writes to the same standard output."""
    code = (
        "import os, sys; from reflex_ros.cli import doctor\n"
        "checks = doctor.checks\n"
        "doctor.checks = lambda *given: (os.write(1, b'noise'), checks(*given))[1]\n"
        "sys.exit(doctor.main(['--json', '--no-ros', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert json.loads(done.stdout)["findings"]
    assert "noise" in done.stderr


def test_an_arm_is_checked_with_the_calibration_file_of_the_command_line(
    tmp_path: Path, capsys: Output
) -> None:
    names = ["shoulder_pan", "gripper"]
    export = echo(
        tmp_path / "export", "somebodys", felt=2, image=False, action_dim=2, action_names=names, frequency_hz=20,
        state={"input": "state", "names": names}, units="norm100",
    )  # fmt: skip
    arm = {"name": "arm", "space": "joints", "joints": names, "output": {"kind": "joint_trajectory"}}
    numbers = {"mean_action": [0, 0], "std_action": [1, 1], "mean_state": [0, 0], "std_state": [1, 1]}
    robot = document(
        joint_names=names, groups=[arm], velocity_max=[1, 1], normalization=numbers,
        action_space={"type": "continuous", "dim": 2, "ranges": [[-3, 3], [-3, 3]]},
        calibration={"joints": {name: {"zero": 0.0} for name in names}},
    )  # fmt: skip
    file = tmp_path / "robot.json"
    file.write_text(json.dumps(robot), encoding="utf-8")
    given = (export, "--custom-embodiment-config", str(file), *QUICK)
    status, found = findings_of(capsys, *given)
    assert status == 1
    assert any("--lerobot-calibration FILE" in one.said for one in found.values())
    calibration = ROOT / "test" / "fixtures" / "lerobot_calibration" / "so101.json"
    status, found = findings_of(capsys, *given, "--lerobot-calibration", str(calibration))
    assert (status, found["embodiment"].level) == (0, OK)
