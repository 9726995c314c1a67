# SPDX-License-Identifier: Apache-2.0
"""Who sets the shared-memory profile of raw images: every process of ours, unless the user has chosen otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from repository import ROOT

from reflex_core.errors import ConfigurationError
from reflex_ros import launch_args
from reflex_ros.graph import dds_profile
from reflex_ros.graph.dds_profile import OWN_FILES, PROFILE_VARIABLES, missing_profile, take_profile

SHIPPED = ROOT / "config" / "fastdds_shm.xml"
VARIABLE = PROFILE_VARIABLES[0]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "rmw", [{}, {"RMW_IMPLEMENTATION": ""}, {"RMW_IMPLEMENTATION": "rmw_fastrtps_dynamic_cpp"}]
)
def test_it_is_set_where_nothing_was_chosen(rmw: dict[str, str]) -> None:
    environment = dict(rmw)
    assert f"{VARIABLE}={SHIPPED} is set for raw camera images" in take_profile(environment)
    assert environment == rmw | {VARIABLE: str(SHIPPED)}
    assert take_profile(environment) == "", "and once is enough"


@pytest.mark.parametrize(
    "chosen",
    [
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
        {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"},
        {PROFILE_VARIABLES[0]: "/mine.xml"},
        {PROFILE_VARIABLES[1]: "/mine.xml"},
        {PROFILE_VARIABLES[0]: ""},
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
    ],
)
def test_what_the_user_chose_is_left_alone(chosen: dict[str, str]) -> None:
    environment = dict(chosen)
    assert take_profile(environment) == ""
    assert environment == chosen
    assert not set(PROFILE_VARIABLES) & (set(launch_args.environment(chosen)) - set(chosen)), "launch agrees"


@pytest.mark.parametrize("name", OWN_FILES)
def test_a_default_file_in_the_working_directory_is_a_choice(name: str) -> None:
    assert missing_profile({})
    Path(name).write_text("<dds/>")
    assert missing_profile({}) == {}


def test_a_package_without_its_profile_says_what_may_get_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise ConfigurationError("config/ was not installed")

    monkeypatch.setattr(dds_profile, "share", nowhere)
    environment: dict[str, str] = {}
    assert take_profile(environment) == "raw camera images may get lost: config/ was not installed"
    assert environment == {}
