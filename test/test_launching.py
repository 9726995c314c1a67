# SPDX-License-Identifier: Apache-2.0
"""What the launch files decide."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from reflex_core.errors import SettingError
from reflex_core.locations import share
from reflex_core.settings import TABLE
from reflex_ros import launching

LAUNCH = Path(__file__).parents[1] / "launch"


def test_every_setting_is_a_launch_argument_with_its_help() -> None:
    assert [name for name, _ in launching.arguments()] == [row.name for row in TABLE]
    assert all(row.help in text for row, (_, text) in zip(TABLE, launching.arguments(), strict=True))


def test_arguments_become_typed_parameters_and_empty_ones_are_left_alone() -> None:
    texts = {
        "port": "9000",
        "max_age_ms": "250",
        "http": "false",
        "joint_names": "a, b c",
        "robot_id": "r7",
        "host": "",
    }
    assert launching.parameters(texts) == {
        "port": 9000,
        "max_age_ms": 250.0,
        "http": False,
        "joint_names": ("a", "b", "c"),
        "robot_id": "r7",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [("port", "ninety"), ("port", "70000"), ("http", "maybe"), ("device", "tpu"), ("seed", "1.5")],
)
def test_a_wrong_argument_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=name):
        launching.parameters({name: text})


def test_processes_get_the_shared_memory_profile_unless_the_user_has_one() -> None:
    added = launching.environment({})
    assert added["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(share() / "config" / "fastdds_shm.xml")
    assert Path(added["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()
    own = {"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml", "MALLOC_TRIM_THRESHOLD_": "1"}
    assert launching.environment(own) == {"MALLOC_MMAP_THRESHOLD_": "67108864"}


def test_launch_files_are_valid_python() -> None:
    for path in LAUNCH.glob("*.launch.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


@pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros comes with a ROS install and is on no registry",
)
@pytest.mark.parametrize("name", ["serve", "demo"])
def test_a_launch_file_describes_its_processes(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.generate_launch_description().entities
