# SPDX-License-Identifier: Apache-2.0
"""Every metric, named once. Names, labels and buckets follow the public reflex exposition."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

LATENCY_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
LOAD_BUCKETS_S = (0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server, in a registry of their own. Children are bound once per slot, not per request."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        slot = ["embodiment", "policy_slot"]
        self.act_latency_s = Histogram(
            "reflex_act_latency_seconds", "Receipt of a request to its finished chunk",
            ["embodiment", "model_id", "policy_slot"], buckets=LATENCY_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.onnx_load_time_s = Histogram(
            "reflex_onnx_load_time_seconds", "Loading of an export", ["model_id"],
            buckets=LOAD_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.denoise_steps = Counter(
            "reflex_denoise_steps_total", "Denoise steps taken", slot, registry=self.registry
        )
        self.in_flight = Gauge(
            "reflex_in_flight_requests", "Requests inside the engine", slot, registry=self.registry
        )
        self.safety_violations = Counter(
            "reflex_safety_violations_total", "What the guard changed, by kind",
            ["embodiment", "violation_kind"], registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "reflex_act_errors_total", "Requests without a chunk, by slug", ["slug"], registry=self.registry
        )
        self.instructions_cut = Counter(
            "reflex_instructions_cut_total",
            "Instructions longer than the token window",
            registry=self.registry,
        )
        self.observations_refused = Counter(
            "reflex_observations_refused_total", "Observations no inference ran on, by reason",
            ["reason"], registry=self.registry,
        )  # fmt: skip
        self.holds = Counter(
            "reflex_holds_total",
            "Times the robot was told to hold, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.server_up = Gauge("reflex_server_up", "1 while a policy is ready", registry=self.registry)
        self.robot_info = Gauge(
            "reflex_robot_info",
            "1, with who this is",
            ["robot_id", "embodiment", "model_id"],
            registry=self.registry,
        )

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return bytes(generate_latest(self.registry))
