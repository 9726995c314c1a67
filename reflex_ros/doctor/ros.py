# SPDX-License-Identifier: Apache-2.0
"""Check the ROS 2 installation: its source, its middleware, our compiled messages, and whether messages arrive.

rclpy is imported inside the checks, and only after `middleware` has tried it in a process of its own: where the
implementation that RMW_IMPLEMENTATION names cannot be loaded, rcl ends the process.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ConfigurationError
from reflex_core.files.share import share
from reflex_ros.doctor.dds import image_transport, loopback
from reflex_ros.doctor.interface_files import PARTS, differences
from reflex_ros.doctor.other_servers import other_servers

INSTALL = "source a ROS 2 install or install the ROS wheels (make build); --no-ros serves HTTP without"
WHEEL = "ros-rclpy"
HIGHEST_DOMAIN, HIGHEST_SAFE_DOMAIN = (
    232,
    101,
)  # beyond the second its ports fall among those that Linux hands out
RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
PATIENCE_S = 30.0
ROS_CLOCK_S = 0.1

_TRY = "import rclpy; from rclpy.utilities import get_rmw_implementation_identifier as name; rclpy.init(); print(name())"


def ros(environment: Mapping[str, str] = os.environ, ros_args: Sequence[str] = ()) -> Iterator[Finding]:
    """Run every check of ROS; those whose prerequisite is missing are left out. ros_args: as `reflex serve` gets them."""
    where = distribution(environment)
    yield where
    if importlib.util.find_spec("rclpy") is None:
        return
    loads = middleware(environment)
    yield loads
    if loads.level == FAIL:
        return
    yield messages()
    usable = domain(environment)
    yield usable
    yield image_transport(environment)
    yield ros_clock()
    if usable.level != FAIL:
        yield loopback()
        yield other_servers(ros_args)


def distribution(environment: Mapping[str, str] = os.environ, prefix: Path = Path(sys.prefix)) -> Finding:
    """Check where ROS 2 comes from: a sourced install or wheels. Both at once break each other's libraries."""
    found = importlib.util.find_spec("rclpy")
    if found is None or found.origin is None:
        return Finding("ros", WARN, "rclpy cannot be found: HTTP alone is served", INSTALL)
    wheels = any(
        (name := entry.metadata["Name"]) and name.lower().replace("_", "-") == WHEEL
        for entry in metadata.distributions()
    )
    homes = [
        Path(entry)
        for entry in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        if entry and (Path(entry) / "share" / "rclpy").is_dir()
    ]
    sourced = list(dict.fromkeys(home for home in homes if home.resolve() != prefix.resolve()))
    name = environment.get("ROS_DISTRO", "")
    if wheels and (sourced or name):
        return Finding(
            "ros", FAIL, f"ROS wheels in {prefix} and {name or 'a ROS 2'} sourced from {_paths(sourced)}: their libraries get mixed",
            "open a shell without ROS sourced, or take a Python environment without the ROS wheels",
        )  # fmt: skip
    if len(sourced) > 1:
        return Finding(
            "ros", FAIL, f"several are sourced: {_paths(sourced)}", "source one of them, in a new shell"
        )
    source = "wheels" if wheels else f"{name or 'ROS 2'} from {_paths(sourced)}"
    return Finding("ros", OK, f"{source}; rclpy in {Path(found.origin).parent}")


def _paths(paths: list[Path]) -> str:
    return ", ".join(map(str, paths)) or "a place that AMENT_PREFIX_PATH does not name"


def middleware(environment: Mapping[str, str] = os.environ) -> Finding:
    """Check that the RMW implementation loads and starts, tried in a process of its own."""
    wanted = environment.get("RMW_IMPLEMENTATION", "")
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY], env=dict(environment), capture_output=True, text=True, check=False,
            timeout=PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Finding(
            "middleware",
            FAIL,
            f"rclpy.init() takes more than {PATIENCE_S:.0f} s",
            "look at RMW_IMPLEMENTATION",
        )
    if tried.returncode == 0:
        return Finding(
            "middleware", OK, f"{tried.stdout.strip()}{' as RMW_IMPLEMENTATION says' if wanted else ''}"
        )
    reason = next(reversed([line for line in tried.stderr.splitlines() if line.strip()]), "no word")[-300:]
    if wanted:
        return Finding(
            "middleware", FAIL, f"RMW_IMPLEMENTATION={wanted} cannot be loaded: {reason}",
            f"install it (ros-$ROS_DISTRO-{wanted.replace('_', '-')}), or unset RMW_IMPLEMENTATION",
        )  # fmt: skip
    if "ROS_DOMAIN_ID" in reason:
        return Finding(
            "middleware", FAIL, reason, f"export ROS_DOMAIN_ID=N with N from 0 to {HIGHEST_SAFE_DOMAIN}"
        )
    return Finding("middleware", FAIL, f"rclpy does not start: {reason}", INSTALL)


def messages(folder: Path | None = None) -> Finding:
    """Check that our messages, services and actions are compiled, and from these files. folder: has msg/, srv/, action/."""
    build = "build the package: make build, colcon build, or REFLEX_ROS=jazzy pip install '.[cpu,ros]'"
    try:
        built = {kind: importlib.import_module(f"reflex_ros.{kind}") for kind in PARTS}
    except Exception as error:  # a half-built package raises whatever it likes
        return Finding(
            "messages",
            FAIL,
            f"import reflex_ros.{', .'.join(PARTS)}: {type(error).__name__}: {str(error)[:200]}",
            build,
        )
    try:
        found = differences(folder or share(), built)
    except (OSError, ConfigurationError, ValueError) as error:
        return Finding("messages", WARN, f"not compared with their files: {error}", build)
    if found:
        return Finding(
            "messages",
            FAIL,
            f"the compiled messages are not those of msg/, srv/ and action/: {'; '.join(found)}",
            build,
        )
    return Finding("messages", OK, "reflex_ros.msg, .srv and .action are compiled and match their files")


def domain(environment: Mapping[str, str] = os.environ) -> Finding:
    """Check that ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE are valid."""
    text = environment.get("ROS_DOMAIN_ID", "").strip() or "0"
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip() or "SUBNET"
    choose = f"export ROS_DOMAIN_ID=N with N from 0 to {HIGHEST_SAFE_DOMAIN}"
    if reach not in RANGES:
        return Finding(
            "domain", FAIL, f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach} is none of {', '.join(RANGES)}",
            "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, or SUBNET where the robot is another machine",
        )  # fmt: skip
    if not text.isdecimal() or int(text) > HIGHEST_DOMAIN:
        return Finding(
            "domain", FAIL, f"ROS_DOMAIN_ID={text} is not a number from 0 to {HIGHEST_DOMAIN}", choose
        )
    if int(text) > HIGHEST_SAFE_DOMAIN:
        return Finding("domain", WARN, f"ROS_DOMAIN_ID={text}: other programs may hold its ports", choose)
    return Finding("domain", OK, f"ROS_DOMAIN_ID {text}, discovery range {reach}")


def ros_clock(ros_s: float | None = None, system_s: float | None = None) -> Finding:
    """Check that ROS time is the system's time, both in seconds since 1970; read now where not given."""
    from rclpy.clock import ROSClock

    system_s = time.time() if system_s is None else system_s
    ros_s = ROSClock().now().nanoseconds * 1e-9 if ros_s is None else ros_s
    if abs(ros_s - system_s) <= ROS_CLOCK_S:
        return Finding("ros clock", OK, "ROS time is the system's time, unless use_sim_time says otherwise")
    return Finding(
        "ros clock", FAIL, f"ROS time is {ros_s - system_s:+.3f} s off the system's time",
        "end what changes the clock of this process (libfaketime, LD_PRELOAD)",
    )  # fmt: skip
