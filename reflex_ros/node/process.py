# SPDX-License-Identifier: Apache-2.0
"""Run the process of the node: start it, serve its callbacks, end in order."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

import rclpy
from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from reflex_core.doctor.finding import OK
from reflex_core.errors import ReflexError, SettingError
from reflex_core.images.opencv import opencv
from reflex_ros.console import logs
from reflex_ros.console.ros_args import ROS_ARGS
from reflex_ros.console.stop_signals import SIGNALS, StopRequest, request_on_signals
from reflex_ros.doctor.dds import image_transport
from reflex_ros.graph.dds_profile import take_profile
from reflex_ros.node.node import ReflexNode
from reflex_ros.settings_sources import Given

log = logging.getLogger(__name__)

# a remapping, a name, a log level or a parameter of ROS's own that cannot be
REFUSED_BY_ROS = (RCLError, UnknownROSArgsError, NameValidationException, ParameterException)


def run(given: Given) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit status: 0 after an orderly stop, 1 when it could not start."""
    if line := take_profile():
        log.info("%s", line)
    os.environ.update({**logs.ROS_FORMAT, **os.environ})
    try:
        opencv()  # imported before a robot waits for an answer
        rclpy.init(args=_ros_args(given), signal_handler_options=SignalHandlerOptions.NO)
        theirs = [_parameter(name, value) for name, value in given.ros_parameters.items()]
        server = ReflexNode(given.written, parameter_overrides=theirs)
    except (ReflexError, *REFUSED_BY_ROS) as error:
        print(f"reflex serve: {_sentence(error)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    _warn_of_lost_images(server)
    executor = SingleThreadedExecutor()
    executor.add_node(server.node)
    stop = StopRequest()
    request_on_signals(stop)
    status = 0
    if server.settings.autostart:
        started = executor.create_task(server.start)
        if not _spin(executor, lambda: stop.requested or started.done()):
            status = 1
        elif stop.requested:
            server.ending = True
            _spin(executor, started.done)  # a transition is not interrupted, and ends without moving anything
        elif started.done() and not started.result():
            print(f"reflex serve: {server.node.refusal or server.engine.reason}", file=sys.stderr)
            status = 1
    if status == 0:
        status = 0 if _spin(executor, lambda: stop.requested) else 1
    finished = executor.create_task(server.finish)
    _spin(executor, finished.done)
    server.destroy()
    rclpy.try_shutdown()
    for number in SIGNALS:
        # a second one, as launch sends it, must not turn an orderly end into a death
        signal.signal(number, signal.SIG_IGN)
    return status


def _ros_args(given: Given) -> list[str]:
    """Return the arguments for rclpy, with what --log-level and --log-format mean to it where the user did not say so behind --ros-args."""
    added = list[str]()
    level = given.settings.log_level
    if "--log-level" not in given.ros_args and level != "info":
        # rcl itself says too much at debug: the level is the node's alone then
        name = given.node.strip("/").replace("/", ".")
        added += ["--log-level", f"{name}:=debug" if level == "debug" else level.removesuffix("ing")]
    if given.settings.log_format == logs.JSON:
        added.append("--disable-stdout-logs")
    return [*given.ros_args, *([ROS_ARGS, *added] if added else [])]


def _parameter(name: str, value: object) -> Parameter:
    try:
        return Parameter(name, value=value)
    except TypeError as error:
        raise SettingError(
            f"parameter {name!r:.100} cannot be {value!r:.100}: ROS has no such kind"
        ) from error


def _sentence(error: Exception) -> str:
    """Return the first line of an error; rcl adds where in its own sources, over many lines."""
    if isinstance(error, ReflexError):
        return str(error)
    message = " ".join(str(error).split()) or type(error).__name__
    return f"ROS does not start the node: {message.partition(', at /')[0][:300]}"


def _warn_of_lost_images(server: ReflexNode) -> None:
    """Log the doctor's warning where the configured transport has no room for raw images."""
    if server.settings.image_transport != "raw":
        return
    found = image_transport()
    if found.level != OK:
        server.node.get_logger().warning(f"{found.said}; {found.do}")


def _spin(executor: SingleThreadedExecutor, until: Callable[[], bool]) -> bool:
    """Serve callbacks until a condition holds; the heartbeat timer wakes it to check. Return False on a fault.

    A callback that raises is logged and does not stop the others; a hundred in a row do.
    """
    faults = 0
    while not until():
        try:
            executor.spin_once()
            faults = 0
        except ExternalShutdownException:
            return False
        except Exception:
            log.exception("a callback failed")
            faults += 1
            if faults > 100:
                return False
    return True
