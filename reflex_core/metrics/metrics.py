# SPDX-License-Identifier: Apache-2.0
"""Every metric, named once. Names, labels and buckets follow the public reflex exposition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from reflex_core.concurrency.lru import forgotten
from reflex_core.metrics.cadence import TickFigures
from reflex_core.metrics.caller_labels import CallerLabels
from reflex_core.metrics.counters import pictures_mended
from reflex_core.metrics.recorders import Watched
from reflex_core.metrics.smoothness_figures import NOTHING_MEASURED, SmoothnessFigures
from reflex_core.values import ROS

LATENCY_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
LOAD_BUCKETS_S = (0.5, 1, 2, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
CAPTURE_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10)
REPLAY_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class RecorderFigures(Collector):
    """The recorders' own counters, read at each scrape."""

    def __init__(self) -> None:
        self.watched: Sequence[Watched] = ()

    def collect(self) -> Iterator[Metric]:
        """Yield three families with a sample per recorder."""
        written = CounterMetricFamily("reflex_records", "Records written, by kind of file", labels=["kind"])
        dropped = CounterMetricFamily(
            "reflex_records_dropped", "Records lost, by kind of file", labels=["kind"]
        )
        degraded = GaugeMetricFamily(
            "reflex_recorder_degraded", "1 while records cannot be written", labels=["kind"]
        )
        for recorder in self.watched:
            written.add_metric([recorder.kind], recorder.written)
            dropped.add_metric([recorder.kind], recorder.dropped)
            degraded.add_metric([recorder.kind], float(bool(recorder.problem)))
        yield from (written, dropped, degraded)


class Standing(Protocol):
    """What the guard counts of a caller, as far as it is a metric."""

    @property
    def caller(self) -> str:
        """The caller's name."""
        ...

    @property
    def tripped(self) -> bool:
        """Whether it is held until it is reset."""
        ...


class TripGauge(Collector):
    """Which callers the guard holds, read at each scrape. Callers beyond a limit share the label `other`."""

    def __init__(self, labels: CallerLabels) -> None:
        self._labels = labels
        self._embodiment = "none"
        self._standings: Callable[[], Sequence[Standing]] = tuple

    def watch(self, embodiment: str, standings: Callable[[], Sequence[Standing]]) -> None:
        """Show these from now on: there is one guard, and the one before may have had another robot."""
        self._embodiment, self._standings = embodiment, standings

    def collect(self) -> Iterator[Metric]:
        """Yield a sample for the ROS robot, and one for each caller that is tripped."""
        family = GaugeMetricFamily(
            "reflex_guard_tripped", "1 while the guard holds a caller until it is reset",
            labels=["embodiment", "caller"],
        )  # fmt: skip
        shown = {ROS: 0.0} | {self._labels.label(one.caller): 1.0 for one in self._standings() if one.tripped}
        for label, value in shown.items():
            family.add_metric([self._embodiment, label], value)
        yield family


class ForgottenStates(Collector):
    """What was dropped of robots and episodes because more were remembered than there is room for, read at each scrape."""

    def collect(self) -> Iterator[Metric]:
        """Yield one counter."""
        family = CounterMetricFamily(
            "reflex_states_forgotten",
            "States of robots and episodes dropped for newer ones, by kind",
            labels=["kind"],
        )
        for kind, number in sorted(forgotten.items()):
            family.add_metric([kind], number)
        yield family


class PictureFigures(Collector):
    """Images that were repaired in this process, read at each scrape."""

    def collect(self) -> Iterator[Metric]:
        """Yield one counter."""
        yield CounterMetricFamily(
            "reflex_pictures_mended",
            "JPEG pictures that were not as they should be and could be mended",
            pictures_mended.total,
        )


class MotionGauges(Collector):
    """How well chunks fit together, read at each scrape. NaN where nothing was measured."""

    def __init__(self) -> None:
        self.figures: Callable[[], SmoothnessFigures] = lambda: NOTHING_MEASURED

    def collect(self) -> Iterator[Metric]:
        """Yield two counters and three gauges."""
        found = self.figures()
        yield CounterMetricFamily("reflex_motion_chunks", "Chunks followed in their episodes", found.chunks)
        yield CounterMetricFamily(
            "reflex_motion_late_chunks", "Chunks that came when the one before was spent", found.late_chunks
        )
        for name, help_, value in (
            ("border_jump_p95", "Largest leap of a joint where chunks meet, 95th percentile, its own unit", found.border_jump_p95),
            ("jerk_rms", "Jerk of what was executed, units per second cubed", found.jerk_rms),
            ("overlap_disagreement", "Mean difference of chunks on the moments that both have", found.overlap_disagreement_mean),
        ):  # fmt: skip
            yield GaugeMetricFamily(f"reflex_motion_{name}", help_, value)


class TickGauges(Collector):
    """How punctual the streams of setpoints are, read at each scrape."""

    def __init__(self) -> None:
        self.figures: Callable[[], Sequence[TickFigures]] = tuple

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge and three counters with samples per group."""
        lateness = GaugeMetricFamily(
            "reflex_tick_lateness_seconds", "From when a setpoint was due to its tick, over the newest thousand",
            labels=["group", "quantile"],
        )  # fmt: skip
        skipped = CounterMetricFamily("reflex_ticks_skipped", "Ticks left out because they came too late", labels=["group"])  # fmt: skip
        unkept = CounterMetricFamily("reflex_rates_unkept", "Times the rate of a group began not to be kept", labels=["group"])  # fmt: skip
        unadjusted = CounterMetricFamily("reflex_rows_unadjusted", "Rows that could not be adjusted at their tick", labels=["group"])  # fmt: skip
        for found in self.figures():
            late_s = {"0.5": found.late_p50_s, "0.99": found.late_p99_s, "1": found.late_max_s}
            for quantile, value in late_s.items():
                lateness.add_metric([found.group, quantile], value)
            skipped.add_metric([found.group], found.skipped)
            unkept.add_metric([found.group], found.unkept)
            unadjusted.add_metric([found.group], found.unadjusted)
        yield from (lateness, skipped, unkept, unadjusted)


class Metrics:
    """The metrics of one server, in a registry of their own. Children are bound once per slot, not per request."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        summary = partial(Summary, registry=self.registry)
        slot = ["embodiment", "policy_slot"]
        # fmt: off
        self.act_latency_s = histogram(
            "reflex_act_latency_seconds", "Receipt of a request to its finished chunk",
            ["embodiment", "model_id", "policy_slot"], buckets=LATENCY_BUCKETS_S,
        )
        self.onnx_load_time_s = histogram(
            "reflex_onnx_load_time_seconds", "Loading of an export", ["model_id"], buckets=LOAD_BUCKETS_S
        )
        self.denoise_steps = counter("reflex_denoise_steps_total", "Denoise steps taken", slot)
        self.in_flight = gauge("reflex_in_flight_requests", "Requests inside the engine", slot)
        self.episodes_active = gauge(
            "reflex_episodes_active", "Episodes with a request in the last minute", ["embodiment"]
        )
        self.safety_violations = counter(
            "reflex_safety_violations_total", "What the guard changed, by kind", ["embodiment", "violation_kind"]
        )
        self.caller_requests = counter(
            "reflex_caller_requests_total", "Requests by caller and outcome", ["caller", "outcome"]
        )
        self.file_reloads = counter(
            "reflex_file_reloads_total", "Changed files of keys and certificates: read, or failed and not used", ["file", "outcome"]
        )
        self.wire_requests = counter(
            "reflex_wire_requests_total", "Requests by how they came (ros, json, openpi, ...) and outcome", ["wire", "outcome"]
        )
        self.slo_violations = counter(
            "reflex_slo_violations_total", "Requests while the latency objective was missed", ["embodiment", "slo_kind"]
        )
        self.fallback_invocations = counter(
            "reflex_fallback_invocations_total", "Answers that did not come from the policy here, by what stood in",
            ["embodiment", "fallback_target"],
        )
        self.late_inferences = counter(
            "reflex_late_inferences_total", "Inferences left to finish after their deadline: kept, failed, given_up",
            ["embodiment", "outcome"],
        )
        self.deadline_misses = counter("reflex_deadline_misses_total", "Requests over their deadline", ["embodiment"])
        self.cloud_failures = counter("reflex_cloud_failures_total", "Times the cloud did not help, by reason", ["reason"])
        self.remote_failures = counter(
            "reflex_remote_failures_total", "Times the server of --remote gave no chunk that can be used, by reason", ["reason"]
        )
        self.cache_hits = counter(
            "reflex_cache_hit_total", "Prefixes taken from the episode cache", ["embodiment", "cache_type", "policy_slot"]
        )
        self.cache_misses = counter(
            "reflex_cache_miss_total", "Prefixes that had to be made", ["embodiment", "cache_type", "policy_slot"]
        )
        self.model_swaps = counter(
            "reflex_model_swaps_total", "Changes of who gets new episodes, by what lost and what gained",
            ["embodiment", "from_model", "to_model"],
        )
        self.policy_split = gauge("reflex_policy_split_percent", "Percent of new episodes that slot a gets")
        self.episode_outcomes = counter(
            "reflex_episode_outcomes_total", "Episodes whose end was reported", ["policy_slot", "success"]
        )
        self.shadow_compared = counter("reflex_shadow_compared_total", "Answers laid beside the shadow's")
        self.shadow_dropped = counter("reflex_shadow_dropped_total", "Answers the shadow had no time for")
        self.shadow_failed = counter("reflex_shadow_failed_total", "Requests on which the shadow failed")
        self.shadow_divergence = summary(
            "reflex_shadow_divergence", "RMS between the shadow's chunk and the served one, physical units", ["joint"]
        )
        self.history_filled = counter(
            "reflex_history_filled_total", "Requests with too few earlier observations: start, gap, no_episode", ["reason"]
        )
        self.chunks_guided = counter("reflex_rtc_guided_total", "Chunks guided by the one before", slot)
        self.episodes_moved = counter(
            "reflex_episodes_moved_total", "Episodes that went on here from an answer of another server"
        )
        self.a2c2_applied = counter("reflex_a2c2_applied_total", "Chunks corrected for delay", ["reason"])
        self.a2c2_skipped = counter("reflex_a2c2_skipped_total", "Chunks not corrected, by reason", ["reason"])
        self.a2c2_steps = counter(
            "reflex_a2c2_steps_total", "Chunks and observations by which streamed rows were corrected, or why not", ["reason"]
        )
        self.breaker_state = gauge(
            "reflex_breaker_state", "Circuit breaker: 0 closed, 1 half-open, 2 open", ["policy_slot"]
        )
        self.errors = counter("reflex_act_errors_total", "Requests without a chunk, by slug", ["slug"])
        self.instructions_cut = counter("reflex_instructions_cut_total", "Instructions longer than the token window")
        self.observations_refused = counter(
            "reflex_observations_refused_total", "Observations from ROS that no inference ran on, by reason", ["reason"]
        )
        self.holds = counter("reflex_holds_total", "Times the robot was commanded to hold, by reason", ["reason"])
        self.unheld = counter(
            "reflex_holds_impossible_total", "Times there was nothing the robot could be held at, by what requested it",
            ["reason"],
        )
        self.implausible_readings = counter(
            "reflex_implausible_readings_total", "Readings of a joint that cannot be true, none of them believed", ["joint"]
        )
        self.tracking_errors = counter(
            "reflex_tracking_errors_total", "Times a joint began to be further than half the path tolerance from its command",
            ["joint"],
        )
        self.watchdog = counter(
            "reflex_watchdog_interventions_total", "Times the chunk loop, or a stream of setpoints, was late or gone and the watchdog held the robot",
            ["reason"],
        )
        self.goals = counter("reflex_run_policy_goals_total", "Goals of ~/run_policy that ended, by reason", ["reason"])
        self.provider_fallbacks = counter(
            "reflex_provider_fallbacks_total", "Loads that ended on the CPU though a GPU was requested", ["model_id"]
        )
        self.tensorrt_engines = counter(
            "reflex_tensorrt_engines_total", "Loads on TensorRT, by whether its engines were found, missing or of another machine",
            ["model_id", "state"],
        )
        self.cuda_graph_captured = counter(
            "reflex_cuda_graph_captured_total", "CUDA graphs captured", ["embodiment", "model_id", "session"]
        )
        self.cuda_graph_replayed = counter(
            "reflex_cuda_graph_replayed_total", "CUDA graphs replayed", ["embodiment", "model_id", "session"]
        )
        self.cuda_graph_eager_fallback = counter(
            "reflex_cuda_graph_eager_fallback_total", "Loads that went on without CUDA graphs",
            ["embodiment", "model_id", "reason"],
        )
        self.cuda_graph_capture_failed = counter(
            "reflex_cuda_graph_capture_failed_at_init_total", "Captures that failed at warm-up",
            ["embodiment", "model_id", "session", "reason"],
        )
        self.cuda_graph_capture_s = histogram(
            "reflex_cuda_graph_capture_seconds", "Capturing a CUDA graph", ["embodiment", "session"],
            buckets=CAPTURE_BUCKETS_S,
        )
        self.cuda_graph_replay_s = histogram(
            "reflex_cuda_graph_replay_seconds", "Replaying a CUDA graph", ["embodiment", "session"],
            buckets=REPLAY_BUCKETS_S,
        )
        self.batch_size = histogram(
            "reflex_batch_size", "Requests in one run of the network, with micro-batching on", ["embodiment", "model_id"],
            buckets=BATCH_BUCKETS,
        )
        self.batch_alone = counter(
            "reflex_batch_alone_total", "Requests that micro-batching ran alone, batches it kept smaller and loads it is off for, by reason",
            ["embodiment", "model_id", "reason"],
        )
        self.server_up = gauge("reflex_server_up", "1 while a policy is ready")
        self.robot_info = gauge("reflex_robot_info", "1, with who this is", ["robot_id", "embodiment", "model_id"])
        # fmt: on
        self.recorders, self.motion, self.ticks = RecorderFigures(), MotionGauges(), TickGauges()
        self.caller_labels = CallerLabels()
        self.trips = TripGauge(self.caller_labels)
        self.registry.register(self.trips)
        self.registry.register(self.recorders)
        self.registry.register(self.motion)
        self.registry.register(self.ticks)
        self.registry.register(PictureFigures())
        self.registry.register(ForgottenStates())

    def exposition(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return bytes(generate_latest(self.registry))


class BatchFigures:
    """What a policy with micro-batching reports, for one embodiment and model."""

    def __init__(self, metrics: Metrics, embodiment: str, model_id: str) -> None:
        self._size = metrics.batch_size.labels(embodiment, model_id)
        self._alone, self._labels = metrics.batch_alone, (embodiment, model_id)

    def ran(self, requests: int) -> None:
        """Count a run of the network."""
        self._size.observe(requests)

    def alone(self, reason: str) -> None:
        """Count what was not batched, and why."""
        self._alone.labels(*self._labels, reason).inc()


class CudaGraphMetrics:
    """What a policy with CUDA graphs reports, for one embodiment and model."""

    def __init__(self, metrics: Metrics, embodiment: str, model_id: str) -> None:
        self._metrics, self._embodiment, self._model_id = metrics, embodiment, model_id

    def captured(self, session: str, seconds: float) -> None:
        """Count a captured graph."""
        self._metrics.cuda_graph_captured.labels(self._embodiment, self._model_id, session).inc()
        self._metrics.cuda_graph_capture_s.labels(self._embodiment, session).observe(seconds)

    def replayed(self, session: str, seconds: float) -> None:
        """Count a replay of a captured graph."""
        self._metrics.cuda_graph_replayed.labels(self._embodiment, self._model_id, session).inc()
        self._metrics.cuda_graph_replay_s.labels(self._embodiment, session).observe(seconds)

    def eager_fallback(self, reason: str) -> None:
        """Count a policy that goes on without captured graphs."""
        self._metrics.cuda_graph_eager_fallback.labels(self._embodiment, self._model_id, reason).inc()

    def capture_failed(self, session: str, reason: str) -> None:
        """Count a graph that could not be captured."""
        self._metrics.cuda_graph_capture_failed.labels(
            self._embodiment, self._model_id, session, reason
        ).inc()
