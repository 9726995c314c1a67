# SPDX-License-Identifier: Apache-2.0
"""`reflex doctor`: check this machine and say how to fix what fails (docs/reference/doctor.md)."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reflex_core.doctor import clock, onnx_runtime, system
from reflex_core.doctor.calibrated import calibration
from reflex_core.doctor.finding import FAIL, LEVELS, OK, WARN, Finding, worst
from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.files.share import export_path
from reflex_core.settings.cli import add_arguments, add_config, parse
from reflex_core.settings.environment import unknown_variables
from reflex_core.settings.table import Settings, settings_from
from reflex_ros.cli.parser import Parser
from reflex_ros.console.ros_args import split_ros_args
from reflex_ros.console.terminal import Bar, drawn, plain_table
from reflex_ros.doctor.other_servers import CHECK as OTHER_SERVERS
from reflex_ros.doctor.ros import ros
from reflex_ros.settings_sources import Given, given

ROUGHLY = 21  # checks, for the bar
WORDS = {OK: "ok", WARN: "WARN", FAIL: "FAIL"}
STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red"}
UNREADABLE = "correct it as the sentence says: `reflex serve` would refuse it too"
# checks of the preflight with findings of their own
SEEN_CLOSELY = ("exports", "preset", "embodiment", "safety", "providers", "directories")
ROBOT = ("embodiment", "custom_embodiment_config", "lerobot_calibration")
ALONE = ("LOCALHOST", "OFF")  # discovery ranges that reach no other machine


def main(argv: list[str] | None = None) -> int:
    """Print the findings. 0 when nothing fails, 1 when something does, 2 for a bad option."""
    own, ros_args = split_ros_args(sys.argv[1:] if argv is None else argv)
    line = parser()
    options = parse(line, own)
    files = options.pop("upgrade")
    if files is not None:
        return _upgrade(line, files, options, ros_args)
    as_json, no_ros = options.pop("json"), options.pop("no_ros")
    only_calibration, config = options.pop("show_calibration"), options.pop("config")
    try:
        settings_from(options)
    except SettingError as error:
        print(f"reflex doctor: {error}", file=sys.stderr)
        return 2
    try:
        requested: Given | SettingError = given(options, ros_args, config)
        if unknown := unknown_variables(os.environ):
            print(f"reflex doctor: {unknown}", file=sys.stderr)
    except SettingError as error:
        requested = error
    if only_calibration and isinstance(requested, Given):
        return show_calibration(requested.settings.calibration_cache, as_json)
    if only_calibration:
        print(f"reflex doctor: {requested}", file=sys.stderr)
        return 1
    with _own_output() if as_json else nullcontext():
        found = examined(requested, no_ros)
    print(document(found) if as_json else "", end="\n" if as_json else "")
    if not as_json:
        show(found)
    return 1 if worst(found) == FAIL else 0


def _upgrade(line: Parser, files: Sequence[str], options: dict[str, Any], ros_args: Sequence[str]) -> int:
    """Run --upgrade FILES. 0 when every file is read, 1 when one needs a command or is refused, 2 for another option."""
    # only here: it reads recordings, which the other checks never do
    from reflex_ros.cli.doctor_upgrade import judged, report

    robot = {name: options.pop(name) for name in ROBOT if name in options}
    as_json = options.pop("json")
    if others := sorted(name for name, value in options.items() if value not in (None, False)):
        flags = ", ".join("--" + name.replace("_", "-") for name in others)
        line.error(f"--upgrade does not go with {flags}")
    with _own_output() if as_json else nullcontext():
        found = judged(files, robot, ros_args)
    return report(found, as_json)


@contextmanager
def _own_output() -> Iterator[None]:
    """Redirect output of libraries to standard error: Fast DDS writes its errors into the JSON otherwise."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def parser() -> Parser:
    """Return the command line of `reflex doctor`."""
    made = Parser(
        prog="reflex doctor",
        description="Check this machine and the configuration that would be served. Takes the options of `reflex serve`.",
        usage="%(prog)s [EXPORT] [options] [--ros-args ...]",
        epilog="exit status: 0 no failure, 1 a failure, 2 a wrong option",
        examples=(
            "reflex doctor",
            "reflex doctor ./my-export --embodiment franka --safety-config limits.json",
            "reflex doctor --config robot.yaml --json",
        ),
    )
    made.add_argument(
        "export_dir",
        nargs="?",
        metavar="EXPORT",
        default=argparse.SUPPRESS,
        help="export to check; demo: the embedded policy, also the default",
    )
    made.add_argument("--json", action="store_true", help="print the findings as JSON")
    made.add_argument("--no-ros", action="store_true", help="Skip the checks of ROS.")
    made.add_argument(
        "--show-calibration",
        action="store_true",
        help="only print the measurements of --auto-calibrate",
    )
    made.add_argument(
        "--upgrade",
        nargs="+",
        metavar="FILE",
        help="only judge files of an earlier version: parameter files, embodiments, safety files,"
        " exports, traces, bags, audit logs, calibrations, or folders of them",
    )
    add_config(made)
    add_arguments(made)
    return made


def examined(requested: Given | SettingError, no_ros: bool) -> list[Finding]:
    """Return the findings of every check; a bar shows the running one. requested: the settings, or why there are none."""
    found, bar = list[Finding](), Bar()
    bar.draw(0.0, "checking this machine")
    for finding in checks(requested, no_ros):
        found.append(finding)
        bar.draw(min(len(found) / ROUGHLY, 0.99), f"{finding.name}: {finding.level}")
    bar.clear()
    return found


def checks(
    requested: Given | SettingError,
    no_ros: bool,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Finding]:
    """Run every check, the slowest last; the policy cannot be tried where libraries are missing."""
    yield system.python_version()
    libraries = system.packages()
    yield libraries
    yield system.shared_memory()
    yield clock.clock(no_ros or environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "") in ALONE)
    graph_is_seen = False
    if not no_ros:
        for finding in ros(environment, requested.ros_args if isinstance(requested, Given) else ()):
            yield finding
            graph_is_seen = finding.name == OTHER_SERVERS  # the last one, where nothing before it failed
    if isinstance(requested, SettingError):
        yield Finding("settings", FAIL, str(requested), UNREADABLE)
        return
    if libraries.level == FAIL:
        return
    settings = requested.settings
    over_ros = not no_ros and importlib.util.find_spec("rclpy") is not None
    yield sound(requested, over_ros)
    if graph_is_seen:
        yield from controllers(requested)
    for flag, directory in written_to(settings).items():
        yield system.disk(flag, Path(directory))
    if settings.http:
        yield from http(settings)
    yield onnx_runtime.builds()
    yield onnx_runtime.providers(
        onnx_runtime.Wanted(settings.device, settings.providers, settings.allow_cpu_fallback)
    )
    yield from served(settings, drives=over_ros)


def sound(requested: Given, over_ros: bool) -> Finding:
    """Report what `reflex serve` would refuse before it loads anything, but for what other checks examine closely."""
    from reflex_core.engine.validation import problems
    from reflex_ros.preflight import CHECKS, require_interface

    every = CHECKS | {"interface": lambda settings: require_interface(settings, over_ros)}
    wrong = [str(error) for name, error in problems(requested.settings, every) if name not in SEEN_CLOSELY]
    if wrong:
        return Finding("settings", FAIL, "; ".join(wrong), "correct what the sentence names")
    names = ", ".join(sorted(requested.written)) or "none, so the defaults hold"
    return Finding("settings", OK, f"given to {requested.node}: {names}")


def controllers(requested: Given) -> Iterator[Finding]:
    """Ask the controllers that take the robot's commands what they are; nothing where the robot cannot be read."""
    from reflex_core.engine.load_policy import embodiment_of, robot_of
    from reflex_core.robot.groups import whole_robot
    from reflex_ros.doctor.controllers import address_of, running_controllers
    from reflex_ros.outputs.interfaces import with_defaults

    settings = requested.settings
    try:
        exports = exports_of(settings).values()
        robot = embodiment_of(settings, next(iter(exports))) if exports else robot_of(settings)
    except ConfigurationError:
        return  # the check of the embodiment reports it
    if robot is not None:
        name = requested.node.rpartition("/")[2]
        groups = robot.groups or whole_robot(robot.joint_names)
        where = [address_of(with_defaults(group, settings), name) for group in groups]
        yield from running_controllers(where, requested.ros_args)


def written_to(settings: Settings) -> dict[str, str]:
    """Return the directories that serving would write to, by their flags."""
    from reflex_core.engine.validation import written_to as by_name

    return {"--" + name.replace("_", "-"): directory for name, directory in by_name(settings).items()}


def http(settings: Settings) -> Iterator[Finding]:
    """Check the port, and whether the address may be listened on."""
    from reflex_ros.sidecar.auth import UNKNOWN_HOST, VARIABLE, check_address, read_keyring

    yield system.port(settings.host, settings.port)
    try:
        keyring = read_keyring(settings)
        check_address(settings, has_key=keyring.required)
    except ConfigurationError as error:
        if error.slug == UNKNOWN_HOST:
            return  # the check of the port has reported it
        yield Finding(
            "api key", FAIL, str(error), f"set {VARIABLE}, or --api-key-file to a file that holds the key"
        )
        return
    message = (
        "required" if keyring.required else "none" if not settings.insecure else "none, as --insecure says"
    )
    yield Finding("api key", OK, message)
    if settings.tls_cert or settings.tls_key:
        from reflex_ros.doctor.certificate import certificate

        yield certificate(settings)


def served(settings: Settings, drives: bool) -> Iterator[Finding]:
    """Check export, safety configuration, policy and robot. drives: over ROS."""
    from reflex_core.doctor.export_files import export
    from reflex_core.doctor.served_policy import policy, safety

    try:
        exports = exports_of(settings)
    except ConfigurationError as error:
        yield Finding("export", FAIL, str(error), "install the package again, or name an export")
        return
    found = [finding for label, path in exports.items() for finding in export(path, label)]
    found.append(safety(settings.safety_config))
    yield from found
    # a changed file may still load, and what it then does is worth knowing
    if all(finding.level != FAIL for finding in found if not finding.name.startswith("hashes")):
        from reflex_ros.sidecar.server_connections import connect_remote

        yield from policy(settings, drives, connect_remote)


def exports_of(settings: Settings) -> dict[str, Path]:
    """Return the exports that would be loaded, by slot. Raises ConfigurationError."""
    two = {" a": settings.policy_a, " b": settings.policy_b}
    named = {label: name for label, name in two.items() if name} or {
        "": settings.remote or settings.export_dir
    }
    shadow = {" shadow": settings.shadow_policy} if settings.shadow_policy else {}
    from reflex_core.engine.which_exports import is_address

    return {label: export_path(name) for label, name in (named | shadow).items() if not is_address(name)}


def document(found: Sequence[Finding]) -> str:
    """Return {"level": the worst, "findings": [{name, level, said, do}]} as JSON."""
    return json.dumps({"level": worst(found), "findings": [asdict(finding) for finding in found]}, indent=1)


def show(found: Sequence[Finding]) -> None:
    """Print for people: a table on a terminal with rich, else plain lines, each remedy below its finding."""
    counts = {level: sum(finding.level == level for finding in found) for level in LEVELS}
    last = f"{counts[OK]} ok, {counts[WARN]} warnings, {counts[FAIL]} failures"
    rows = [
        (WORDS[finding.level], finding.name, finding.said + (f"\n-> {finding.do}" if finding.do else ""))
        for finding in found
    ]
    if drawn(rows, "reflex doctor", sys.stdout, [STYLES[finding.level] for finding in found]):
        print(last)
        return
    print(*table(found), "", last, sep="\n")


def table(found: Sequence[Finding]) -> list[str]:
    """Return one line per finding, its remedy below it."""
    lines = plain_table([(WORDS[finding.level], finding.name, finding.said) for finding in found])
    indent = 4 + 2 + max((len(finding.name) for finding in found), default=0) + 2
    return [
        line
        for finding, first in zip(found, lines, strict=True)
        for line in ([first, f"{'':{indent}}-> {finding.do}"] if finding.do else [first])
    ]


def show_calibration(cache: str, as_json: bool) -> int:
    """Print the calibration cache. 0 when it can be read, 1 when not."""
    from reflex_core.calibration.cache import default_path

    found = calibration(Path(cache) if cache else default_path())
    print(json.dumps(found, indent=1) if as_json else calibration_table(found))
    return 1 if found["problem"] else 0


def calibration_table(found: Mapping[str, Any]) -> str:
    """Return one block per robot and export: what was chosen, its latency, and whether it is still valid."""
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


if __name__ == "__main__":
    sys.exit(main())
