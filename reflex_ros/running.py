# SPDX-License-Identifier: Apache-2.0
"""The process around the node: start it, serve its callbacks, end in order."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from reflex_core.errors import ReflexError
from reflex_ros.node import ReflexNode


def run(overrides: Mapping[str, object], ros_args: list[str]) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit status: 0 after an orderly stop, 1 when it could not start."""
    rclpy.init(args=ros_args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        server = ReflexNode(overrides)
    except ReflexError as error:
        print(f"reflex serve: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(server.node)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    status = 0
    if server.settings.autostart:
        started = executor.create_task(server.start)
        if not _spin(executor, lambda: stop.is_set() or started.done()):
            status = 1
        elif stop.is_set():
            server.ending = True
            _spin(executor, started.done)  # a transition is not interrupted, and ends without moving anything
        elif started.done() and not started.result():
            print(f"reflex serve: {server.node.refusal or server.engine.reason}", file=sys.stderr)
            status = 1
    if status == 0:
        status = 0 if _spin(executor, stop.is_set) else 1
    finished = executor.create_task(server.finish)
    _spin(executor, finished.done)
    server.destroy()
    rclpy.try_shutdown()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_IGN
        )  # a second one, as launch sends it, must not turn an orderly end into a death
    return status


def _spin(executor: SingleThreadedExecutor, until: Callable[[], bool]) -> bool:
    """Serve callbacks until a condition holds; the heartbeat timer wakes it to look. False on a fault.

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
            traceback.print_exc()
            faults += 1
            if faults > 100:
                return False
    return True
