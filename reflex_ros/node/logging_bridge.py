# SPDX-License-Identifier: Apache-2.0
"""Forward the core's Python log records to the node's ROS logger."""

from __future__ import annotations

import logging
from typing import Any

from reflex_core.text.log_lines import OneLine


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


def bridge(logger: Any) -> RosHandler:
    """Send what reflex_core and reflex_ros log to the ROS logger; returns the handler for `unbridge`."""
    handler = RosHandler(logger)
    for name in ("reflex_core", "reflex_ros"):
        log = logging.getLogger(name)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return handler


def unbridge(handler: RosHandler) -> None:
    """Undo `bridge`."""
    for name in ("reflex_core", "reflex_ros"):
        log = logging.getLogger(name)
        log.removeHandler(handler)
        log.propagate = True
