# SPDX-License-Identifier: Apache-2.0
"""What a setting is: a row of the table in settings.py, and when a value fits it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reflex_core.errors import SettingError

Value = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `group` is the chapter of docs/flags.md.

    `when` says when a change takes effect: at process `start`, at the next `configure`, or `live`.
    """

    name: str
    default: Value
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    group: str
    when: str

    @property
    def flag(self) -> str:
        """The command-line spelling, `--max-age-ms`."""
        return "--" + self.name.replace("_", "-")


def row(
    default: Value,
    help_: str,
    *,
    group: str,
    when: str = "configure",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that carries its row."""
    metadata = {
        "help": help_, "minimum": minimum, "maximum": maximum, "choices": choices, "group": group, "when": when
    }  # fmt: skip
    return field(default=default, metadata=metadata)


def checked(setting: Setting, value: object) -> Value:
    """The value as the row's own type, or SettingError naming the setting, what it takes and what it got."""
    wanted = type(setting.default)
    if isinstance(setting.default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise SettingError(f"setting '{setting.name}' takes a list of names, got {value!r}")
        return tuple(item for item in value if item)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        raise SettingError(f"setting '{setting.name}' takes {wanted.__name__}, got {value!r}")
    if setting.choices and value not in setting.choices:
        raise SettingError(
            f"setting '{setting.name}' takes one of {', '.join(setting.choices)}, got {value!r}"
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = setting.minimum, setting.maximum
        if not ((low is None or value >= low) and (high is None or value <= high)):
            raise SettingError(f"setting '{setting.name}' takes {range_words(low, high)}, got {value}")
    return value


def range_words(low: float | None, high: float | None) -> str:
    """The range of a setting in words."""
    if low is None:
        return f"at most {high:g}"
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
