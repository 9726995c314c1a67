# SPDX-License-Identifier: Apache-2.0
"""Numbers of the state that never moved in training: elsewhere, normalisation makes millions of a milliradian."""

from __future__ import annotations

import logging

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.export.binding import Binding
from reflex_core.export.contract import StateSlot
from reflex_core.text.rate_limit import RateLimit
from reflex_core.values import Floats

log = logging.getLogger(__name__)


class Constants:
    """The constants of one policy's state. Thread-safe. passes: let states through that are off them, with a log line.

    notes: for the log at start.
    """

    def __init__(self, slot: StateSlot | None, binding: Binding, *, passes: bool) -> None:
        sees = slot is not None and (slot.input is not None or slot.bins > 0)
        self._statistics = binding.seen_statistics if sees else None
        self._names, self._seen, self.passes = binding.seen_names, binding.seen, passes
        self._rate_limit = RateLimit()
        constant = None if self._statistics is None else self._statistics.constant
        still = [] if constant is None else np.flatnonzero(constant).tolist()
        then = "is passed on as the formula gives it" if passes else "is refused (setting constant_state)"
        self.notes: tuple[str, ...] = ()
        if still:
            names = ", ".join(self._named(index) for index in still[:8])
            self.notes = (f"{names} of its state never moved in training: a state that is elsewhere {then}",)

    def check(self, state: Floats | None) -> None:
        """Raise ObservationError for a state of the policy's length that is off a constant, unless those pass."""
        statistics = self._statistics
        if state is None or statistics is None:
            return
        state = self._seen(state)
        if state.shape != (statistics.dim,):
            return
        index = statistics.moved(state)
        if index is None:
            return
        constant = statistics.shift[index]
        message = f"the state's {self._named(index)} is {state[index]:.7g}, and all through training it was {constant:.7g}"
        if not self.passes:
            raise ObservationError(
                f"{message}: the policy has not seen it move (setting constant_state: pass lets it through)",
                "state-off-constant",
            )
        times = self._rate_limit.times()
        if times:
            log.warning("%s: passed on (%d times since the last log line)", message, times)

    def _named(self, index: int) -> str:
        return f"number {index} ({self._names[index]})" if index < len(self._names) else f"number {index}"
