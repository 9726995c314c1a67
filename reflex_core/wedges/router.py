# SPDX-License-Identifier: Apache-2.0
"""The router: choose the policy slot of the episode, and leave out a slot whose breaker is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from reflex_core.errors import CancelledError, NotReadyError, ObservationError
from reflex_core.reports import RoutingReport
from reflex_core.slots.health import DEGRADED, SlotBreaker, is_out, verdict
from reflex_core.slots.routing import SLOTS, A, B, Routing, other
from reflex_core.values import Request, Served
from reflex_core.wedges.wedge import Proceed

RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One policy and what is around it alone. act: its breaker, its correction, its network, in this order."""

    act: Proceed
    breaker: SlotBreaker | None = None


def _ignore(_: str) -> None:
    pass


class Router:
    """The innermost wedge of two policies: each slot's own wedges are inside `Slot.act`.

    on_failure receives the slot whenever its model failed. Raises NotReadyError when both slots are out.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        routing: Routing,
        on_failure: Callable[[str], None] = _ignore,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        if set(slots) != set(SLOTS):
            raise ValueError(f"the router takes slots {' and '.join(SLOTS)}, got {', '.join(sorted(slots))}")
        self._slots, self._routing = slots, routing
        self._on_failure, self._retry_after_s = on_failure, retry_after_s

    @property
    def verdict(self) -> str:
        """healthy, drain-a, drain-b or degraded, from the two breakers as they stand."""
        return verdict(*(is_out(self._slots[name].breaker) for name in (A, B)))

    def expected(self, request: Request) -> RoutingReport:
        """Return the routing that the answer would have, without deciding it."""
        decision = self._routing.expected(request.episode_id, request.request_id)
        if self._is_out(decision.slot) and not self._is_out(other(decision.slot)):
            decision = replace(decision, slot=other(decision.slot), cached=False)
        return replace(decision, crash_verdict=self.verdict)

    def __call__(self, request: Request, proceed: Proceed) -> Served:  # noqa: ARG002  (innermost, like the policy)
        decision = self._routing.decide(request.episode_id, request.request_id)
        if self._is_out(decision.slot):
            decision = self._drained(request, decision)
        try:
            return self._act(request, decision)
        except NotReadyError:
            if not self._is_out(decision.slot):
                raise
            # its breaker opened after it was looked at; nothing has run, so that the other slot may answer
            return self._act(request, self._drained(request, decision))

    def _is_out(self, slot: str) -> bool:
        return is_out(self._slots[slot].breaker)

    def _act(self, request: Request, decision: RoutingReport) -> Served:
        routing = replace(decision, crash_verdict=self.verdict)
        try:
            served = self._slots[decision.slot].act(request)
        except (ObservationError, NotReadyError, CancelledError):
            raise
        except Exception:
            self._on_failure(decision.slot)
            raise
        return replace(served, slot=decision.slot, routing=routing)

    def _drained(self, request: Request, decision: RoutingReport) -> RoutingReport:
        """Route the request to the other slot. Raises NotReadyError when that is out too."""
        slot = other(decision.slot)
        if self._is_out(slot):
            raise NotReadyError(
                DEGRADED,
                "both policy slots failed too often in a row; each is tried again with its canary after the cooldown",
                "server-degraded",
                self._retry_after_s,
            )
        if request.episode_id:
            self._routing.move(request.episode_id, slot)
        return replace(decision, slot=slot, cached=False)
