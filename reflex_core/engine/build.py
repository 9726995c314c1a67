# SPDX-License-Identifier: Apache-2.0
"""Build the serving state from settings: the policies in their slots, and the middleware chain around them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from reflex_core.chunks.smoothness import Smoothness
from reflex_core.engine.build_pair import (
    audit_changes,
    build_pair,
    build_router,
    prototype_responses,
    require_same_robot,
)
from reflex_core.engine.build_shadow import build_shadow, watch_divergence
from reflex_core.engine.build_shared import (
    build_admission,
    build_cloud,
    build_deadline,
    build_guard,
    build_history,
    build_intake,
    build_recorders,
    build_tracing,
    describe_session,
    require_gripper_ends,
)
from reflex_core.engine.build_slot import build_slot
from reflex_core.engine.episode_listener import episode_listeners
from reflex_core.engine.load_policy import LoadedPolicy, load
from reflex_core.engine.serving_state import EngineContext, PolicySlot, ServingState
from reflex_core.engine.which_exports import PROD, chosen
from reflex_core.policy.providers import wants_gpu
from reflex_core.records.trace.notes import outcome_record
from reflex_core.records.trace.writer import TraceWriter
from reflex_core.settings.table import Settings
from reflex_core.slots.memory import require_room
from reflex_core.slots.outcomes import Outcome, Outcomes
from reflex_core.values import Request, Served
from reflex_core.wedges.injected_latency import Latency
from reflex_core.wedges.order import middleware_chain
from reflex_core.wedges.telemetry import Listener, Telemetry
from reflex_core.wedges.wedge import Wedge


def assemble(settings: Settings, around: EngineContext) -> ServingState:
    """Load everything the settings name. Raises ConfigurationError, and leaves nothing open then."""
    with ExitStack() as opened:
        loaded = _assembled(settings, around, opened)
        return replace(loaded, close=opened.pop_all().close)


def _assembled(settings: Settings, around: EngineContext, opened: ExitStack) -> ServingState:
    choice, metrics = chosen(settings), around.metrics
    if choice.several:
        require_room(choice.paths, gpu=wants_gpu(settings.device, settings.providers))
    metrics.breaker_state.clear()  # a slot of the load before would stay in it
    found = {name: _load(settings, path, around, opened) for name, path in choice.exports.items()}
    policy = next(iter(found.values())).policy
    for one in found.values():
        require_same_robot(policy, one.policy)
    require_gripper_ends(settings, policy)
    embodiment = policy.binding.embodiment
    robot = embodiment.name if embodiment else "none"
    slots = {
        name: build_slot(name, one, robot, lambda request: guard.hold_position(request), around, opened)
        for name, one in found.items()
    }
    pair = build_pair(settings, slots, robot, around) if len(slots) > 1 else None
    router = build_router(slots, pair) if pair is not None else None
    prototype = prototype_responses(slots, router)
    guard = build_guard(settings, policy, prototype, around)
    cloud = build_cloud(settings, policy, robot, around)
    if cloud is not None:
        opened.callback(cloud.close)
    session = describe_session(settings, slots, guard.limits)
    recorders = build_recorders(settings, slots, session)
    for recorder in recorders:
        opened.callback(recorder.close)
    if settings.otel_endpoint:
        tracing = build_tracing(settings, slots, robot, around)
        opened.callback(tracing.close)
        recorders = (*recorders, tracing)
    if pair is not None:
        audit_changes(pair, recorders)
    trace = next((recorder for recorder in recorders if isinstance(recorder, TraceWriter)), None)
    motion = Smoothness([end.component_idx for end in embodiment.two_ended] if embodiment else [])
    shadow, shadow_policy, watch_shadow = build_shadow(settings, choice, trace, around, opened)
    watch_other = watch_divergence(settings, slots, pair, around, opened) if pair else None
    trackers: list[Listener] = [
        *_learning(found),
        *(slot.rtc.delivered for slot in slots.values() if slot.rtc),
        *(slot.ensemble.delivered for slot in slots.values() if slot.ensemble),
    ]
    outcomes = _outcomes(slots, trace, around)
    trackers += [
        motion,
        outcomes.answered,
        *(listener for listener in (watch_shadow, watch_other) if listener is not None),
    ]
    if pair is not None:
        trackers.append(pair.monitor.answered)
    telemetry = Telemetry(
        robot, {name: slot.policy.export.model_id for name, slot in slots.items()}, metrics, around.listeners,
        recorders, trace.next_seq if trace else None, trackers,
    )  # fmt: skip
    others = [shadow_policy] if shadow_policy is not None else []
    history = build_history([*(slot.policy for slot in slots.values()), *others], around)
    intake = build_intake(settings, slots)
    wedges: dict[str, Wedge | None] = {
        "history": history,
        "telemetry": telemetry,
        "admission": (admission := build_admission(settings, slots, robot, intake, around)),
        "latency": Latency(lambda: around.live().inject_latency_ms),
        "guard": guard,
        "deadline": (deadline := build_deadline(guard, robot, prototype, around)),
        "cloud": cloud,
    }
    inner = {"router": router} if router is not None else dict(slots[PROD].wedges)
    opened.callback(deadline.close)
    built = {place: wedge for place, wedge in (wedges | inner).items() if wedge is not None}
    metrics.recorders.watched = recorders
    metrics.motion.figures = motion.figures
    metrics.policy_split.set(settings.split if pair is not None else 100)
    metrics.robot_info.clear()
    metrics.robot_info.labels(settings.robot_id, robot, policy.export.model_id).set(1)
    return ServingState(
        slots=slots,
        embodiment=embodiment,
        telemetry=telemetry,
        guard=guard,
        intake=intake,
        admission=admission,
        deadline=deadline,
        cloud=cloud,
        recorders=recorders,
        motion=motion,
        outcomes=outcomes,
        wedges=built,
        act=middleware_chain(built),
        session=session,
        episode_listeners=episode_listeners(
            guard, deadline, [(slot.rtc, slot.cache, slot.ensemble) for slot in slots.values()], history
        ),
        history=history,
        pair=pair,
        shadow=shadow,
        shadow_policy=shadow_policy,
    )


def _load(settings: Settings, path: str, around: EngineContext, opened: ExitStack) -> LoadedPolicy:
    began = time.perf_counter()
    found = load(replace(settings, export_dir=path), around.metrics, around.connect_remote)
    opened.callback(found.close)
    if found.tracker is not None:
        opened.callback(found.tracker.close)
    took_s = time.perf_counter() - began
    around.metrics.onnx_load_time_s.labels(found.policy.export.model_id).observe(took_s)
    return found


def _learning(found: Mapping[str, LoadedPolicy]) -> list[Listener]:
    """Return the latency trackers of the slots, each a listener for its own slot alone."""

    def of(name: str, tracker: Listener) -> Listener:
        def learn(request: Request, served: Served) -> None:
            if served.slot == name:
                tracker(request, served)

        return learn

    return [of(name, one.tracker) for name, one in found.items() if one.tracker is not None]


def _outcomes(slots: Mapping[str, PolicySlot], trace: TraceWriter | None, around: EngineContext) -> Outcomes:
    """Return the store of episode outcomes, which feeds the trace, the metrics, and the correction head of the slot."""

    def listen(outcome: Outcome, new: bool) -> None:
        if trace is not None:
            trace.note(lambda timestamp: outcome_record(outcome, timestamp))
        if not new:
            return
        around.metrics.episode_outcomes.labels(outcome.slot or "none", str(outcome.success).lower()).inc()
        slot = slots.get(outcome.slot)
        if slot is not None and slot.a2c2 is not None:
            slot.a2c2.report(outcome.success)

    return Outcomes([listen])
