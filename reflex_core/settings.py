# SPDX-License-Identifier: Apache-2.0
"""Every setting, once: name, type, default, range and help.

The command line, the ROS parameters, the launch arguments and docs/settings.md are made from `TABLE`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from reflex_core.errors import SettingError

Value = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `door` is `core`, `http` or `ros`: who reads it.

    `when` says when a change takes effect: at process `start`, at the next `configure`, or `live`.
    """

    name: str
    default: Value
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    door: str
    when: str

    @property
    def flag(self) -> str:
        """The command-line spelling, `--max-age-ms`."""
        return "--" + self.name.replace("_", "-")


def _row(
    default: Value,
    help_: str,
    *,
    door: str = "core",
    when: str = "configure",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {
        "help": help_, "minimum": minimum, "maximum": maximum, "choices": choices, "door": door, "when": when
    }  # fmt: skip
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one serving process. Build it with `settings_from`, which checks every value."""

    export_dir: str = _row(
        "", "Directory of the ONNX export to serve. Empty: the embedded reach_panda policy."
    )
    embodiment: str = _row(
        "", "Embodiment preset by name, for example franka. Empty: the one the export brings."
    )
    custom_embodiment_config: str = _row("", "Embodiment JSON file; wins over --embodiment.")
    robot_id: str = _row("", "Name of this robot in replies, metrics and diagnostics.")
    device: str = _row(
        "auto",
        "Where inference runs. auto takes CUDA if this onnxruntime has it; cuda and tensorrt refuse to fall back.",
        choices=("auto", "cpu", "cuda", "tensorrt"),
    )
    intra_op_threads: int = _row(
        0, "Threads of one onnxruntime operator; 0: one per physical core.", minimum=0, maximum=256
    )
    seed: int = _row(
        -1,
        "Base seed of the start noise; -1: a new one per process. Each reply names its seed.",
        minimum=-1,
        maximum=2**63 - 1,
    )

    http: bool = _row(
        True, "Answer /act, /health, /config and /metrics over HTTP.", door="http", when="start"
    )
    host: str = _row(
        "127.0.0.1",
        "Address to listen on. Beyond loopback a key or --insecure is needed.",
        door="http",
        when="start",
    )
    port: int = _row(
        8000, "Port to listen on; 0 takes a free one.", door="http", when="start", minimum=0, maximum=65535
    )
    api_key_file: str = _row(
        "",
        "File holding the API key. The environment variable REFLEX_API_KEY does the same.",
        door="http",
        when="start",
    )
    insecure: bool = _row(False, "Listen beyond loopback without an API key.", door="http", when="start")
    http_threads: int = _row(
        4, "Threads that decode and serve HTTP requests; inference itself runs one at a time.",
        door="http", when="start", minimum=1, maximum=64,
    )  # fmt: skip
    max_pixels: int = _row(
        25_000_000, "Largest image accepted over HTTP, in pixels.", door="http", when="start", minimum=1024
    )

    autostart: bool = _row(
        True, "Configure and activate at start, without a lifecycle manager.", door="ros", when="start"
    )
    instruction: str = _row("", "Instruction until one arrives on the instruction topic.", door="ros")
    image_transport: str = _row(
        "raw", "Which camera topics to subscribe: <camera>/image_raw, or its /compressed twin.",
        door="ros", choices=("raw", "compressed"),
    )  # fmt: skip
    state_source: str = _row(
        "joint_states", "Message that carries the robot state.",
        door="ros", choices=("joint_states", "imu", "odometry"),
    )  # fmt: skip
    joint_names: tuple[str, ...] = _row(
        (), "Joint names on the robot, in the embodiment's order. Empty: the names the export or embodiment gives.",
        door="ros",
    )  # fmt: skip
    max_age_ms: float = _row(
        300.0,
        "Oldest sensor stamp an inference may use.",
        door="ros",
        when="live",
        minimum=1.0,
        maximum=60_000.0,
    )
    max_skew_ms: float = _row(
        150.0,
        "Largest distance between the stamps of one observation.",
        door="ros",
        when="live",
        minimum=0.0,
        maximum=60_000.0,
    )
    margin_ms: float = _row(
        100.0, "Spare time, on top of the measured latency, with which the next chunk is asked for.",
        door="ros", when="live", minimum=0.0, maximum=10_000.0,
    )  # fmt: skip
    execution_horizon: int = _row(
        0, "Actions executed before the next chunk is asked for; 0: the embodiment's.",
        door="ros", when="live", minimum=0, maximum=1000,
    )  # fmt: skip
    status_rate_hz: float = _row(
        5.0, "Rate of ~/status.", door="ros", when="start", minimum=0.1, maximum=100.0
    )


def _table() -> tuple[Setting, ...]:
    return tuple(
        Setting(name=row.name, default=cast(Value, row.default), **row.metadata)
        for row in dataclasses.fields(Settings)
    )


TABLE: tuple[Setting, ...] = _table()


def checked(row: Setting, value: object) -> Value:
    """The value as the row's own type, or SettingError naming the setting, what it takes and what it got."""
    wanted = type(row.default)
    if isinstance(row.default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise SettingError(f"setting '{row.name}' takes a list of names, got {value!r}")
        return tuple(item for item in value if item)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        raise SettingError(f"setting '{row.name}' takes {wanted.__name__}, got {value!r}")
    if row.choices and value not in row.choices:
        raise SettingError(f"setting '{row.name}' takes one of {', '.join(row.choices)}, got {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = row.minimum, row.maximum
        if not ((low is None or value >= low) and (high is None or value <= high)):
            raise SettingError(f"setting '{row.name}' takes {_range_words(low, high)}, got {value}")
    return value


def _range_words(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"


def settings_from(values: Mapping[str, object]) -> Settings:
    """Settings with the given values over the defaults. Raises SettingError for a name or value that is not right."""
    rows = {row.name: row for row in TABLE}
    unknown = sorted(set(values) - set(rows))
    if unknown:
        raise SettingError(f"no such setting: {', '.join(unknown)}")
    return Settings(**{name: checked(rows[name], value) for name, value in values.items()})  # type: ignore[arg-type]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per setting. What the user does not write is left out of the parsed namespace."""
    for row in TABLE:
        text = row.help.replace("%", "%%")
        if isinstance(row.default, bool):
            parser.add_argument(
                row.flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        elif isinstance(row.default, tuple):
            parser.add_argument(row.flag, nargs="+", metavar="NAME", default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(
                row.flag,
                type=type(row.default),
                choices=row.choices or None,
                metavar=None if row.choices else type(row.default).__name__.upper(),
                default=argparse.SUPPRESS,
                help=f"{text} [{row.default!r}]",
            )


def markdown() -> str:
    """docs/settings.md, made from the table."""
    lines = [
        "# Settings",
        "",
        "Made from `reflex_core/settings.py` by `python -m reflex_core.settings`; do not edit.",
        "Every setting is a ROS parameter of the node `reflex`, an argument of `serve.launch.py` and an option of",
        "`reflex serve` (`max_age_ms` is `--max-age-ms`).",
    ]
    for door, title in (("core", "Policy"), ("http", "HTTP"), ("ros", "ROS")):
        lines += [
            "",
            f"## {title}",
            "",
            "| name | default | takes | a change takes effect | what it does |",
            "|---|---|---|---|---|",
        ]
        for row in TABLE:
            if row.door == door:
                lines.append(
                    f"| `{row.name}` | `{_default_words(row)}` | {_takes(row)} | {_WHEN[row.when]} | {row.help} |"
                )
    return "\n".join(lines) + "\n"


_WHEN = {"start": "at start", "configure": "at configure", "live": "at once"}


def _default_words(row: Setting) -> str:
    if isinstance(row.default, tuple):
        return "[]"
    return (
        '""'
        if row.default == ""
        else str(row.default).lower()
        if isinstance(row.default, bool)
        else str(row.default)
    )


def _takes(row: Setting) -> str:
    if row.choices:
        return ", ".join(row.choices)
    if row.minimum is not None or row.maximum is not None:
        return f"{type(row.default).__name__}, {_range_words(row.minimum, row.maximum)}"
    return "names" if isinstance(row.default, tuple) else type(row.default).__name__


if __name__ == "__main__":
    print(markdown(), end="")
