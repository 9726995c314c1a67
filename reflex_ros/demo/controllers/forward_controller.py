# SPDX-License-Identifier: Apache-2.0
"""forward_command_controller (and JointGroupPositionController, ...VelocityController), as Jazzy's behave.

No stamp, no names, no interpolation, no limit, no timeout: the last values are commanded for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from reflex_ros.demo.controllers.points import Floats

POSITION, VELOCITY = "position", "velocity"


class ForwardCommandController:
    """Commands its joints what it was last sent. failure: why the controller manager deactivated it; empty while active."""

    def __init__(self, joints: Sequence[str], interface: str = POSITION) -> None:
        """Create it active. interface: which of POSITION and VELOCITY its values are."""
        self.joints, self.interface = tuple(joints), interface
        self.dropped = 0
        self.failure = ""
        self._values: Floats | None = None

    def activate(self) -> None:
        """Activate it again: nothing is commanded until a message comes."""
        self.failure, self._values = "", None

    def set(self, values: ArrayLike) -> None:
        """Take the data of a message. Values that are not finite are dropped and counted."""
        data = np.array(values, dtype=np.float64)
        if not np.isfinite(data).all():
            self.dropped += 1
            return
        if not self.failure:
            self._values = data

    def sample(self) -> Floats | None:
        """Return what is commanded, in the order of the joints; None before a message, and while it is not active.

        Data of another length ends it: its update fails, and the controller manager deactivates it.
        """
        if self._values is not None and len(self._values) != len(self.joints):
            self.failure = (
                f"Expected {len(self.joints)} values, one per joint, got {len(self._values)}: deactivated."
            )
            self._values = None
        return None if self._values is None else self._values.copy()

    def parameters(self) -> dict[str, str | list[str]]:
        """Return its ROS parameters."""
        return {"joints": list(self.joints), "interface_name": self.interface}
