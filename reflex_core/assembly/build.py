# SPDX-License-Identifier: Apache-2.0
"""From settings to something that answers: the policies in their slots, and the onion around them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from reflex_core.assembly.beside import build_shadow, watch_divergence
from reflex_core.assembly.loaded import Loaded, PolicySlot, Surroundings
from reflex_core.assembly.shared import (
    build_admission,
    build_cloud,
    build_deadline,
    build_guard,
    build_recorders,
    build_tracing,
    describe_session,
)
from reflex_core.assembly.slot import build_slot
from reflex_core.assembly.two import audit_changes, build_pair, held_by, inner_wedges, require_same_robot
from reflex_core.loading import LoadedPolicy, load
from reflex_core.motion import MotionQuality
from reflex_core.onion import onion
from reflex_core.policy.providers import wants_gpu
from reflex_core.settings import Settings
from reflex_core.slots.choice import PROD, chosen
from reflex_core.slots.memory import require_room
from reflex_core.slots.outcomes import Outcome, Outcomes
from reflex_core.slots.pair import Pair
from reflex_core.slots.records import outcome_record
from reflex_core.trace.writer import TraceWriter
from reflex_core.values import Request, Served
from reflex_core.wedges.latency import Latency
from reflex_core.wedges.telemetry import Listener, Telemetry
from reflex_core.wedges.wedge import Wedge


def assemble(settings: Settings, around: Surroundings) -> Loaded:
    """Load everything the settings name. Raises ConfigurationError in one sentence, and leaves nothing open then."""
    with ExitStack() as opened:
        loaded = _assembled(settings, around, opened)
        return replace(loaded, close=opened.pop_all().close)


def _assembled(settings: Settings, around: Surroundings, opened: ExitStack) -> Loaded:
    choice, metrics = chosen(settings), around.metrics
    if choice.several:
        require_room(choice.paths, gpu=wants_gpu(settings.device, settings.providers))
    metrics.breaker_state.clear()  # a slot of the load before would stay in it
    found = {name: _load(settings, path, around, opened) for name, path in choice.exports.items()}
    policy = next(iter(found.values())).policy
    for one in found.values():
        require_same_robot(policy, one.policy)
    embodiment = policy.fit.embodiment
    robot = embodiment.name if embodiment else "none"
    guard = build_guard(settings, policy, around)
    slots = {
        name: build_slot(name, one, robot, guard.hold_position, around, opened) for name, one in found.items()
    }
    pair = build_pair(settings, slots, robot, around) if len(slots) > 1 else None
    cloud = build_cloud(settings, policy, robot, around)
    if cloud is not None:
        opened.callback(cloud.close)
    session = describe_session(settings, slots)
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
    ends = (embodiment.gripper, embodiment.payload_release) if embodiment else ()
    motion = MotionQuality([end.component_idx for end in ends if end is not None])
    shadow, shadow_policy = build_shadow(settings, choice, trace, around, opened)
    watch = watch_divergence(settings, slots, pair, metrics, opened) if pair else None
    trackers: list[Listener] = [
        *_learning(found),
        *(slot.rtc.delivered for slot in slots.values() if slot.rtc),
    ]
    trackers += [motion, *(listener for listener in (shadow, watch) if listener is not None)]
    if pair is not None:
        trackers.append(pair.monitor.answered)
    telemetry = Telemetry(
        robot, {name: slot.policy.export.model_id for name, slot in slots.items()}, metrics, around.listeners,
        recorders, trace.next_seq if trace else None, trackers,
    )  # fmt: skip
    wedges: dict[str, Wedge | None] = {
        "telemetry": telemetry,
        "admission": (admission := build_admission(settings, slots, robot, around)),
        "latency": Latency(lambda: around.live().inject_latency_ms),
        "guard": guard,
        "deadline": (deadline := build_deadline(guard, robot, held_by(slots, pair), around)),
        "cloud": cloud,
    }
    built = {place: wedge for place, wedge in wedges.items() if wedge is not None} | inner_wedges(slots, pair)
    metrics.recorders.watched = recorders
    metrics.motion.figures = motion.figures
    metrics.robot_info.clear()
    metrics.robot_info.labels(settings.robot_id, robot, policy.export.model_id).set(1)
    return Loaded(
        slots=slots,
        embodiment=embodiment,
        telemetry=telemetry,
        guard=guard,
        admission=admission,
        deadline=deadline,
        cloud=cloud,
        recorders=recorders,
        motion=motion,
        outcomes=_outcomes(slots, pair, trace, around),
        wedges=built,
        act=onion(built),
        session=session,
        pair=pair,
        shadow=shadow,
        shadow_policy=shadow_policy,
    )


def _load(settings: Settings, path: str, around: Surroundings, opened: ExitStack) -> LoadedPolicy:
    began = time.perf_counter()
    found = load(replace(settings, export_dir=path), around.metrics)
    if found.tracker is not None:
        opened.callback(found.tracker.close)
    took_s = time.perf_counter() - began
    around.metrics.onnx_load_time_s.labels(found.policy.export.model_id).observe(took_s)
    return found


def _learning(found: Mapping[str, LoadedPolicy]) -> list[Listener]:
    """The trackers of the slots' latencies; each hears of its own slot alone."""

    def of(name: str, tracker: Listener) -> Listener:
        def learn(request: Request, served: Served) -> None:
            if served.slot == name:
                tracker(request, served)

        return learn

    return [of(name, one.tracker) for name, one in found.items() if one.tracker is not None]


def _outcomes(
    slots: Mapping[str, PolicySlot], pair: Pair | None, trace: TraceWriter | None, around: Surroundings
) -> Outcomes:
    """How episodes ended goes to the trace, the metrics, and to the correction head of the slot."""

    def listen(outcome: Outcome) -> None:
        slot = slots.get(outcome.slot)
        if slot is not None and slot.a2c2 is not None:
            slot.a2c2.report(outcome.success)
        around.metrics.episode_outcomes.labels(outcome.slot or "unknown", str(outcome.success).lower()).inc()
        if trace is not None:
            trace.note(lambda timestamp: outcome_record(outcome, timestamp))

    slot_of = pair.routing.slot if pair is not None else lambda _: PROD
    return Outcomes(slot_of, [listen])
