# SPDX-License-Identifier: Apache-2.0
"""`reflex serve`: the ROS node with its HTTP sidecar, or HTTP alone where there is no ROS."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import threading

from reflex_core.engine.engine import READY, Engine
from reflex_core.errors import ConfigurationError, ReflexError, SettingError
from reflex_core.robot.presets import no_such_preset, preset_names
from reflex_core.settings.cli import add_arguments, add_config, parse
from reflex_core.settings.config_file import config_lines
from reflex_core.settings.environment import unknown_variables
from reflex_core.settings.table import Settings, settings_from
from reflex_core.text.untrusted import escaped
from reflex_ros.cli.parser import Parser
from reflex_ros.console import logs, startup_banner
from reflex_ros.console.ros_args import ROS_ARGS, split_ros_args
from reflex_ros.console.stop_signals import stop_on_signals
from reflex_ros.console.terminal import watched
from reflex_ros.freed_memory import keep_freed_memory
from reflex_ros.otel.connect import connect_tracing
from reflex_ros.preflight import require_interface, require_sound
from reflex_ros.settings_sources import Given, given
from reflex_ros.sidecar.server import Sidecar
from reflex_ros.sidecar.server_connections import connect_cloud, connect_remote

EXAMPLES = (
    "reflex serve demo --no-ros",
    "reflex serve ./my-export --embodiment franka --safety-config limits.json --deadline-ms 33",
    "reflex serve ./my-export --embodiment franka --record traces/ --slo p99=150ms --robot-id arm7",
    "REFLEX_PORT=9000 reflex serve --config robot.yaml --print-config",
    "reflex serve ./my-export --embodiment franka --ros-args -r camera/image_raw:=/wrist/color",
)

log = logging.getLogger(__name__)

# EX_CONFIG of sysexits.h: starting again cannot repair it, so that a service manager need not try (deploy/reflex.service)
REFUSED = 78


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. 0: stopped by a signal; 1: it could not serve; 2: a bad option; 78: bad settings or files."""
    own, ros_args = split_ros_args(sys.argv[1:] if argv is None else argv)
    line = parser()
    options = parse(line, own)
    no_ros, config, printing = (options.pop(name) for name in ("no_ros", "config", "print_config"))
    try:
        settings_from(options)
    except SettingError as error:
        return _refuse(error, 2)
    if (name := options.get("embodiment")) and name not in preset_names():
        line.error(no_such_preset(name))
    try:
        found = given(options, ros_args, config)
        logs.configure(found.settings.log_level, found.settings.log_format)
        if unknown := unknown_variables(os.environ):
            log.warning("%s", unknown)
        if printing:
            print(*config_lines(found.settings, found.sources), sep="\n")
            return 0
        settings, over_ros = found.settings, not no_ros and _rclpy_is_there()
        require_interface(settings, over_ros)
        # without autostart parameters may still be set before configure
        if settings.autostart or not over_ros:
            require_sound(settings)
    except ReflexError as error:
        return _refuse(error, REFUSED)
    if not keep_freed_memory():
        log.debug("memory is freed as the environment or the C library says")
    if over_ros:
        if settings.drain_s:
            log.warning(
                "drain_s has no effect with ROS: the robot is left holding and the server ends at once"
            )
        return _serve_ros(found)
    why = "--no-ros" if no_ros else "rclpy cannot be imported here"
    logs.announce(f"serving HTTP alone, without ROS: {why}")
    for sentence in unused(found):
        log.warning("%s", sentence)
    return serve_http(settings)


def unused(found: Given) -> list[str]:
    """Return a line for each setting that applies to ROS alone and has no effect without it."""
    lines = [f"what follows {ROS_ARGS} is used for settings alone"] if found.ros_args else []
    if found.ros_parameters:
        names = escaped(", ".join(sorted(found.ros_parameters)), 300)
        lines.append(f"without ROS these parameters are not used: {names}")
    return lines


def _serve_ros(found: Given) -> int:
    try:
        from reflex_ros.node.process import run  # only here, so that HTTP alone needs no ROS
    except (ImportError, OSError) as error:
        print(
            f"reflex serve: ROS is here but the node cannot be imported ({error}): build the package"
            " (make build, colcon build, or REFLEX_ROS=jazzy pip install '.[cpu,ros]'), or take --no-ros",
            file=sys.stderr,
        )
        return 1
    return int(run(found))


def parser() -> Parser:
    """Return the command line of `reflex serve`."""
    made = Parser(
        prog="reflex serve",
        description="Serve an ONNX export over ROS 2 and HTTP.",
        usage="%(prog)s [EXPORT] [options] [--ros-args ...]",
        epilog=f"What follows {ROS_ARGS} is for rclpy; its -p and --params-file also give settings. A setting is taken from the first"
        f" of: option, {ROS_ARGS}, environment variable (--max-age-ms: REFLEX_MAX_AGE_MS), --config, default.",
        examples=EXAMPLES,
    )
    made.add_argument(
        "export_dir",
        nargs="?",
        metavar="EXPORT",
        default=argparse.SUPPRESS,
        help="the same as --export-dir; demo: the embedded policy, which commands a robot only if named",
    )
    made.add_argument("--no-ros", action="store_true", help="Serve only HTTP, even if ROS is available.")
    add_config(made)
    made.add_argument(
        "--print-config",
        action="store_true",
        help="Only print each setting, its value and where it comes from, as a file for --config.",
    )
    add_arguments(made)
    return made


def _rclpy_is_there() -> bool:
    return importlib.util.find_spec("rclpy") is not None


def _refuse(error: ReflexError, status: int) -> int:
    print(f"reflex serve: {error}", file=sys.stderr, flush=True)
    return status


def serve_http(settings: Settings) -> int:
    """Run the engine and its sidecar, without ROS, until SIGINT or SIGTERM."""
    engine = Engine(settings, connect_cloud, connect_tracing, require_sound, connect_remote)
    sidecar = Sidecar(engine, settings)
    failures: list[Exception] = []

    def prepare() -> None:
        try:
            watched(engine.load, log.info)
            watched(engine.warm_up, log.info)
            startup_banner.show(engine, sidecar, logs.announce)
        except Exception as error:
            failures.append(error)
            stop.request()

    with stop_on_signals() as stop:
        try:
            sidecar.start()
        except ReflexError as error:
            return _refuse(error, 1)
        logs.announce(f"listening on {sidecar.url}")
        # in a thread of its own: a signal must end the process while onnxruntime is still loading
        loader = threading.Thread(target=prepare, name="reflex-load", daemon=True)
        loader.start()
        stop.wait()
        if settings.drain_s and engine.state == READY:
            sidecar.drain()
            logs.announce(f"draining for {settings.drain_s:g} s: /health says 503, requests are answered")
            stop.wait_for_another(settings.drain_s)
    sidecar.stop()
    if loader.is_alive():
        # onnxruntime cannot be interrupted while it loads, and aborts when the interpreter is taken down around it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    engine.unload()  # ends traces and logs in order
    if not failures:
        return 0
    [failure] = failures
    if not isinstance(failure, ConfigurationError):
        log.error("the policy failed to load", exc_info=failure)
    return _refuse(failure if isinstance(failure, ReflexError) else ReflexError(str(failure)), 1)


if __name__ == "__main__":
    sys.exit(main())
