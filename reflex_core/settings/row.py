# SPDX-License-Identifier: Apache-2.0
"""What a setting is: a row of the table in settings.py, and when a value fits it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from reflex_core.errors import SettingError
from reflex_core.text.suggestions import nearest

PREFIX = "REFLEX_"

Value = bool | int | float | str | tuple[str, ...]

KINDS: dict[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a list of names such as [a, b]",
}  # fmt: skip
BOOLEANS = dict.fromkeys(("true", "yes", "on", "1", "y"), True) | dict.fromkeys(
    ("false", "no", "off", "0", "n"), False
)
# how a value is called in help, and the unit behind its default, by the end of the setting's name
UNITS: dict[str, tuple[str, str]] = {
    "_ms": ("MS", " ms"), "_s": ("SECONDS", " s"), "_hz": ("HZ", " Hz"), "_fps": ("HZ", " Hz"), "_rad": ("RAD", " rad"),
    "_days": ("DAYS", " days"), "_mb": ("MB", " MB"), "port": ("PORT", ""),
}  # fmt: skip
LARGEST_WHOLE = 10**300  # beyond it a whole number may have no float


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `group` is the chapter of docs/reference/settings.md.

    `when`: when a change takes effect: at process `start`, at the next `configure`, or `live`. path: the value names
    a file or directory, so a leading `~` is a home directory. beyond: what to do instead of a value above the maximum.
    metavar: what its value is called in help, where neither its kind nor its unit says it.
    """

    name: str
    default: Value
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    group: str
    when: str
    path: bool = False
    beyond: str = ""
    metavar: str = ""

    @property
    def flag(self) -> str:
        """The command-line spelling, `--max-age-ms`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable that sets it, `REFLEX_MAX_AGE_MS`."""
        return PREFIX + self.name.upper()

    @property
    def value_name(self) -> str:
        """What its value is called in help: FILE, URL, MS; for a choice the choices."""
        if self.choices:
            return "|".join(self.choices)
        kind = {tuple: "NAME", str: "FILE" if self.path else "TEXT", int: "N", float: "NUMBER"}
        return self.metavar or self._unit()[0] or kind.get(type(self.default), "")

    @property
    def default_words(self) -> str:
        """The default with its unit, as people read it; empty where nothing is set."""
        if isinstance(self.default, bool):
            return "on" if self.default else ""
        if isinstance(self.default, int | float):
            return f"{self.default}".removesuffix(".0") + self._unit()[1]
        return self.default if isinstance(self.default, str) else ""

    def _unit(self) -> tuple[str, str]:
        if isinstance(self.default, str | tuple):
            return "", ""
        return next((unit for end, unit in UNITS.items() if self.name.endswith(end)), ("", ""))


def row(
    default: Value,
    help_: str,
    *,
    group: str,
    when: str = "configure",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    path: bool = False,
    beyond: str = "",
    metavar: str = "",
) -> Any:
    """Return a dataclass field that carries its row."""
    metadata = {
        "help": help_, "minimum": minimum, "maximum": maximum, "choices": choices, "group": group, "when": when,
        "path": path, "beyond": beyond, "metavar": metavar,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


def checked(setting: Setting, value: object) -> Value:
    """Return the value as the row's own type. Raises SettingError naming the setting, the expected and the given value.

    Integers are numbers: 33 for a float and 33.0 for an int are taken. A missing list is empty.
    """
    if isinstance(setting.default, tuple):
        return _names(setting, value)
    wanted = type(setting.default)
    value = _near(setting, value)
    if type(value) is not wanted:
        raise _refused(setting, value)
    if setting.choices and value not in setting.choices:
        raise _refused(setting, value, nearest(str(value), setting.choices))
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = setting.minimum, setting.maximum
        if not ((low is None or value >= low) and (high is None or value <= high)):
            instead = f": {setting.beyond}" if setting.beyond and high is not None and value > high else ""
            raise SettingError(
                f"setting '{setting.name}' takes {range_words(low, high)}, got {value}{instead}"
            )
    return _at_home(setting, value) if setting.path and isinstance(value, str) else value


def from_text(setting: Setting, text: str) -> Value:
    """Return a value that was written as text, on a command line or as a launch argument. Raises SettingError."""
    if isinstance(setting.default, bool):
        return boolean(text, f"setting '{setting.name}'")
    if isinstance(setting.default, tuple):
        return checked(setting, names(text))
    if isinstance(setting.default, int | float):
        return checked(setting, number(text))
    return checked(setting, text)


def names(text: str) -> list[object]:
    """Return the items of `a, b`, `a b` or `[a, b]`; a number among them stays one, so that it can be refused."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    return [_item(word) for word in re.split(r"[,\s]+", inner) if word]


def number(text: str) -> object:
    """Parse a number, int before float; return the text itself where it is none.

    Python alone reads 1_0 as ten, and digits of other scripts: to YAML and to people they are text.
    """
    if "_" in text or not text.isascii():
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def boolean(text: str, what: str) -> bool:
    """Return the truth that YAML and launch users write: true, yes, on or 1 and their opposites. Raises SettingError."""
    found = BOOLEANS.get(text.strip().lower())
    if found is None:
        raise SettingError(f"{what} takes {KINDS[bool]}, got {text!r:.100}")
    return found


def _at_home(setting: Setting, path: str) -> str:
    """Expand a leading `~` as a shell would: no shell reads YAML files, launch arguments or `-p`. Raises SettingError."""
    found = os.path.expanduser(path)  # noqa: PTH111 - as a shell: Path would also tidy the rest
    if found == path and path.startswith("~"):
        raise SettingError(
            f"setting '{setting.name}': {path.partition('/')[0]!r:.100} is no user's home directory here: write the path out, or"
            " ./ before it where a directory is called so"
        )
    return found


def _near(setting: Setting, value: object) -> object:
    """Convert the value to the row's type, where that is lossless."""
    wanted = type(setting.default)
    if isinstance(value, bool):
        return value
    if wanted is float and isinstance(value, int) and abs(value) < LARGEST_WHOLE:
        return float(value)
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and str(value) in setting.choices:  # 503 is a number to YAML
        return str(value)
    return value


def _names(setting: Setting, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _refused(setting, list(value) if isinstance(value, tuple) else value)
    return tuple(item for item in value if item)


def _refused(setting: Setting, value: object, meant: str = "") -> SettingError:
    takes = "one of " + ", ".join(setting.choices) if setting.choices else KINDS[type(setting.default)]
    got = "nothing" if value is None else f"{value!r:.120}"
    way_out = f"; did you mean {meant}?" if meant else ""
    if isinstance(setting.default, str) and not setting.choices and not isinstance(value, str):
        way_out = ": write it in quotes" if value is not None else ': write "" to leave it empty'
    return SettingError(f"setting '{setting.name}' takes {takes}, got {got}{way_out}")


def _item(word: str) -> object:
    """Return a name as text, or the number that was given in its place as it is."""
    bare = word.strip("'\"")
    return bare if bare != word else number(word)


def range_words(low: float | None, high: float | None) -> str:
    """Return the range of a setting as text."""
    if low is None:
        return f"at most {_bound(high)}"
    return f"{_bound(low)} or more" if high is None else f"{_bound(low)} to {_bound(high)}"


def _bound(value: float | None) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
