# SPDX-License-Identifier: Apache-2.0
"""Match the cameras of an export with those of a robot."""

from __future__ import annotations

from collections.abc import Mapping

from reflex_core.errors import ConfigurationError
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.robot.embodiment import Embodiment


def cameras_of(export: Export, contract: Contract, embodiment: Embodiment | None) -> dict[str, str]:
    """Return the robot's camera for each of the policy's: by name; where no name agrees, in the order in which both sides list their cameras.

    Raises ConfigurationError where the robot has none for one that is required.
    """
    wanted = [slot.camera for slot in contract.images if slot.camera is not None]
    if embodiment is None:
        return {name: name for name in wanted}
    have = [camera.name for camera in embodiment.cameras]
    pairs = {name: name for name in wanted if name in have}
    if not pairs:
        pairs = dict(zip(wanted, have, strict=False))
    required = unfed(contract, pairs, required=True)
    if required:
        raise ConfigurationError(
            f"{export.where}: the policy needs camera '{required[0]}', embodiment '{embodiment.name}' has {', '.join(have)}",
            "camera-mismatch",
        )
    return pairs


def unfed(contract: Contract, pairs: Mapping[str, str], *, required: bool = False) -> tuple[str, ...]:
    """Return the policy's cameras that no camera of the robot feeds; of the required ones only, where requested."""
    return tuple(
        slot.camera
        for slot in contract.images
        if slot.camera is not None and slot.camera not in pairs and (slot.required or not required)
    )
