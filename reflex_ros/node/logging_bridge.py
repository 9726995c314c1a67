# SPDX-License-Identifier: Apache-2.0
"""Forward the core's Python log records to the node's ROS logger."""

from __future__ import annotations

import logging
from typing import Any

from reflex_core.text.log_lines import JsonLine, OneLine
from reflex_ros.console import logs

log = logging.getLogger("reflex_ros.node")


class RosHandler(logging.Handler):
    """A logging handler for ROS. rclpy fixes one severity per call site, so each level has a line of its own."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self.setFormatter(OneLine())
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Forward one record; a logger that is already shut down must not end the process."""
        try:
            text = self.format(record)
            if record.levelno >= logging.ERROR:
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            elif record.levelno >= logging.INFO:
                self._logger.info(text)
            else:
                self._logger.debug(text)
        except Exception:
            self.handleError(record)


class NodeLog:
    """The logger of the node as Python's: what the node logs goes the same way as what the core logs, to the console and to ROS."""

    def __init__(self, ros: Any) -> None:
        """Wrap rclpy's logger, which has everything else that is wanted of it."""
        self.ros = ros

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ros, name)

    def debug(self, message: str, **_: object) -> bool:
        """Log what helps to find a fault."""
        return self._log(logging.DEBUG, message)

    def info(self, message: str, **_: object) -> bool:
        """Log a usual event."""
        return self._log(logging.INFO, message)

    def warning(self, message: str, **_: object) -> bool:
        """Log what needs attention."""
        return self._log(logging.WARNING, message)

    def error(self, message: str, *, exc_info: BaseException | None = None, **_: object) -> bool:
        """Log a fault, with the traceback of an exception if given."""
        return self._log(logging.ERROR, message, exc_info)

    def _log(self, level: int, message: str, error: BaseException | None = None) -> bool:
        log.log(level, "%s", message, exc_info=error)
        return True


def bridge(logger: Any) -> RosHandler:
    """Send what this process logs to the ROS logger, at its level; returns the handler for `unbridge`.

    rcl then prints text itself; JSON it cannot print, and the console goes on with it.
    """
    ros = logger.ros if isinstance(logger, NodeLog) else logger
    handler = RosHandler(ros)
    logging.getLogger().addHandler(handler)
    logs.set_level(int(ros.get_effective_level()))
    for console in logs.consoles():
        console.muted = not isinstance(console.formatter, JsonLine)
    return handler


def unbridge(handler: RosHandler) -> None:
    """Undo `bridge`."""
    logging.getLogger().removeHandler(handler)
    for console in logs.consoles():
        console.muted = False
