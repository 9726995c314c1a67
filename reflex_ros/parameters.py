# SPDX-License-Identifier: Apache-2.0
"""The settings table as ROS parameters: typed, described, ranged, and refused with a reason."""

from __future__ import annotations

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

from reflex_core.errors import ReflexError, SettingError
from reflex_core.setting import Setting, checked
from reflex_core.settings import TABLE, Settings, settings_from

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


def declare(node: Node, overrides: Mapping[str, object]) -> Settings:
    """Declare every setting and read them once. `overrides` (command line) win over the parameter file's values.

    Raises SettingError.
    """
    for row in TABLE:
        value = overrides.get(row.name, row.default)
        given = list(value) if isinstance(value, tuple) else value
        node.declare_parameter(row.name, given, descriptor(row), ignore_override=row.name in overrides)
    return read(node)


def read(node: Node) -> Settings:
    """The node's parameters as Settings. Raises SettingError."""
    return settings_from({row.name: _value(node.get_parameter(row.name)) for row in TABLE})


def descriptor(row: Setting) -> ParameterDescriptor:
    """What rqt_reconfigure and `ros2 param describe` show."""
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


def on_change(
    current: Callable[[], Settings], configured: Callable[[], bool], check: Callable[[Settings], None]
) -> Callable[[list[Parameter]], SetParametersResult]:
    """The parameter callback: refuses a wrong value, and one that would silently wait for the next configure.

    check: raises ReflexError for settings that do not go together, or not with what is loaded.
    """
    rows = {row.name: row for row in TABLE}

    def accept(changes: list[Parameter]) -> SetParametersResult:
        changed = {change.name: _value(change) for change in changes if change.name in rows}
        if not changed:
            return SetParametersResult(successful=True)
        for name, value in changed.items():
            try:
                checked(rows[name], value)
            except SettingError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if rows[name].when == "configure" and configured():
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
    return tuple(value) if parameter.type_ is Parameter.Type.STRING_ARRAY and value is not None else value
