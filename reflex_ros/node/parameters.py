# SPDX-License-Identifier: Apache-2.0
"""Declare the settings table as ROS parameters: typed, described, ranged, and refused with a reason."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.parameter import Parameter

from reflex_core.engine.serving_state import ServingState
from reflex_core.engine.which_exports import chosen
from reflex_core.errors import ReflexError, SettingError
from reflex_core.metrics.slo import parse_slo
from reflex_core.settings.row import Setting, Value, checked
from reflex_core.settings.table import TABLE, Settings, require_known, settings_from
from reflex_ros.settings_sources import owned_by_ros, take

if TYPE_CHECKING:
    from rclpy.node import Node

_TYPES: dict[type, int] = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
    tuple: ParameterType.PARAMETER_STRING_ARRAY,
}
_NO_LIMIT = 2**53  # ROS ranges are closed; beyond this a double counts no more
_ROWS = {row.name: row for row in TABLE}


def declare(node: Node, overrides: Mapping[str, object]) -> Settings:
    """Declare every setting and read them once. `overrides` (given on the command line) win over what rclpy has read.

    Raises SettingError, also for names that neither we nor ROS have.
    """
    written: dict[str, Value] = {}
    # every override of this node, which rclpy does not publish
    theirs = {name: each.value for name, each in getattr(node, "_parameter_overrides", {}).items()}
    take(f"parameters of {node.get_fully_qualified_name()}", theirs, written, {})
    settings = settings_from({**written, **overrides})
    for row in TABLE:
        value = getattr(settings, row.name)
        if value == ():
            # rclpy takes [] for an array of bytes; declared by its type alone it is not set
            node.declare_parameter(
                row.name, Parameter.Type.STRING_ARRAY, descriptor(row), ignore_override=True
            )
            node.set_parameters([Parameter(row.name, Parameter.Type.STRING_ARRAY, [])])
            continue
        given = list(value) if isinstance(value, tuple) else value
        node.declare_parameter(row.name, given, descriptor(row), ignore_override=True)
    return settings


def read(node: Node) -> Settings:
    """Read the node's parameters as Settings. Raises SettingError."""
    return settings_from({row.name: _value(node.get_parameter(row.name)) for row in TABLE})


def descriptor(row: Setting) -> ParameterDescriptor:
    """Return the descriptor that rqt_reconfigure and `ros2 param describe` show."""
    found = ParameterDescriptor(
        name=row.name,
        type=_TYPES[type(row.default)],
        description=row.help,
        read_only=row.when == "start",
        additional_constraints=("one of " + ", ".join(row.choices)) if row.choices else "",
    )
    low = -_NO_LIMIT if row.minimum is None else row.minimum
    high = _NO_LIMIT if row.maximum is None else row.maximum
    if (low, high) == (-_NO_LIMIT, _NO_LIMIT):
        return found
    if isinstance(row.default, float):
        found.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    else:
        found.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return found


def before_change(changes: list[Parameter]) -> list[Parameter]:
    """Return changes with near kinds as the setting's own kind, before rclpy looks at names and types.

    Raises SettingError for a name that no setting has, and for a value that is not right.
    """
    return [_taken(change) for change in changes]


def _taken(change: Parameter) -> Parameter:
    if owned_by_ros(change.name):
        return change
    require_known([change.name])
    if change.type_ == Parameter.Type.NOT_SET:
        raise SettingError(f"setting '{change.name}' cannot be deleted: set another value")
    value = checked(_ROWS[change.name], _value(change))
    kind = Parameter.Type(_TYPES[type(value)])
    return Parameter(change.name, kind, list(value) if isinstance(value, tuple) else value)


def require_kept(settings: Settings, loaded: ServingState | None) -> None:
    """Raise SettingError for an objective that cannot be read or kept, or a split of what is not there."""
    chosen(settings)
    if not settings.slo:
        return
    parse_slo(settings.slo)
    if loaded is not None and settings.slo_mode == "degrade" and loaded.why_not_fewer_steps:
        raise SettingError(
            f"slo_mode 'degrade': {loaded.why_not_fewer_steps}; set slo_mode to 'auto', '503' or 'log_only' first"
        )


def on_change(
    current: Callable[[], Settings], configured: Callable[[], bool], check: Callable[[Settings], None]
) -> Callable[[list[Parameter]], SetParametersResult]:
    """Return the parameter callback: it refuses a wrong value, and one that would silently wait for the next configure.

    check: raises ReflexError for settings that do not go together, or not with what is loaded.
    """

    def accept(changes: list[Parameter]) -> SetParametersResult:
        changed = {change.name: _value(change) for change in changes if change.name in _ROWS}
        if not changed:
            return SetParametersResult(successful=True)
        for name, value in changed.items():
            try:
                checked(_ROWS[name], value)
            except SettingError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if _ROWS[name].when == "configure" and configured():
                reason = f"'{name}' takes effect at configure: deactivate and clean up first"
                return SetParametersResult(successful=False, reason=reason)
        try:
            check(replace(current(), **changed))
        except ReflexError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    return accept


def _value(parameter: Parameter) -> Any:
    value = parameter.value
    return tuple(value) if isinstance(value, list | tuple | array) else value
