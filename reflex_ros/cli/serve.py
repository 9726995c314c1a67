# SPDX-License-Identifier: Apache-2.0
"""`reflex serve`: the ROS node with its HTTP sidecar, or HTTP alone where there is no ROS."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import threading

from reflex_core.engine.engine import Engine
from reflex_core.errors import ConfigurationError, ReflexError, SettingError
from reflex_core.settings.cli import add_arguments, add_config, parse
from reflex_core.settings.table import Settings, settings_from
from reflex_core.text.log_lines import OneLine
from reflex_core.text.untrusted import escaped
from reflex_ros.console import startup_banner
from reflex_ros.console.ros_args import ROS_ARGS, split_ros_args
from reflex_ros.console.stop_signals import stop_on_signals
from reflex_ros.console.terminal import watched
from reflex_ros.otel.connect import connect_tracing
from reflex_ros.preflight import require_interface, require_sound
from reflex_ros.settings_sources import Given, given
from reflex_ros.sidecar.server import Sidecar
from reflex_ros.sidecar.server_connections import connect_cloud, connect_remote

log = logging.getLogger(__name__)

# EX_CONFIG of sysexits.h: starting again cannot repair it, so that a service manager need not try (deploy/reflex.service)
REFUSED = 78


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. 0: stopped by a signal; 1: it could not serve; 2: a bad option; 78: bad settings or files."""
    own, ros_args = split_ros_args(sys.argv[1:] if argv is None else argv)
    options = parse(_parser(), own)
    no_ros, config = bool(options.pop("no_ros")), options.pop("config")
    try:
        settings_from(options)
    except SettingError as error:
        return _refuse(error, 2)
    try:
        found = given(options, ros_args, config)
        settings, over_ros = found.settings, not no_ros and _rclpy_is_there()
        require_interface(settings, over_ros)
        # without autostart parameters may still be set before configure
        if settings.autostart or not over_ros:
            require_sound(settings)
    except ReflexError as error:
        return _refuse(error, REFUSED)
    if over_ros:
        return _serve_ros(found)
    print(
        "serving HTTP alone, without ROS:",
        "--no-ros" if no_ros else "rclpy cannot be imported here",
        flush=True,
    )
    print(*unused(found), sep="\n", end="\n" if unused(found) else "", file=sys.stderr)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reflex serve",
        description="Serve an ONNX export over ROS 2 and HTTP.",
        usage="%(prog)s [export_dir] [options] [--ros-args ...]",
        epilog=f"What follows {ROS_ARGS} is for rclpy; its -p and --params-file also give settings. Options override them, and"
        " they override --config.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "export_dir",
        nargs="?",
        default=argparse.SUPPRESS,
        help="the same as --export-dir; demo: the embedded policy, which commands a robot only if named",
    )
    parser.add_argument("--no-ros", action="store_true", help="Serve only HTTP, even if ROS is available.")
    add_config(parser)
    add_arguments(parser)
    return parser


def _rclpy_is_there() -> bool:
    return importlib.util.find_spec("rclpy") is not None


def _refuse(error: ReflexError, status: int) -> int:
    print(f"reflex serve: {error}", file=sys.stderr, flush=True)
    return status


def serve_http(settings: Settings) -> int:
    """Run the engine and its sidecar, without ROS, until SIGINT or SIGTERM."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    engine = Engine(settings, connect_cloud, connect_tracing, require_sound, connect_remote)
    sidecar = Sidecar(engine, settings)
    failures: list[Exception] = []

    def prepare() -> None:
        try:
            watched(engine.load, log.info)
            watched(engine.warm_up, log.info)
            startup_banner.show(engine, sidecar, _print_line)
        except Exception as error:
            failures.append(error)
            stop.request()

    with stop_on_signals() as stop:
        try:
            sidecar.start()
        except ReflexError as error:
            return _refuse(error, 1)
        _print_line(f"listening on {sidecar.url}")
        # in a thread of its own: a signal must end the process while onnxruntime is still loading
        loader = threading.Thread(target=prepare, name="reflex-load", daemon=True)
        loader.start()
        stop.wait()
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


def _print_line(line: str) -> None:
    """Print a line; a closed output is no error (`reflex serve | head -1`)."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else closing it complains again


if __name__ == "__main__":
    sys.exit(main())
