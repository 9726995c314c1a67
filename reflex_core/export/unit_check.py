# SPDX-License-Identifier: Apache-2.0
"""Whether the numbers of a policy that does not say its units are the robot's: rad and m, and positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ConfigurationError
from reflex_core.export import action_space
from reflex_core.export.declared_units import KEY, declares_units
from reflex_core.export.export import Affine, Export
from reflex_core.export.relative import Relative
from reflex_core.robot.embodiment import Embodiment

# no joint's range is this far from what it was trained on: a few times the range, and more than a turn
MOST_OF_THE_RANGE = 3.0
A_TURN = 2 * math.pi
# a joint that is commanded positions is measured around them; both deviations together, and rad or m, by which it is not
MOST_DEVIATIONS, MOST_BESIDE = 2.0, 0.3


def check_units(
    export: Export, embodiment: Embodiment | None, names: tuple[str, ...], actions: Affine | None,
    states: Affine | None, relative: Relative | None, moded: Sequence[bool] = (),
) -> None:  # fmt: skip
    """Raise ConfigurationError where the statistics are of degrees, percent, or steps in place of positions.

    actions: of the robot's actions. states: of the numbers of the state that measure them, None where that is not known.
    Both None where the statistics are not the export's own. moded: which actions the export says the mode of; () none.
    What the export declares itself is trusted.
    """
    if declares_units(export) or embodiment is None:
        return
    for statistics, what in ((actions, "actions"), (states, "states")):
        if statistics is not None:
            _check_reach(export, embodiment, names, statistics, what)
    if actions is not None:
        _check_positions(export, embodiment, names, actions, relative)
    if actions is not None and states is not None:
        _check_measured(export, embodiment, names, actions, states, relative, moded)


def _check_reach(
    export: Export, embodiment: Embodiment, names: tuple[str, ...], statistics: Affine, what: str
) -> None:
    reach: NDArray[np.float64] = np.abs(statistics.shift) + np.abs(statistics.back)
    allowed = np.maximum(np.abs(embodiment.action_min), np.abs(embodiment.action_max))
    far = reach > np.maximum(MOST_OF_THE_RANGE * allowed, A_TURN)
    if not far.any():
        return
    joint = int(np.flatnonzero(far)[0])
    raise ConfigurationError(
        f"{export.path}: its {what} of {names[joint]} reach {reach[joint]:.4g} in its statistics, embodiment '{embodiment.name}'"
        f" allows {embodiment.action_min[joint]:g} to {embodiment.action_max[joint]:g}: degrees or percent:"
        f' write its "{KEY}" (radians, degrees, percent, norm100) into {export.config_path.name}',
        "action-range-mismatch",
    )


def _check_positions(
    export: Export, embodiment: Embodiment, names: tuple[str, ...], actions: Affine, relative: Relative | None
) -> None:
    """Check the range of positions; a mean of 0 with a deviation of 1 may also mean that nothing is normalised."""
    low, high = embodiment.action_min, embodiment.action_max
    deviation = np.abs(actions.scale)
    far = (actions.shift < low - deviation) | (actions.shift > high + deviation)
    if relative is not None:  # offsets lie around zero, wherever the joint's range is
        far &= relative.state_columns < 0
    if not far.any():
        return
    joint = int(np.flatnonzero(far)[0])
    raise ConfigurationError(
        f"{export.path}: its actions of {names[joint]} lie around {actions.shift[joint]:g} (deviation"
        f" {deviation[joint]:g}), embodiment '{embodiment.name}' allows {low[joint]:g} to {high[joint]:g}: other units, or"
        f' steps instead of positions; if they are positions in rad and m, write "{KEY}": "radians" into {export.config_path.name}',
        "action-range-mismatch",
    )


def _check_measured(
    export: Export, embodiment: Embodiment, names: tuple[str, ...], actions: Affine, states: Affine,
    relative: Relative | None, moded: Sequence[bool],
) -> None:  # fmt: skip
    """Raise ConfigurationError where a joint was never measured near where it would have been commanded to."""
    beside = np.abs(actions.shift - states.shift)
    far = beside > np.maximum(MOST_DEVIATIONS * (np.abs(actions.scale) + np.abs(states.scale)), MOST_BESIDE)
    far[[end.component_idx for end in embodiment.two_ended]] = (
        False  # a width may be measured, and a share commanded
    )
    # a placeholder, to which an epsilon may have been added: it was not measured there
    far &= ~(np.isclose(states.shift, 0.0, atol=1e-6) & np.isclose(np.abs(states.scale), 1.0, atol=1e-6))
    if len(moded):
        far &= ~np.array(moded)
    if relative is not None:
        far &= relative.state_columns < 0
    if not far.any():
        return
    joint = int(np.flatnonzero(far)[0])
    raise ConfigurationError(
        f"{export.path}: its actions of {names[joint]} lie around {actions.shift[joint]:g}, and the joint was measured around"
        f" {states.shift[joint]:g} (deviation {states.scale[joint]:g}): offsets, steps or velocities instead of positions; write"
        f' "{action_space.KEY}": [{{"columns": [...], "mode": "relative"}}] or what they are into {export.config_path.name},'
        ' "absolute" if they are positions',
        "action-mode-missing",
    )
