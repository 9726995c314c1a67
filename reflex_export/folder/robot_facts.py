# SPDX-License-Identifier: Apache-2.0
"""What no checkpoint holds: names of joints, control rate and units, from options, the pipeline and the data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from reflex_core.errors import ConfigurationError
from reflex_core.export.processors import ACTION, STATE, Normalizer, Processors
from reflex_core.export.unit_check import A_TURN
from reflex_core.normalization.affine import Doubles
from reflex_core.normalization.statistics_file import chosen, read_table
from reflex_core.text.untrusted import is_name
from reflex_export.checkpoint import DatasetInfo, RobotFacts
from reflex_export.folder.features import Features
from reflex_export.options import CONTRADICTION, UNITS, ExportOptions, check_units

POSITION = ".pos"  # what LeRobot puts behind the name of a joint
# arms whose gripper LeRobot counts from 0 to 100, whatever it counts the joints in
PERCENT_GRIPPERS = ("so100", "so101")


def robot_facts(
    options: ExportOptions, config: Mapping[str, Any], features: Features, processors: Processors,
    dataset: DatasetInfo | None,
) -> RobotFacts:  # fmt: skip
    """Return what is known of the robot. Raises ConfigurationError where two sources contradict each other."""
    actions = _action_names(options, config, features, processors, dataset)
    states = dataset.state_names if dataset is not None else ()
    if not states and features.state_dim == len(actions):
        states = actions  # the state of an arm is where the same joints are
    robot_type = dataset.robot_type if dataset is not None else ""
    frequency_hz = _frequency(options, dataset)
    units = _units(options, _bare(actions), robot_type, features.action_dim)
    return RobotFacts(
        action_names=_bare(actions),
        state_names=_bare(states) if features.state_dim else (),
        frequency_hz=frequency_hz,
        units=units,
        robot_type=robot_type,
        open_questions=tuple(_open_questions(bool(actions), frequency_hz, units, recorded_range(processors))),
    )


def recorded_range(processors: Processors) -> tuple[Doubles, Doubles] | None:
    """Return (lowest, highest) position of each joint in the training data, in the policy's units; None where it is not stored.

    Of actions that are offsets from the state, it is that of the state.
    """
    actions = _extent(processors.unnormalizer, ACTION)
    if actions is None or processors.relative is None:
        return actions
    states = _extent(processors.normalizer, STATE)
    if states is None or len(states[0]) != len(actions[0]):
        return None
    mask = processors.relative.mask(len(actions[0]))
    low, high = (np.where(mask, state, action) for state, action in zip(states, actions, strict=True))
    return low, high


def _extent(step: Normalizer | None, feature: str) -> tuple[Doubles, Doubles] | None:
    if step is None or step.state_file is None:
        return None
    found = chosen(read_table(step.state_file), feature, "", step.state_file)
    if found is None or not {"min", "max"} <= set(found[1]):
        return None
    return found[1]["min"], found[1]["max"]


def _action_names(
    options: ExportOptions, config: Mapping[str, Any], features: Features, processors: Processors,
    dataset: DatasetInfo | None,
) -> tuple[str, ...]:  # fmt: skip
    if options.names:
        names = options.names
        if len(names) != features.action_dim or len(set(names)) != len(names) or not all(map(is_name, names)):
            raise ConfigurationError(
                f"--names must be {features.action_dim} different names, one for each action of the policy, got {len(names)}:"
                f" {', '.join(names)}",
                CONTRADICTION,
            )
        return names
    of_steps = processors.relative.action_names if processors.relative is not None else ()
    written = of_steps or config.get("action_feature_names") or ()
    names = tuple(written) if isinstance(written, list | tuple) and all(map(is_name, written)) else ()
    names = names if len(names) == features.action_dim and len(set(names)) == len(names) else ()
    recorded = dataset.action_names if dataset is not None else ()
    if names and recorded and names != recorded:
        raise ConfigurationError(
            f"the checkpoint calls its actions {', '.join(names)}, and the data set calls them {', '.join(recorded)}: leave"
            " --dataset out if it is of another robot, or say with --names which names hold",
            CONTRADICTION,
        )
    return names or recorded


def _bare(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names as ROS calls joints: `shoulder_pan` for LeRobot's `shoulder_pan.pos`, where all of them end so."""
    if not all(name.endswith(POSITION) and name != POSITION for name in names):
        return names
    return tuple(name.removesuffix(POSITION) for name in names)


def _frequency(options: ExportOptions, dataset: DatasetInfo | None) -> float | None:
    recorded = dataset.fps if dataset is not None else None
    if options.fps is not None and recorded is not None and abs(options.fps - recorded) > 1e-6 * recorded:
        raise ConfigurationError(
            f"--fps is {options.fps:g}, and the data set was recorded at {recorded:g} Hz: a chunk that is played at another rate"
            " moves the robot at another speed: take one of them out",
            CONTRADICTION,
        )
    return recorded if options.fps is None else options.fps


def _units(
    options: ExportOptions, names: tuple[str, ...], robot_type: str, action_dim: int
) -> tuple[str, ...]:
    units = options.units
    check_units(units, action_dim)
    if (
        len(units) != 1
        or units[0] not in ("degrees", "norm100")
        or not robot_type.startswith(PERCENT_GRIPPERS)
    ):
        return units
    each = tuple("percent" if "gripper" in name.lower() else units[0] for name in names)
    return each if "percent" in each else units


def _open_questions(
    named: bool, frequency_hz: float | None, units: tuple[str, ...],
    recorded: tuple[Doubles, Doubles] | None,
) -> Iterator[str]:  # fmt: skip
    if not named:
        yield "the names of its joints are not known, so it can only be matched by order: say --dataset DIR or --names a,b,..."
    if frequency_hz is None:
        yield "its control rate is not known: say --dataset DIR or --fps HZ"
    if not units:
        far = "" if recorded is None else _reach(*recorded)
        yield f"the units of its states and actions are not known{far}: say --units with {', '.join(UNITS)}"


def _reach(low: Doubles, high: Doubles) -> str:
    reach = float(np.max(np.abs([low, high])))
    return (
        f" (they reach {reach:.4g} in training: no radians)"
        if reach > A_TURN
        else f" (they reach {reach:.4g} in training)"
    )
