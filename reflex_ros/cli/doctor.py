# SPDX-License-Identifier: Apache-2.0
"""`reflex doctor`: what is right and wrong on this machine, and what to do about it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from reflex_core import doctor
from reflex_core.calibration.cache import default_path
from reflex_core.doctor import FAIL, PASS, WARN, Check
from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.locations import share
from reflex_core.settings import Settings, settings_from

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
SEGMENT_BYTES = 16 << 20


def main(argv: list[str] | None = None) -> int:
    """Print the checks. 0 when nothing fails, 1 when something does, 2 for a bad option."""
    arguments = sys.argv[1:] if argv is None else argv
    arguments = arguments[: arguments.index("--ros-args")] if "--ros-args" in arguments else arguments
    options = vars(_parser().parse_args(arguments))
    as_json = options.pop("format") == "json"
    cache = options.pop("calibration_cache")
    if options.pop("show_calibration"):
        return show_calibration(Path(cache) if cache else default_path(), as_json)
    try:
        settings = settings_from(options)
    except SettingError as error:
        print(f"reflex doctor: {error}", file=sys.stderr)
        return 2
    checks = all_checks(settings)
    print(json.dumps([asdict(check) for check in checks], indent=1) if as_json else table(checks))
    return 1 if any(check.status == FAIL for check in checks) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reflex doctor", description="Check this machine and a policy.")
    absent = argparse.SUPPRESS
    parser.add_argument(
        "export_dir", nargs="?", default=absent, help="export to check; the embedded one if left out"
    )
    parser.add_argument("--embodiment", default=absent, help="embodiment preset that the policy must fit")
    parser.add_argument("--custom-embodiment-config", default=absent, help="embodiment JSON file")
    parser.add_argument("--device", default=absent, help="auto, cpu, cuda or tensorrt")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "--show-calibration",
        action="store_true",
        help="show what --auto-calibrate has measured, and nothing else",
    )
    parser.add_argument("--calibration-cache", default="", help="its file [~/.reflex/calibration.json]")
    return parser


def show_calibration(path: Path, as_json: bool) -> int:
    """Print the calibration cache. 0 when it can be read, 1 when not."""
    found = doctor.calibration(path)
    print(json.dumps(found, indent=1) if as_json else calibration_table(found))
    return 1 if found["problem"] else 0


def calibration_table(found: Mapping[str, Any]) -> str:
    """One block per robot and export: what was chosen, what it took, and whether it still holds."""
    lines = [f"{found['path']}: {found['problem'] or 'schema version 1'}"]
    for key, entry in found["entries"].items():
        quality = entry["measurement_quality"]
        lines += [
            "",
            f"{key}  {'STALE: ' + entry['stale'] if entry['stale'] else 'in use'}",
            f"  measured      {entry['timestamp']}",
            f"  runs on       {entry['provider']}, threads {entry['intra_op_threads'] or 'as onnxruntime likes'},"
            f" variant {entry['variant'] or 'none'}",
            f"  chunk         {entry['chunk_size']} actions in {entry['nfe']} denoise steps",
            f"  inference     median {quality['median_ms']:.1f} ms, p99 {quality['p99_ms']:.1f} ms"
            f" ({quality['measurement_iters']} runs, quality {quality['quality_score']:.2f} of 1)",
            f"  compensation  {entry['latency_compensation_ms']:.1f} ms",
        ]
    return "\n".join(lines)


def all_checks(settings: Settings) -> list[Check]:
    """Every check, the slowest last; the policy cannot be tried where libraries are missing."""
    libraries = doctor.packages()
    checks = [doctor.python_version(), libraries, rclpy(), messages(), image_transport(os.environ)]
    checks.append(doctor.shared_memory())
    if libraries.status == FAIL:
        return checks
    return [*checks, doctor.providers(settings.device), *doctor.policy(settings)]


def rclpy() -> Check:
    """Without rclpy only HTTP is served."""
    reason = _import_failure("rclpy")
    if reason:
        return Check(
            "rclpy", WARN, reason, "source a ROS 2 install or install the ROS wheels; HTTP works without"
        )
    return Check("rclpy", PASS, f"ROS_DISTRO {os.environ.get('ROS_DISTRO') or 'not set (wheels)'}")


def messages() -> Check:
    """Our own messages, which are compiled when the package is built."""
    reason = _import_failure("reflex_ros.msg")
    if not reason:
        return Check("messages", PASS, "reflex_ros.msg")
    if _import_failure("rclpy"):
        return Check("messages", WARN, "not checked without rclpy", "install ROS 2 first")
    return Check("messages", FAIL, reason, "build the package: make build, pip install . or colcon build")


def _import_failure(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:  # a half-installed ROS raises whatever it likes
        return f"import {module}: {type(error).__name__}: {str(error)[:160]}"
    return ""


def image_transport(environment: Mapping[str, str]) -> Check:
    """The default shared-memory segment of Fast DDS is smaller than one camera image."""
    name = "image transport"
    path = next((environment[variable] for variable in PROFILE_VARIABLES if environment.get(variable)), "")
    remedy = f"export {PROFILE_VARIABLES[0]}={_shipped_profile()}"
    if environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp":
        return Check(name, PASS, f"{environment['RMW_IMPLEMENTATION']} is used, Fast DDS is not")
    if not path:
        return Check(name, WARN, f"{PROFILE_VARIABLES[0]} is not set: raw camera images will be lost", remedy)
    try:
        segment = largest_segment(Path(path))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        return Check(name, WARN, f"{path}: {error}", remedy)
    if segment < SEGMENT_BYTES:
        return Check(
            name,
            WARN,
            f"{path}: shared-memory segment of {segment} bytes, {SEGMENT_BYTES} are needed",
            remedy,
        )
    return Check(name, PASS, f"{path}: shared-memory segment of {segment / 2**20:.0f} MB")


def largest_segment(profile: Path) -> int:
    """segment_size in bytes of the largest SHM transport of a Fast DDS profile; 0 when there is none."""
    sizes = [0]
    for transport in ElementTree.parse(profile).iter():
        children = {child.tag.rsplit("}", 1)[-1]: (child.text or "").strip() for child in transport}
        if transport.tag.endswith("transport_descriptor") and children.get("type") == "SHM":
            sizes.append(int(children.get("segment_size", 0)))
    return max(sizes)


def _shipped_profile() -> str:
    try:
        return str(share() / "config" / "fastdds_shm.xml")
    except ConfigurationError:
        return "config/fastdds_shm.xml"


def table(checks: list[Check]) -> str:
    """One line per check, its remedy below it."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status}  {check.name:{width}}  {check.detail}")
        if check.remedy:
            lines.append(f"{'':{width + 6}}  -> {check.remedy}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
