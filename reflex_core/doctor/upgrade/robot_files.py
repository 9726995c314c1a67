# SPDX-License-Identifier: Apache-2.0
"""Parameter files, embodiments, safety configurations and observations of an earlier version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from reflex_core.doctor.upgrade.judgement import READ, REFUSED, Judgement
from reflex_core.doctor.upgrade.kinds import EMBODIMENT, OBSERVATION, PARAMETERS, SAFETY
from reflex_core.errors import ReflexError

ReadSettings = Callable[[Path], Mapping[str, object]]  # raises SettingError


def judge_parameters(path: Path, read: ReadSettings) -> Judgement:
    """Judge a parameter file for the node that would be served. read: what `reflex serve --config` reads of it."""
    try:
        written = read(path)
    except ReflexError as error:
        do = "correct what the sentence names, until `reflex doctor --config FILE` takes it"
        return Judgement(str(path), PARAMETERS, REFUSED, str(error), do)
    names = ", ".join(sorted(written)) or "no setting"
    return Judgement(str(path), PARAMETERS, READ, f"sets {names}", notes=tuple(_settings_notes(written)))


def _settings_notes(written: Mapping[str, object]) -> Iterator[str]:
    if not any(written.get(name) for name in ("export_dir", "policy_a")):
        yield (
            "it names no export: the embedded policy then answers requests but commands no robot; set export_dir: demo to let"
            " it command one, as before"
        )
    if written.get("slo") and "slo_mode" not in written:
        yield (
            "slo_mode defaults to auto instead of degrade: fewer denoise steps if the export supports it, otherwise a missed"
            " objective is only logged"
        )


def judge_embodiment(path: Path) -> Judgement:
    """Judge a robot's description."""
    from reflex_core.robot.presets import load_embodiment

    try:
        robot = load_embodiment(path)
    except ReflexError as error:
        do = (
            "correct what the sentence names (docs/reference/embodiments.md); lengths and angles in m and rad"
        )
        return Judgement(str(path), EMBODIMENT, REFUSED, str(error), do)
    commanded = ", ".join(f"{group.name} by {group.output}" for group in robot.groups)
    message = f"{robot.name}: {len(robot.action_min)} actions at {robot.frequency_hz:g} Hz"
    message += f"; {commanded}" if commanded else ""
    note = (
        "a gripper command up to saturation_tolerance (0.05 of its range) beyond the range is clipped without counting"
        " towards the guard's trip"
    )
    return Judgement(str(path), EMBODIMENT, READ, message, notes=(note,) if robot.gripper else ())


def judge_safety(path: Path) -> Judgement:
    """Judge a safety configuration."""
    from reflex_core.robot.limits.safety_config import load_safety_config

    try:
        config = load_safety_config(path)
    except ReflexError as error:
        do = "correct what the sentence names, or write it anew: reflex guard init --urdf FILE --output FILE"
        return Judgement(str(path), SAFETY, REFUSED, str(error), do)
    message = f"limits of {', '.join(config.joint_names) or 'no joint'}; mode {config.mode}"
    return Judgement(str(path), SAFETY, READ, message)


def judge_observation(path: Path) -> Judgement:
    """Judge a recorded observation: its JSON and the images that it names."""
    from reflex_core.files.observations import read_observation

    try:
        seen = read_observation(path)
    except ReflexError as error:
        do = "correct what the sentence names, or record it again (docs/reference/observations.md)"
        return Judgement(str(path), OBSERVATION, REFUSED, str(error), do)
    return Judgement(str(path), OBSERVATION, READ, f"cameras {', '.join(seen.frames) or 'none'}")
