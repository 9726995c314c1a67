# SPDX-License-Identifier: Apache-2.0
"""What is asked of an import and what it finds: options, and our description of another program's export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.text.untrusted import is_name, shown
from reflex_export.options import check_units

MISSING = "import-incomplete"  # the slug of what only the user can say
REFUSED = "import-refused"
# LeRobot's names of motors end so; a name in ROS cannot hold a dot
_POSITION = ".pos"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the bundle does not say.

    names, state_names: of the actions and of the state, in order. fps: control rate in Hz. units: one, or one per action.
    tokenizer: a tokenizer.json or its folder. image_range: of the pixels that the graph takes, [low, high]. force: replace an export that is there.
    """

    names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    fps: float | None = None
    units: tuple[str, ...] = ()
    tokenizer: Path | None = None
    image_range: tuple[float, float] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """One bundle as it was read.

    config: our reflex_config.json. files: name in the export -> file that is copied there. read: what the bundle says, in
    words. granted: what it does not say, and what was taken in its place.
    """

    config: Mapping[str, Any]
    files: Mapping[str, Path]
    read: tuple[str, ...]
    granted: tuple[str, ...]


def joint_names(
    where: str, what: str, option: str, written: Sequence[object], given: tuple[str, ...], width: int
) -> list[str]:
    """Return the names of `width` columns: those of the bundle, else those of the option.

    where: the bundle's file. what: "actions" or "state". written: by the bundle, () where it names none.
    Raises ExportError where neither names them, they contradict each other, or are no different names.
    """
    names = [
        name.removesuffix(_POSITION) if _all_positions(written) else name for name in map(_text, written)
    ]
    if names and given and list(given) != names:
        raise ExportError(
            f"{where}: its {what} are {shown(names, 200)} in this order, and {option} says {shown(list(given), 200)}: leave"
            f" {option} out",
            REFUSED,
        )
    names = names or list(given)
    if not names:
        raise ExportError(
            f"{where}: says no order of its {width} {what}: name the joints with {option} A,B,...", MISSING
        )
    if len(names) != width or len(set(names)) != width or not all(map(is_name, names)):
        raise ExportError(
            f"{where}: the graph has {width} {what}, which need as many different names, got {shown(names, 200)}",
            REFUSED,
        )
    return names


def about_robot(options: ImportOptions, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return (`frequency_hz` and `units` of reflex_config.json, what is granted). Raises ConfigurationError for wrong units.

    names: of the actions.
    """
    granted = []
    config: dict[str, Any] = {}
    if options.fps is not None:
        config["frequency_hz"] = options.fps
    else:
        granted.append("no control rate: the embodiment's is taken (--fps says it)")
    check_units(options.units, len(names))
    if options.units:
        each = dict(zip(names, options.units, strict=False))
        config["units"] = options.units[0] if len(options.units) == 1 else each
    else:
        granted.append("units of states and actions are those of the robot, rad and m (--units says others)")
    return config, granted


def _all_positions(names: Sequence[object]) -> bool:
    return all(isinstance(name, str) and name.endswith(_POSITION) and name != _POSITION for name in names)


def _text(name: object) -> str:
    return name if isinstance(name, str) else ""
