# SPDX-License-Identifier: Apache-2.0
"""Publish /diagnostics: one status per concern, with the sentence an operator needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from reflex_core.engine.engine import DEGRADED, READY, Engine
from reflex_core.engine.serving_state import PolicySlot, ServingState
from reflex_core.metrics.recorders import Watched
from reflex_core.policy.remote import RemotePolicy
from reflex_core.robot.joint_gate import Implausible
from reflex_core.settings.table import Settings
from reflex_core.text.untrusted import escaped
from reflex_core.values import ROS
from reflex_ros.messages.limit_text import range_values
from reflex_ros.node.chunk_loop import ChunkLoop
from reflex_ros.node.holds import STOPPED
from reflex_ros.node.progress import Progress
from reflex_ros.node.watchdog import TEXTS as WATCHDOG_TEXTS

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

CALLERS_NAMED = 5
SKEW_AHEAD_S = 0.02  # a stamp from the future is no delay; clocks that are kept together differ by less
SKEW_BEHIND_S = 0.05  # joint states need a few milliseconds on any network
WAITING = ("camera_missing", "state_missing", "no_instruction")  # nothing is wrong yet when nothing ever ran


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnostic array."""

    concern: str
    level: bytes
    message: str
    values: Mapping[str, object]


def array_message(findings: list[Finding], node: str, hardware_id: str) -> DiagnosticArray:
    """Return the findings as a message; the caller stamps it."""
    message = DiagnosticArray()
    for finding in findings:
        values = [KeyValue(key=key, value=str(value)) for key, value in finding.values.items()]
        message.status.append(
            DiagnosticStatus(
                level=finding.level,
                name=f"{node}: {finding.concern}",
                message=finding.message,
                hardware_id=hardware_id,
                values=values,
            )
        )
    return message


def policy_finding(engine: Engine, refusal: str) -> Finding:
    """Report whether a policy is loaded and serving."""
    description = engine.description()
    shown = ("model_version", "embodiment", "inference_mode", "config_hash")
    values: dict[str, object] = {key: description[key] for key in shown if key in description}
    if "active_providers" in description:
        values["active_providers"] = ", ".join(description["active_providers"])
    unfed = ", ".join(description.get("unfed_cameras", ()))
    if unfed:
        values["masked cameras"] = unfed
    problem = refusal or engine.reason
    level = OK if engine.state == READY else ERROR if problem or engine.state == DEGRADED else WARN
    message = f"{engine.state}; no camera of the robot feeds {unfed}" if unfed else engine.state
    return Finding("policy", level, problem or message, values | {"state": engine.state})


def trouble(loop: ChunkLoop) -> str:
    """Return why no fresh chunk comes, "slug: sentence", and why no hold was possible; empty when chunks are fresh."""
    progress = loop.progress
    also = f"; {progress.unheld_text}" if progress.unheld_text else ""
    if loop.stopped:
        then = (
            "call ~/resume to go on"
            if loop.stop_reason == STOPPED
            else "send a goal to ~/run_policy, or call ~/resume"
        )
        return f"{loop.stop_reason}: {then}{also}"
    return f"{progress.problem}: {progress.problem_text}{also}" if progress.problem else ""


def command_finding(others: Sequence[str], topics: Sequence[str]) -> Finding:
    """Report whether this is the only policy that commands the robot."""
    values: dict[str, object] = {"topic": ", ".join(topics), "others": ", ".join(others) or "none"}
    if others:
        message = f"the robot holds: {', '.join(others)} commands it too, on {values['topic']}; end one, then call ~/resume"
        return Finding("commands", ERROR, message, values)
    return Finding("commands", OK, "this policy alone", values)


def undrivable_finding(why: str) -> Finding:
    """Report why this node commands no robot with what is loaded."""
    return Finding("commands", WARN, f"no robot is commanded: {why}", {})


def dry_run_finding(moved: Mapping[str, str], *, first_motion: bool) -> Finding:
    """Report that nothing is commanded, and what the readings of each joint have shown while a person moved it.

    first_motion: just now the robot is moved, on request.
    """
    if first_motion:
        return Finding("commands", WARN, "DRY RUN: the first motion moves the robot; ~/stop ends it", moved)
    text = (
        "DRY RUN: no robot is commanded; what would be is on ~/dry_run; move each joint by hand, the values say what it reads;"
        " then call ~/first_motion"
    )
    return Finding("commands", WARN, text, moved)


def connection_finding(topics: Mapping[str, str], unheard: Sequence[str]) -> Finding:
    """Report the subscribed topics, and publishers on them with incompatible QoS.

    topics: resolved names by stream. unheard: a sentence for each such publisher.
    """
    if unheard:
        return Finding("connections", WARN, "; ".join(unheard), topics)
    return Finding("connections", OK, "every publisher is heard", topics)


def observation_finding(loop: ChunkLoop, ages_ms: Mapping[str, float]) -> Finding:
    """Report whether the sensors deliver observations that may be acted on."""
    progress = loop.progress
    values: dict[str, object] = {f"{stream} age ms": f"{age:.0f}" for stream, age in ages_ms.items()}
    values |= {"refused": progress.refused, "chunks": progress.chunks, "discarded": progress.discarded}
    if loop.stopped:
        return Finding("observations", WARN if loop.stop_reason == STOPPED else OK, trouble(loop), values)
    if not progress.problem:
        return Finding("observations", OK, "fresh", values)
    waiting = progress.problem in WAITING and progress.chunks == 0
    level = WARN if waiting else ERROR
    return Finding("observations", level, trouble(loop), values)


def plausibility_finding(fault: Implausible | None, publishers: Sequence[str]) -> Finding:
    """Report whether the joints can be where they report to be. publishers: of joint states, found only on a fault."""
    if fault is None:
        return Finding("measured state", OK, "plausible", {})
    expected = "unknown" if fault.expected is None else f"{fault.expected:.6g}"
    values: dict[str, object] = {"joint": fault.joint, "value": f"{fault.reading:.6g}", "expected": expected}
    message = f"{fault.reason}: {fault.text}"
    if len(publishers) > 1:
        values["publishers"] = ", ".join(publishers)
        message += f"; {len(publishers)} publish joint states: {', '.join(publishers)}"
    return Finding("measured state", ERROR, message, values)


def tracking_finding(error: str) -> Finding:
    """Report whether the joints follow their commands. error: which one does not, and by how much."""
    if error:
        return Finding("tracking", WARN, error, {})
    return Finding("tracking", OK, "every joint is near its command", {})


def clock_finding(smallest_s: Mapping[str, float]) -> Finding:
    """Report whether the sensors' clocks agree with this machine's. smallest_s: the least age on arrival by stream."""
    values: dict[str, object] = {
        f"{stream} least age ms": f"{age * 1e3:.1f}" for stream, age in smallest_s.items()
    }
    ahead = {stream: -age for stream, age in smallest_s.items() if age < -SKEW_AHEAD_S}
    if ahead:
        worst = max(ahead, key=lambda stream: ahead[stream])
        message = (
            f"the stamps of {worst} are at least {ahead[worst] * 1e3:.0f} ms in the future: the clock of this machine is"
            " behind the sensor's, and controllers may refuse chunks as over; synchronise the clocks (chrony, PTP)"
        )
        return Finding("clocks", WARN, message, values)
    behind = smallest_s.get("state", 0.0)
    if behind > SKEW_BEHIND_S:
        message = (
            f"no state was younger than {behind * 1e3:.0f} ms when it came: its transport is slow, or the clock of this"
            " machine is ahead of the robot's; synchronise the clocks (chrony, PTP)"
        )
        return Finding("clocks", WARN, message, values)
    return Finding("clocks", OK, "agree as far as stamps show", values)


def watchdog_finding(barking: str) -> Finding:
    """Report whether the chunk loop runs. barking: why the watchdog holds the robot, or ""."""
    if barking:
        return Finding("chunk loop", ERROR, f"{barking}: {WATCHDOG_TEXTS[barking]}", {})
    return Finding("chunk loop", OK, "in time", {})


def takeover_finding(loop: ChunkLoop) -> Finding:
    """Report who commands the robot, and why a person who would is not followed."""
    progress = loop.progress
    values: dict[str, object] = {
        "commands": progress.control, "takeovers": progress.takeovers, "answers watched": progress.watched,
        "policy's motion": f"{progress.blend:.0%}",
    }  # fmt: skip
    if progress.takeover_problem:
        return Finding("takeover", WARN, f"a person is not followed: {progress.takeover_problem}", values)
    if loop.takeover.active:
        slower = (
            ""
            if progress.takeover_pace == 1.0
            else f", at {progress.takeover_pace:.0%} of the speed for the limits of the tool"
        )
        return Finding("takeover", OK, f"a person commands the robot{slower}", values)
    return Finding("takeover", OK, "the policy commands the robot", values)


def timing_finding(loop: ChunkLoop, loaded: ServingState, settings: Settings) -> Finding:
    """Report whether inference keeps up with the robot, its deadline and its latency objective."""
    p50, p99 = loaded.telemetry.percentiles_ms(50, 99)
    deadline, admission = loaded.deadline, loaded.admission
    window = admission.window
    measured = {} if window is None else {f"{window.slo.name} of a minute ms": f"{window.measured_ms:.1f}"}
    values: dict[str, object] = {
        "latency p50 ms": f"{p50:.1f}",
        "latency p99 ms": f"{p99:.1f}",
        "errors": loop.progress.errors,
        "deadline ms": settings.deadline_ms or "none",
        "deadline misses": deadline.misses,
        "fallbacks": loop.progress.fallbacks,
        "objective": settings.slo or "none",
        **measured,
    }
    if window is not None and admission.violated:
        message = f"{window.slo.name} is {window.measured_ms:.0f} ms, the objective is {window.slo.threshold_ms:g} ms"
        refusing = admission.mode == "503"
        then = "no inference until it is met again" if refusing else f"mode {admission.mode}"
        return Finding("timing", ERROR if refusing else WARN, f"{message}: {then}", values)
    if loop.progress.problem == "deadline":
        return Finding("timing", WARN, f"deadline missed: {loop.progress.problem_text}", values)
    if not loop.scheduler.keeps_up(settings.margin_ms * 1e-3):
        slow = "inference is slower than a chunk lasts: the robot pauses between chunks"
        return Finding("timing", WARN, slow, values)
    return Finding("timing", OK, f"chunk in {p50:.0f} ms", values)


def wedge_findings(loaded: ServingState, progress: Progress, recorders: Sequence[Watched]) -> list[Finding]:
    """Report the state of guard, breaker and recorders, and whether an operator must act."""
    return [
        _guard(loaded, progress),
        *(_breaker(slot, loaded) for slot in loaded.slots.values()),
        _cache(loaded),
        *_servers(loaded),
        _cloud(loaded),
        _recorders(recorders),
    ]


def _cache(loaded: ServingState) -> Finding:
    caches = {name: slot.cache for name, slot in loaded.slots.items() if slot.cache is not None}
    if not caches:
        return Finding("cache", OK, "off", {})
    values: dict[str, object] = {}
    for slot, cache in caches.items():
        values |= {f"{slot} {what}": count for what, count in cache.counts.items()}
        values[f"{slot} size MB"] = f"{cache.size_bytes / 1e6:.1f}"
    hits = sum(cache.counts.get("hit", 0) for cache in caches.values())
    return Finding("cache", OK, f"{hits} prefixes were not computed again", values)


def queue_finding(engine: Engine) -> Finding:
    """Report whether requests over HTTP wait."""
    inside, threads = _total(engine.metrics.in_flight), engine.settings.http_threads
    turned_away = sum(
        _total(engine.metrics.errors, {"slug": slug}) for slug in ("queue_full", "too_many_requests")
    )
    values = {
        "requests in the engine": inside,
        "threads for HTTP": threads if engine.settings.http else 0,
        "turned away": turned_away,
    }
    if engine.settings.http and inside >= threads:
        return Finding("queue", WARN, f"{inside} requests at a time: every HTTP thread is taken", values)
    return Finding("queue", OK, f"{inside} requests in the engine", values)


def _total(family: Any, labels: Mapping[str, str] | None = None) -> int:
    """Return the sum of a counter or gauge over all label values, or over those of `labels`."""
    wanted = (labels or {}).items()
    samples: Iterable[Any] = (sample for metric in family.collect() for sample in metric.samples)
    return int(sum(
        sample.value for sample in samples
        if not sample.name.endswith("_created") and wanted <= sample.labels.items()
    ))  # fmt: skip


def _guard(loaded: ServingState, progress: Progress) -> Finding:
    status = loaded.guard.status(ROS)
    others = [escaped(caller) for caller in status.tripped_callers if caller != ROS]
    values: dict[str, object] = {
        "limits": "checked" if status.enabled else "none: only NaN and Inf are noticed",
        "mode": status.mode,
        "clamped chunks": progress.clamped,
        "clamped in a row": f"{status.consecutive_clamps} of {status.max_consecutive_clamps or 'any number'}",
        "violations": status.violations_total,
        "holds": progress.holds,
        **(range_values(loaded.guard.limits) if loaded.guard.limits is not None else {}),
    }
    if others:
        values["tripped callers over HTTP"] = ", ".join(others[:CALLERS_NAMED])
    if status.tripped:
        todo = "see what the policy does, then call ~/reset_guard"
        return Finding("guard", ERROR, f"tripped, the robot holds: {status.trip_reason}; {todo}", values)
    if progress.hold_reason:
        return Finding("guard", WARN, f"holding: {progress.hold_reason}", values)
    if others:
        more = f" and {len(others) - CALLERS_NAMED} more" if len(others) > CALLERS_NAMED else ""
        named = f"{', '.join(others[:CALLERS_NAMED])}{more}"
        return Finding(
            "guard",
            WARN,
            f"tripped for callers over HTTP: {named}; POST /guard/reset when you know why",
            values,
        )
    return Finding("guard", OK, f"{progress.clamped} of {progress.chunks} chunks clamped", values)


def _breaker(slot: PolicySlot, loaded: ServingState) -> Finding:
    breaker, alone = slot.breaker, len(loaded.slots) == 1
    concern = "circuit breaker" if alone else f"circuit breaker {slot.name}"
    if breaker is None:
        return Finding(concern, OK, "off", {})
    failures = f"{breaker.consecutive_failures} failures in a row"
    values = {
        "state": breaker.state,
        "failures in a row": breaker.consecutive_failures,
        "opens at": breaker.threshold,
    }
    if breaker.state == "closed":
        return Finding(concern, WARN if breaker.consecutive_failures else OK, failures, values)
    holds = alone or loaded.verdict == DEGRADED
    then = "the robot holds" if holds else "the other policy answers"
    todo = (
        "one request tries the model after each cooldown; once it is mended, ~/reset_breaker does so at once"
    )
    message = f"{breaker.state}, {then}: {failures}; {todo}"
    return Finding(concern, ERROR if holds else WARN, message, values)


def _cloud(loaded: ServingState) -> Finding:
    if loaded.cloud is None:
        return Finding("cloud fallback", OK, "off", {})
    reachable = loaded.cloud.reachable
    message = "stands by" if reachable else "not reachable: there is no help when the policy here fails"
    return Finding("cloud fallback", OK if reachable else WARN, message, {"reachable": reachable})


def _servers(loaded: ServingState) -> Iterator[Finding]:
    """Report whether the servers answer that run a policy."""
    remote = {
        name: slot.policy for name, slot in loaded.slots.items() if isinstance(slot.policy, RemotePolicy)
    }
    if not remote:
        yield Finding("remote server", OK, "off", {})
    for name, policy in remote.items():
        concern = "remote server" if len(loaded.slots) == 1 else f"remote server {name}"
        text = f"{policy.url} infers" if policy.reachable else f"{policy.url} gives no chunk: {policy.why}"
        level = OK if policy.reachable else ERROR
        yield Finding(concern, level, text, {"url": policy.url, "reachable": policy.reachable})


def _recorders(recorders: Sequence[Watched]) -> Finding:
    if not recorders:
        return Finding("recorders", OK, "off", {})
    values: dict[str, object] = {}
    for recorder in recorders:
        values |= {f"{recorder.kind} written": recorder.written, f"{recorder.kind} dropped": recorder.dropped}
    problems = [f"{recorder.kind}: {recorder.problem}" for recorder in recorders if recorder.problem]
    if problems:
        return Finding("recorders", ERROR, f"records are lost: {'; '.join(problems)}", values)
    return Finding("recorders", OK, "writing", values)
