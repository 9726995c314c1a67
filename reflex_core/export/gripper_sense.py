# SPDX-License-Identifier: Apache-2.0
"""What open and closed are in a policy's numbers, and how those become positions of the gripper's joint.

Conventions contradict each other (0 is open for DROID and closed for ALOHA), so that a gripper that is a group of its own is
served only where the export says how it counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.groups import GripperEnds
from reflex_core.robot.units import Conversion

OPEN_TO_CLOSED = "open to closed"
AGREE_SHARE = 0.02  # of the travel: further apart, a unit and a sense mean different positions


@dataclass(frozen=True, slots=True)
class Sense:
    """A gripper's two ends as the policy counts them, and as its joint does in rad or m."""

    policy: GripperEnds
    joint: GripperEnds

    @property
    def factor(self) -> float:
        """Numbers of the policy per rad or m; negative where they count the other way."""
        return (self.policy.closed - self.policy.open) / (self.joint.closed - self.joint.open)

    @property
    def offset(self) -> float:
        """The policy's number at 0 rad or m."""
        return self.policy.open - self.joint.open * self.factor


def read_senses(
    contract: Contract, embodiment: Embodiment | None, columns: NDArray[np.intp]
) -> dict[int, Sense]:
    """Return the sense of the robot's columns that are grippers with one on both sides.

    columns: the export's action columns that are the robot's, in its order.
    """
    if not contract.action_space:
        return {}
    found = {}
    for at, joint in grippers(embodiment).items():
        policy = contract.action_space[columns[at]].gripper
        if policy is not None:
            found[at] = Sense(policy, joint)
    return found


def grippers(embodiment: Embodiment | None) -> dict[int, GripperEnds]:
    """Return the ends of each column that is a gripper's group; {} for schema v1, which does not say them."""
    groups = () if embodiment is None else embodiment.groups
    return {group.columns[0]: group.gripper for group in groups if group.gripper is not None}


def sensed(found: Conversion, senses: Mapping[int, Sense]) -> Conversion:
    """Return the conversion with that of the grippers in place of their unit's."""
    if not senses:
        return found
    factor, offset = found.factor.copy(), found.offset.copy()
    for at, sense in senses.items():
        factor[at], offset[at] = sense.factor, sense.offset
    return Conversion(factor, offset)


def check_senses(
    export: Export,
    senses: Mapping[int, Sense],
    names: Sequence[str],
    found: Conversion,
    declared: Sequence[bool],
) -> None:
    """Raise ConfigurationError where a gripper's unit and its sense mean different positions.

    names: of the robot's columns. found: by their units. declared: which of those the export writes.
    """
    for at, sense in senses.items():
        if not declared[at]:
            continue
        travel = abs(sense.joint.closed - sense.joint.open)
        for which, policy, joint in (
            ("open", sense.policy.open, sense.joint.open),
            ("closed", sense.policy.closed, sense.joint.closed),
        ):
            by_unit = (policy - found.offset[at]) / found.factor[at]
            if abs(by_unit - joint) > AGREE_SHARE * travel:
                raise ConfigurationError(
                    f"{export.config_path}: its {which} gripper '{names[at]}' at {policy:g} is {by_unit:.4g} rad or m by its unit,"
                    f" and {joint:g} in the embodiment: leave the unit or the sense out, or correct the embodiment's 'travel'",
                    "gripper-sense-mismatch",
                )


def require_senses(
    export: Export, embodiment: Embodiment | None, names: Sequence[str], senses: Mapping[int, Sense], declared: Sequence[bool]
) -> None:  # fmt: skip
    """Raise ConfigurationError where a gripper's group would be sent numbers of an unknown meaning."""
    for at in grippers(embodiment):
        if at not in senses and not declared[at]:
            raise unexplained(export, names[at])


def unexplained(export: Export, name: str) -> ConfigurationError:
    """Return the error of a gripper of which the export says neither sense nor unit."""
    return ConfigurationError(
        f"{export.config_path}: does not say what its numbers of the gripper '{name}' mean: write \"action_space\":"
        f' [{{"columns": ["{name}"], "gripper": {{"open": ..., "closed": ...}}}}] with what the policy gives for open and'
        " for closed, or its unit",
        "gripper-sense-missing",
    )
