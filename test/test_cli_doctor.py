# SPDX-License-Identifier: Apache-2.0
"""`reflex doctor`: each check passes, warns or fails for the right reason, and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reflex_core import doctor
from reflex_core.doctor import Check
from reflex_ros.cli.doctor import PROFILE_VARIABLES, image_transport, main, table

SHIPPED = Path(__file__).resolve().parents[1] / "config" / "fastdds_shm.xml"
ExportDir = Callable[[str], Path]
Output = pytest.CaptureFixture[str]


def checks_of(arguments: list[object], capsys: Output) -> tuple[int, dict[str, Check]]:
    """Exit status and the checks by name, as a program reads them."""
    status = main([*map(str, arguments), "--format", "json"])
    found = [Check(**entry) for entry in json.loads(capsys.readouterr().out)]
    for check in found:
        assert check.status in ("PASS", "WARN", "FAIL")
        assert bool(check.remedy) == (check.status != "PASS"), check
    return status, {check.name: check for check in found}


def test_a_good_export_on_its_robot_passes(export_dir: ExportDir, capsys: Output) -> None:
    status, found = checks_of([export_dir("mono_pi0_7"), "--embodiment", "franka"], capsys)
    assert status == 0
    for name in ("python", "packages", "onnxruntime", "rclpy", "messages", "policy", "embodiment", "canary"):
        assert found[name].status == "PASS", found[name]
    assert "50 x 7 actions" in found["policy"].detail


def test_without_an_embodiment_it_warns(export_dir: ExportDir, capsys: Output) -> None:
    status, found = checks_of([export_dir("mono_pi0_7")], capsys)
    assert (status, found["embodiment"].status) == (0, "WARN")


@pytest.mark.parametrize(
    ("export", "embodiment", "check", "says"),
    [
        ("nowhere", "franka", "policy", "no such export directory"),
        ("mono_pi0_7", "robbie", "policy", "no embodiment preset 'robbie'"),
        ("gr00t", "franka", "", ""),
        ("always_nan", "franka", "canary", "NaN or Inf"),
    ],
)
def test_what_is_wrong_with_a_policy_fails(
    export_dir: ExportDir, capsys: Output, export: str, embodiment: str, check: str, says: str
) -> None:
    path = Path("nowhere") if export == "nowhere" else export_dir(export)
    status, found = checks_of([path, "--embodiment", embodiment], capsys)
    assert status == (1 if check else 0)
    if check:
        assert found[check].status == "FAIL"
        assert says in found[check].detail


def test_a_device_that_is_not_there_fails(export_dir: ExportDir, capsys: Output) -> None:
    status, found = checks_of([export_dir("mono_pi0_7"), "--device", "tensorrt"], capsys)
    assert (status, found["onnxruntime"].status) == (1, "FAIL")
    assert "TensorrtExecutionProvider" in found["onnxruntime"].detail


def test_a_missing_library_fails_and_the_policy_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setitem(doctor.PACKAGES, "no_such_module", "no-such-wheel")
    status, found = checks_of([], capsys)
    assert (status, found["packages"].remedy) == (1, "pip install no-such-wheel")
    assert "policy" not in found


def test_a_bad_setting_is_status_2(capsys: Output) -> None:
    assert main(["--device", "abacus"]) == 2
    assert "setting 'device' takes one of" in capsys.readouterr().err


def test_the_shipped_profile_is_large_enough() -> None:
    for variable in PROFILE_VARIABLES:
        found = image_transport({variable: str(SHIPPED)})
        assert (found.status, "16 MB" in found.detail) == ("PASS", True)


def test_without_a_profile_it_names_the_shipped_one() -> None:
    found = image_transport({})
    assert found.status == "WARN"
    assert found.remedy == f"export FASTRTPS_DEFAULT_PROFILES_FILE={SHIPPED}"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("<dds>", "no element found"),
        ("<dds></dds>", "segment of 0 bytes"),
        (SHIPPED.read_text().replace("16777216", "524288"), "segment of 524288 bytes"),
        (SHIPPED.read_text().replace("16777216", "large"), "invalid literal"),
    ],
)
def test_a_profile_that_loses_images_warns(tmp_path: Path, content: str | None, says: str) -> None:
    profile = tmp_path / "profile.xml"
    if content is not None:
        profile.write_text(content)
    found = image_transport({PROFILE_VARIABLES[0]: str(profile)})
    assert found.status == "WARN"
    assert says in found.detail


def test_another_middleware_needs_no_fast_dds_profile() -> None:
    assert image_transport({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}).status == "PASS"


def test_a_small_shared_memory_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=64_000_000))
    assert doctor.shared_memory(tmp_path).status == "WARN"
    assert doctor.shared_memory(tmp_path / "nothing").status == "WARN"


def test_the_table_puts_each_remedy_below_its_check() -> None:
    lines = table([Check("rclpy", "PASS", "here"), Check("policy", "FAIL", "broken", "mend it")]).splitlines()
    assert lines == ["PASS  rclpy   here", "FAIL  policy  broken", "              -> mend it"]
