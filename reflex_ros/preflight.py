# SPDX-License-Identifier: Apache-2.0
"""Check settings before a model is loaded, those of the interfaces included: cloud server, spans, keys, output."""

from __future__ import annotations

from reflex_core.engine import validation
from reflex_core.errors import SettingError
from reflex_core.settings.table import Settings
from reflex_ros.otel.connect import check_endpoint, check_tracing
from reflex_ros.outputs.interfaces import check_output
from reflex_ros.sidecar.server_connections import check_remote, check_remote_key


def require_sound(settings: Settings) -> None:
    """Raise the first ConfigurationError of the checks."""
    for check in CHECKS.values():
        check(settings)


def require_interface(settings: Settings, over_ros: bool) -> None:
    """Raise SettingError where a setting needs ROS and there is none, or where nothing would be served."""
    if over_ros:
        return
    if settings.record_bag:
        raise SettingError("--record-bag records what goes over ROS, and this serves HTTP alone")
    if not settings.http:
        raise SettingError("setting 'http' is false and there is no ROS: nothing would be served")


# what the values alone show, on whichever machine
VALUE_CHECKS: dict[str, validation.Check] = {
    **validation.VALUE_CHECKS,
    "other servers": check_remote,
    "spans": check_endpoint,
    "output": check_output,
}
CHECKS: dict[str, validation.Check] = {
    **VALUE_CHECKS,
    **validation.CHECKS,
    "keys of other servers": check_remote_key,
    "tracing": check_tracing,
}
