# SPDX-License-Identifier: Apache-2.0
"""Two policies that share the episodes of one robot: what is made only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

from reflex_core.engine.serving_state import EngineContext, PolicySlot
from reflex_core.engine.which_exports import PROD
from reflex_core.errors import ConfigurationError
from reflex_core.policy.base import Policy
from reflex_core.records.audit.log import AuditLog
from reflex_core.records.recorder import Recorder
from reflex_core.settings.table import Settings
from reflex_core.slots.changing import Operating, Swap
from reflex_core.slots.health import is_out
from reflex_core.slots.monitor import Monitor, Tripwires
from reflex_core.slots.pair import Pair
from reflex_core.slots.routing import Routing, other
from reflex_core.values import Request, Served
from reflex_core.wedges.predict import prototype
from reflex_core.wedges.router import Router, Slot


def require_same_robot(first: Policy, other: Policy) -> None:
    """Raise ConfigurationError when two policies move different robots, or see them with different eyes."""
    a, b = first.binding, other.binding
    for what, one, two in (
        ("embodiment", a.embodiment and a.embodiment.name, b.embodiment and b.embodiment.name),
        ("action names", a.action_names, b.action_names),
        ("state names", a.state_names, b.state_names),
        ("seconds per action", a.dt_s, b.dt_s),
        ("cameras", sorted(set(a.cameras.values())), sorted(set(b.cameras.values()))),
    ):
        if one != two:
            raise ConfigurationError(
                f"{other.export.where} is for another robot than {first.export.where}: its {what} are {two!r:.300},"
                f" expected {one!r:.300}; give both one --custom-embodiment-config",
                "policies-differ",
            )


def build_pair(
    settings: Settings, slots: Mapping[str, PolicySlot], robot: str, around: EngineContext
) -> Pair:
    """Build the share of each slot, the routing by it, and the monitor after a change, with their metrics."""
    operating = Operating(settings.split, is_out=lambda name: is_out(slots[name].breaker))
    routing = Routing(operating.split)
    operating.attach(routing)
    limit = settings.rollback_divergence or None
    monitor = Monitor(lambda why: operating.rollback(why, "monitor"), Tripwires(divergence_limit=limit))
    operating.listen(monitor.swapped)
    metrics, models = around.metrics, {name: slot.policy.export.model_id for name, slot in slots.items()}

    def count(swap: Swap) -> None:
        metrics.policy_split.set(swap.to_split)
        metrics.model_swaps.labels(robot, models[other(swap.gains)], models[swap.gains]).inc()

    operating.listen(count)
    return Pair(operating, routing, monitor)


def audit_changes(pair: Pair, recorders: Sequence[Recorder]) -> None:
    """Write every change of split to the audit log."""
    for recorder in recorders:
        if isinstance(recorder, AuditLog):
            pair.operating.listen(partial(_audit, recorder))


def _audit(log_: AuditLog, swap: Swap) -> None:
    fields = asdict(swap)
    log_.event("policy-swap", change=fields.pop("kind"), **fields)


def build_router(slots: Mapping[str, PolicySlot], pair: Pair) -> Router:
    """Build the router, the innermost of the shared wedges, with both slots behind it."""
    behind = {name: Slot(slot.act, slot.breaker) for name, slot in slots.items()}
    return Router(behind, pair.routing, pair.monitor.failed)


def prototype_responses(
    slots: Mapping[str, PolicySlot], router: Router | None
) -> Callable[[Request], Served]:
    """Return a function that makes the response without inference of the slot that was to answer a request."""
    prototypes = {name: prototype(slot.policy, name) for name, slot in slots.items()}
    if router is None:
        return lambda _: prototypes[PROD]

    def prototype_of(request: Request) -> Served:
        routing = router.expected(request)
        return replace(prototypes[routing.slot], routing=routing)

    return prototype_of
