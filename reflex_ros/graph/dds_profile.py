# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile with room for raw camera images: set it, unless the user configured Fast DDS already."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from reflex_core.errors import ConfigurationError
from reflex_core.files.share import share

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
TRANSPORTS_VARIABLE = "FASTDDS_BUILTIN_TRANSPORTS"  # which our profile would overrule
OWN_FILES = (
    "DEFAULT_FASTRTPS_PROFILES.xml",
    "DEFAULT_FASTDDS_PROFILES.xml",
)  # read from the working directory
FAST_DDS = "rmw_fastrtps"  # what the names of its RMW implementations begin with; ROS 2 takes it by default


def uses_fast_dds(environment: Mapping[str, str]) -> bool:
    """Return whether ROS would start with Fast DDS."""
    return (environment.get("RMW_IMPLEMENTATION") or FAST_DDS).startswith(FAST_DDS)


def chosen_by_user(environment: Mapping[str, str], folder: Path | None = None) -> str:
    """Name the variable or the file with which the user has configured Fast DDS; empty where there is none.

    A variable that is set to nothing counts: the user wants Fast DDS's defaults. folder: the working directory.
    """
    folder = Path.cwd() if folder is None else folder
    variables = [name for name in (*PROFILE_VARIABLES, TRANSPORTS_VARIABLE) if name in environment]
    files = [str(folder / name) for name in OWN_FILES if (folder / name).is_file()]
    return [*variables, *files, ""][0]


def shipped_profile() -> Path:
    """Return the path of this package's profile. Raises ConfigurationError where it was not installed."""
    return share() / "config" / "fastdds_shm.xml"


def missing_profile(environment: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """Return the variable to add for ROS processes; empty for another middleware, and where the user has chosen."""
    if not uses_fast_dds(environment) or chosen_by_user(environment, folder):
        return {}
    return {PROFILE_VARIABLES[0]: str(shipped_profile())}


def take_profile(environment: MutableMapping[str, str] = os.environ) -> str:
    """Set the profile for this process, before ROS starts in it. Return a line for the log; empty: nothing was set."""
    try:
        added = missing_profile(environment)
    except ConfigurationError as error:
        return f"raw camera images may get lost: {error}"
    environment.update(added)
    return "".join(
        f"{name}={path} is set for raw camera images; their publishers need it too"
        for name, path in added.items()
    )
