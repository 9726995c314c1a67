# SPDX-License-Identifier: Apache-2.0
"""What a policy on another server must be for a robot: from what the server says, and from the file of --remote-description.

The embodiment says joints, cameras and limits. What the server and the file say must agree with it, or nothing is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reflex_core.errors import ConfigurationError, ExportError, SettingError
from reflex_core.export.action_space import KEY as ACTION_SPACE
from reflex_core.export.action_space import read_action_space
from reflex_core.export.binding import Binding, bind
from reflex_core.export.config_schema import GUIDED, OFF, RtcBlock
from reflex_core.export.contract import Contract, StateSlot
from reflex_core.export.declared_units import KEY as UNITS
from reflex_core.export.export import Export, config_hash
from reflex_core.export.flow import Flow
from reflex_core.export.image_slots import ImageSlot
from reflex_core.export.prompt import LanguageSlot
from reflex_core.export.read_normalization import Normalization
from reflex_core.files.json_fields import JsonError, JsonFields, read_object, refusing
from reflex_core.normalization.affine import IDENTITY
from reflex_core.policy.remote_server import POSITIONS, REFLEX, VELOCITIES, RemoteAbout
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import VELOCITY
from reflex_core.settings.table import Settings
from reflex_core.text.untrusted import is_name, shown

MISMATCH, UNDECLARED = "remote-mismatch", "remote-undeclared"
KINDS = (POSITIONS, VELOCITIES)
KNOWN = (
    "action_names",
    ACTION_SPACE,
    UNITS,
    "frequency_hz",
    "state_names",
    "reads_state",
    "reads_language",
    "cameras",
    "n_action_steps",
)
WHERE = "the file of --remote-description"  # in refusals, where there is none yet
MOST_COLUMNS, MOST_ROWS, MOST_HZ = 4096, 100_000, 10_000.0

_ONES, _ZEROS = np.ones(3, np.float32), np.zeros(3, np.float32)


@dataclass(frozen=True, slots=True)
class RemoteParts:
    """A policy on another server as if it were an export without files, and the robot's side of it."""

    export: Export
    contract: Contract
    binding: Binding


def read_description(settings: Settings) -> Mapping[str, Any]:
    """Return what the file of `remote_description` says; empty without one. Raises SettingError."""
    if not settings.remote_description:
        return {}
    path = Path(settings.remote_description)
    try:
        found = read_object(path)
    except (OSError, JsonError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingError(f"setting 'remote_description': {path}: {why}") from error
    fields = JsonFields(found, refusing(str(path), ExportError)).only(KNOWN)
    for key in ("action_names", "state_names", "cameras"):
        if key in fields:
            fields.names(key)
    for key in ("reads_state", "reads_language"):
        if key in fields:
            fields.truth(key)
    if "frequency_hz" in fields:
        fields.number("frequency_hz", 1e-3, MOST_HZ)
    if "n_action_steps" in fields:
        fields.whole("n_action_steps", 1, MOST_ROWS)
    return found


def require_robot(embodiment: Embodiment | None) -> Embodiment:
    """Return the robot. Raises SettingError where there is none."""
    if embodiment is None:
        raise SettingError(
            "setting 'remote': no export says what the robot is, so its joints, limits and cameras must be given by --embodiment or"
            " --custom-embodiment-config"
        )
    return embodiment


def remote_parts(
    url: str, about: RemoteAbout, says: Mapping[str, Any], robot: Embodiment, settings: Settings
) -> RemoteParts:
    """Return the policy's contract and binding.

    Args:
        url: Of the server.
        about: What it says; `action_dim` and `horizon` are known.
        says: What the user says of it (`read_description`).
        robot: What is driven.
        settings: For the joints' own names, and whether chunks guide the next one.

    Raises:
        ConfigurationError: Server, user and robot contradict each other, or what is needed is not said.
    """
    _check(url, about)
    names = _agreed(url, "action_names", about.action_names, says)
    state_names = _agreed(url, "state_names", about.state_names, says)
    config = {"model_type": "remote", "export_kind": about.dialect, "remote": url} | dict(says)
    config |= _implied(about, config, names, robot)
    export = _export(url, about, config, settings)
    fail = refusing(str(export.config_path) if says else url, ExportError)
    reads_language = says.get("reads_language", about.reads_language)
    contract = Contract(
        images=tuple(_slot(name) for name in _cameras(about, says, robot)),
        language=LanguageSlot("instruction", None, 0, "") if reads_language else None,
        state=_state(about, says, state_names),
        flow=Flow(steps=1),
        flow_names={},
        links={},
        horizon=about.horizon,
        width=about.action_dim,
        action_dim=about.action_dim,
        action_names=names,
        frequency_hz=_rate(url, about, says),
        rtc=RtcBlock(GUIDED if about.guides else OFF),
        action_space=read_action_space(config, about.action_dim, names, None, fail),
        observation_steps=about.observation_steps,
        n_action_steps=says.get("n_action_steps") or about.execution_horizon or None,
    )
    binding = bind(export, contract, robot, settings.joint_names)
    _require_declared(url, about, says)
    return RemoteParts(export, contract, binding)


def _check(url: str, about: RemoteAbout) -> None:
    """Raise ConfigurationError for numbers and names that no server of a robot gives."""
    for what, value, most in (
        ("columns", about.action_dim, MOST_COLUMNS),
        ("rows", about.horizon, MOST_ROWS),
        ("observations", about.observation_steps, 64),
    ):
        if not 0 < value <= most:
            raise _wrong(f"{url}: says that it has {value} {what}, expected 1 to {most}")
    if about.dt_s is not None and not 1 / MOST_HZ <= about.dt_s <= 1e3:
        raise _wrong(f"{url}: says that a row takes {about.dt_s!r} s, expected {1 / MOST_HZ:g} to 1000")
    for what, names in (
        ("action_names", about.action_names),
        ("state_names", about.state_names),
        ("cameras", about.cameras or ()),
    ):
        if len(set(names)) != len(names) or not all(map(is_name, names)):
            raise _wrong(f"{url}: its {what} must be different names, got {shown(names)}")
    if about.action_names and len(about.action_names) != about.action_dim:
        raise _wrong(
            f"{url}: names {len(about.action_names)} actions ({', '.join(about.action_names)}) and its rows have"
            f" {about.action_dim} columns"
        )
    if about.action_space and about.action_space not in KINDS:
        raise _wrong(
            f"{url}: its action_space must be {' or '.join(KINDS)}, got {shown(about.action_space)}: say in a file of"
            " --remote-description what its columns are"
        )


def _require_declared(url: str, about: RemoteAbout, says: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where nothing says what the rows are: one openpi checkpoint gives positions, the next one velocities."""
    if about.dialect == REFLEX or about.action_space or ACTION_SPACE in says or UNITS in says:
        return
    raise ConfigurationError(
        f'{url}: neither it nor a file of --remote-description says what its rows are: write {{"{UNITS}": "radians"}} into such a file'
        f' for joint positions in rad and m, "{ACTION_SPACE}" for velocities, offsets or a gripper that counts otherwise',
        UNDECLARED,
    )


def _agreed(url: str, what: str, theirs: tuple[str, ...], says: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names that the server or the user gives. Raises ConfigurationError where they differ."""
    ours = tuple(says.get(what, ()))
    if theirs and ours and theirs != ours:
        raise _wrong(
            f"{url}: says that its {what} are {', '.join(theirs)}, the file of --remote-description says {', '.join(ours)}: leave them"
            " out there, or take another server"
        )
    return theirs or ours


def _rate(url: str, about: RemoteAbout, says: Mapping[str, Any]) -> float | None:
    theirs, ours = about.dt_s, says.get("frequency_hz")
    if theirs is not None and ours is not None and abs(1.0 / theirs - ours) > 1e-6 * ours:
        raise _wrong(
            f"{url}: says that its rows are {theirs:g} s apart, the file of --remote-description says {ours:g} Hz: leave it out there,"
            " or take another server"
        )
    return 1.0 / theirs if theirs is not None else ours


def _cameras(about: RemoteAbout, says: Mapping[str, Any], robot: Embodiment) -> tuple[str, ...]:
    """Return the cameras whose images are sent: as the server says, else the user, else all of the robot."""
    if about.cameras is not None:
        return about.cameras
    return tuple(says.get("cameras", [camera.name for camera in robot.cameras]))


def _state(about: RemoteAbout, says: Mapping[str, Any], names: tuple[str, ...]) -> StateSlot | None:
    if not says.get("reads_state", about.reads_state):
        return None
    width = len(names) or about.state_dim or MOST_COLUMNS
    return StateSlot(input="state", width=width, bins=0, names=names)


def _implied(
    about: RemoteAbout, config: Mapping[str, Any], names: tuple[str, ...], robot: Embodiment
) -> dict[str, Any]:
    """Return what the server's own kind of reply says of its columns, where the user says nothing.

    A server of this kind answers in the robot's own numbers, rad and m; velocities for groups that take them.
    """
    made: dict[str, Any] = {}
    if about.dialect == REFLEX and UNITS not in config:
        made[UNITS] = "radians"
    if ACTION_SPACE in config:
        return made
    order = names or robot.joint_names
    grippers = {part.component_idx for part in robot.two_ended}
    here = {name: column for column, name in enumerate(robot.joint_names)}
    columns = [here.get(name, -1) for name in order] if order else list(range(about.action_dim))
    if about.dialect == REFLEX:
        rates = {column for group in robot.groups if group.commands == VELOCITY for column in group.columns}
        chosen = [at for at, column in enumerate(columns) if column in rates]
    elif about.action_space == VELOCITIES:
        chosen = [at for at, column in enumerate(columns) if column not in grippers]
    else:
        chosen = []
    chosen = [at for at in chosen if at < about.action_dim]
    return made | ({ACTION_SPACE: [{"columns": chosen, "mode": "velocity"}]} if chosen else {})


def _export(url: str, about: RemoteAbout, config: Mapping[str, Any], settings: Settings) -> Export:
    name = about.model_version.partition("@")[0] or url.partition("://")[2]
    return Export(
        path=Path(settings.remote_description or WHERE),
        config=config,
        model_id="".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:80],
        model_hash=about.model_hash,
        config_hash=about.config_hash or config_hash(config),
        normalization=Normalization(state_mode=IDENTITY, action_mode=IDENTITY),
        address=url,
    )


def _slot(camera: str) -> ImageSlot:
    """Return a camera of any size that must be there: the server itself scales, or masks one that it can do without."""
    return ImageSlot(
        camera=camera, input=camera, mask=None, height=None, width=None, channels_last=True, resize="letterbox",
        filter="bilinear", scale=_ONES, offset=_ZEROS, bars=_ZEROS, fill=0.0, required=True,
    )  # fmt: skip


def _wrong(message: str) -> ConfigurationError:
    return ConfigurationError(message, MISMATCH)
