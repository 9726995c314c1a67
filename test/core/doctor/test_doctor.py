# SPDX-License-Identifier: Apache-2.0
"""The checks of the doctor that need no ROS: each turns yellow or red when the thing it looks at is broken."""

from __future__ import annotations

import hashlib
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from servers import MakeEngine

from reflex_core.doctor import onnx_runtime, system
from reflex_core.doctor.clock import clock, ntp
from reflex_core.doctor.export_files import export, hashes
from reflex_core.doctor.finding import FAIL, OK, WARN, Finding, worst
from reflex_core.doctor.parity import FIXTURE, parity, record
from reflex_core.doctor.served_policy import safety
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy

ExportDir = Callable[[str], Path]


def test_the_worst_finding_counts() -> None:
    fine, so_so = Finding("a", OK, ""), Finding("b", WARN, "", "look")
    assert [worst([]), worst([fine]), worst([so_so, fine])] == [OK, OK, WARN]
    assert worst([so_so, Finding("c", FAIL, "", "mend"), fine]) == FAIL


def test_another_python_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.python_version().level == OK
    monkeypatch.setattr(sys, "version_info", (3, 14, 1))
    assert (system.python_version().level, system.python_version().said) == (WARN, "3.14.1")


def test_a_missing_library_fails_with_the_command_that_brings_it() -> None:
    assert "onnxruntime 1." in system.packages().said
    found = system.packages({"numpy": "numpy", "no_such_module": "no-such-wheel"})
    assert (found.level, found.do) == (FAIL, "pip install no-such-wheel")


def test_a_library_that_not_everybody_needs_is_named_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    found = system.packages()
    assert (found.level, found.said.count("is not installed")) == (OK, 1)
    assert found.said.endswith(
        "; opencv-python-headless is not installed (Bayer and YUV images, faster pictures)"
    )
    assert system.wheel_of("cv2") == "opencv-python-headless"


def test_every_python_that_was_tried_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in (10, 11, 12, 13):
        monkeypatch.setattr(sys, "version_info", (3, minor, 0))
        assert system.python_version().level == OK


def test_too_little_shared_memory_warns(tmp_path: Path) -> None:
    assert system.shared_memory(tmp_path, need_mb=0.001).level == OK
    assert system.shared_memory(tmp_path, need_mb=1e12).level == WARN
    assert system.shared_memory(tmp_path / "nothing").level == WARN


def test_a_disk_with_room_is_ok_and_stays_as_it_was(tmp_path: Path) -> None:
    found = system.disk("--record", tmp_path / "new" / "traces", enough_mb=0.001)
    assert found.level == OK
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_warns_and_then_fails(tmp_path: Path) -> None:
    short = system.disk("--record", tmp_path, enough_mb=1e12, least_mb=0.001)
    assert (short.name, short.level) == ("disk --record", WARN)
    assert system.disk("--record", tmp_path, enough_mb=1e12, least_mb=1e12).level == FAIL


def test_a_directory_that_takes_no_files_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a directory" in system.disk("--record", tmp_path / "file").said
    assert "nothing can be written" in system.disk("--record", Path("/proc/traces")).said
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert system.disk("--record", tmp_path / "link").level == FAIL


def test_a_taken_port_fails_and_a_free_one_is_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        found = system.port("127.0.0.1", number)
        assert found.level == FAIL
        assert "another `reflex serve` may be driving this robot" in found.do
        assert f"ss -ltnp 'sport = :{number}'" in found.do
        assert "--port" not in found.do
    assert system.port("127.0.0.1", number).level == OK
    assert system.port("127.0.0.1", number).level == OK


def test_an_address_of_another_machine_fails() -> None:
    assert "Cannot assign" in system.port("192.0.2.1", 8000).said
    for host in ("192.0.2.1", "no such host"):
        assert system.port(host, 8000).do == "give --host an address of this machine"


def test_the_clock_of_this_machine_is_steady() -> None:
    assert clock(alone=True).level == OK
    assert ntp() in (True, False, None)


@pytest.mark.parametrize(
    ("synchronised", "alone", "level"),
    [(True, False, OK), (None, False, OK), (False, True, OK), (False, False, WARN)],
)
def test_a_clock_that_is_not_synchronised_matters_where_others_take_part(
    synchronised: bool | None, alone: bool, level: str
) -> None:
    found = clock(alone, lambda: synchronised)
    assert found.level == level
    assert ("timedatectl" in found.do) == (level == WARN)


def test_clocks_that_go_wrong_are_found() -> None:
    back = iter([10.0, 10.01, 10.02, 10.01])
    assert "went back" in clock(True, monotonic=lambda: next(back)).said
    ticks, day = iter(range(1000)), iter([2e9, 2e9 + 100.0])
    jumped = clock(True, monotonic=lambda: next(ticks) * 0.01, wall=lambda: next(day))
    assert (jumped.level, "jumped +99" in jumped.said) == (WARN, True)
    ticks = iter(range(1000))
    assert (
        "1970-01-01" in clock(True, monotonic=lambda: 0.01 * next(ticks), wall=lambda: 0.0, sample_s=0.0).said
    )


def test_one_build_of_onnxruntime_is_ok() -> None:
    found = onnx_runtime.builds()
    assert found.level == OK
    assert f"version {onnxruntime.__version__}" in found.said


def test_two_builds_of_onnxruntime_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "onnxruntime_gpu-1.20.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.20.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = onnx_runtime.builds()
    assert found.level == FAIL
    assert "onnxruntime-gpu 1.20.0" in found.said
    assert found.do == "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"


def test_the_provider_that_would_serve_is_tried() -> None:
    assert onnx_runtime.providers(onnx_runtime.Wanted("cpu")).level == OK
    assert "starts: CPUExecutionProvider" in onnx_runtime.providers(onnx_runtime.Wanted("auto")).said


def test_a_provider_that_is_not_in_the_build_fails_unless_the_cpu_is_an_allowed_fallback() -> None:
    wanted = {"device": "tensorrt"}, {"providers": ("CUDAExecutionProvider",)}
    for one in wanted:
        assert onnx_runtime.providers(onnx_runtime.Wanted(**one)).level == FAIL  # type: ignore[arg-type]
        assert onnx_runtime.providers(onnx_runtime.Wanted(**one, allow_cpu_fallback=True)).level == WARN  # type: ignore[arg-type]


def test_a_provider_that_is_listed_and_does_not_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where onnxruntime-gpu is installed and the CUDA libraries are not; the session is a real one."""
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    found = onnx_runtime.providers(onnx_runtime.Wanted("auto"))
    assert found.level == FAIL
    assert "CUDAExecutionProvider does not start: onnxruntime took CPUExecutionProvider instead" in found.said


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of the embedded export that a test may damage."""
    return Path(shutil.copytree(embedded_policy(), tmp_path / "reach_panda"))


def test_the_hashes_of_the_embedded_export_are_right() -> None:
    assert [finding.level for finding in export(embedded_policy())] == [OK, OK]


@pytest.mark.parametrize("damage", ["shorter", "other", "gone"])
def test_a_damaged_weight_file_fails(shipped: Path, damage: str) -> None:
    weights = shipped / "expert_denoise.onnx"
    content = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(content[:-1] if damage == "shorter" else content[:-1] + bytes([content[-1] ^ 1]))
    found = hashes(shipped)
    assert found.level == FAIL
    assert f"{'missing' if damage == 'gone' else 'changed'}" in found.said
    assert "expert_denoise.onnx" in found.said


def test_a_configuration_that_people_edit_only_warns(shipped: Path) -> None:
    with (shipped / "reflex_config.json").open("a") as stream:
        stream.write("\n")
    found = hashes(shipped)
    assert (found.level, "sha256sum" in found.do) == (WARN, True)


def test_manifests_of_other_exporters_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    rows = f"# Manifest\n\n| File | Size | SHA-256 |\n|---|---|---|\n| model.onnx | 7 B | {digest} |\n"
    (tmp_path / "VERIFICATION.md").write_text(rows)
    assert hashes(tmp_path).said == "1 files are as VERIFICATION.md says"


def test_a_manifest_that_is_missing_or_empty_warns(shipped: Path) -> None:
    (shipped / "VERIFICATION.md").write_text("# Nothing yet\n")
    assert hashes(shipped).level == WARN
    (shipped / "VERIFICATION.md").write_bytes(b"\xff\xfe\x00broken")
    assert hashes(shipped).level == FAIL
    (shipped / "VERIFICATION.md").unlink()
    assert hashes(shipped).level == WARN


def test_an_export_without_a_configuration_fails(shipped: Path) -> None:
    (shipped / "reflex_config.json").write_text("{")
    assert [finding.level for finding in export(shipped)] == [FAIL]


def test_a_safety_configuration_with_unchecked_keys_warns(tmp_path: Path) -> None:
    path = tmp_path / "safety.json"
    path.write_text('{"joint_names": ["panda_joint1"], "velocity_max": [1], "effort_max": [80]}')
    assert safety(str(path)).level == WARN
    path.write_text('{"joint_names": ["panda_joint1"], "velocity_max": [1]}')
    assert safety(str(path)).level == OK
    assert safety(str(tmp_path / "none.json")).level == FAIL


@pytest.fixture
def policy(make_engine: MakeEngine, export_copy: ExportDir) -> Policy:
    """Of an export that a test may add files to."""
    loaded = make_engine("calm", export_dir=str(export_copy("calm")), embodiment="franka").loaded
    assert loaded is not None
    return loaded.policy


def test_a_policy_that_makes_the_recorded_chunk_is_ok(policy: Policy) -> None:
    assert "nothing to compare" in parity(policy).said
    record(policy.export.path / FIXTURE, policy, policy.canary(), seed=3)
    found = parity(policy)
    assert found.level == OK
    assert "largest difference from the recorded chunk 0.0e+00" in found.said


def test_a_policy_that_makes_another_chunk_fails(policy: Policy) -> None:
    path = policy.export.path / FIXTURE
    record(path, policy, policy.canary(), seed=3)
    with np.load(path) as stored:
        changed = {name: stored[name] for name in stored.files}
    changed["normalised"] = changed["normalised"] + 0.01
    np.savez(path, **changed)
    found = parity(policy)
    assert (found.level, "1.0e-02, 0.001 is allowed" in found.said) == (FAIL, True)
    np.savez(path, **(changed | {"normalised": changed["normalised"][:, :5]}))
    assert "a chunk of (1, 5," in parity(policy).said


def test_a_fixture_that_cannot_be_used_fails(policy: Policy) -> None:
    path = policy.export.path / FIXTURE
    path.write_bytes(b"PK\x03\x04 cut off")
    assert (parity(policy).level, "not readable" in parity(policy).said) == (FAIL, True)
    record(path, policy, policy.canary(), seed=3)
    with np.load(path) as stored:
        blind = {name: stored[name] for name in stored.files if not name.startswith("image.")}
    path.unlink()
    np.savez(path, **blind)
    assert "does not take the observation" in parity(policy).said
