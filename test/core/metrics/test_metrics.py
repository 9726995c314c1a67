# SPDX-License-Identifier: Apache-2.0
"""The Prometheus exposition of one server."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reflex_core.metrics.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def test_the_exposition_is_valid_and_every_metric_is_explained() -> None:
    families = list(text_string_to_metric_families(Metrics().exposition().decode()))
    assert len(families) >= 10
    assert [family.name for family in families if not family.documentation] == []
    assert [family.name for family in families if not family.name.startswith("reflex_")] == []


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("reflex_act_latency_seconds", {"embodiment", "model_id", "policy_slot"}),
        ("reflex_denoise_steps_total", {"embodiment", "policy_slot"}),
        ("reflex_in_flight_requests", {"embodiment", "policy_slot"}),
        ("reflex_safety_violations_total", {"embodiment", "violation_kind"}),
        ("reflex_onnx_load_time_seconds", {"model_id"}),
        ("reflex_robot_info", {"robot_id", "embodiment", "model_id"}),
        ("reflex_server_up", set()),
    ],
)
def test_names_and_labels_are_those_that_dashboards_know(name: str, labels: set[str]) -> None:
    by_name = {
        getattr(metric, "_name", "") + ("_total" if metric._type == "counter" else ""): set(
            metric._labelnames
        )
        for metric in vars(Metrics()).values()
        if hasattr(metric, "_labelnames")
    }
    assert by_name[name] == labels


def test_latency_buckets_span_five_milliseconds_to_five_seconds() -> None:
    metrics = Metrics()
    metrics.act_latency_s.labels("franka", "pi0", "prod").observe(0.03)
    buckets = {labels["le"]: count for labels, count in samples(metrics)["reflex_act_latency_seconds_bucket"]}
    assert list(buckets) == [
        "0.005",
        "0.01",
        "0.02",
        "0.05",
        "0.1",
        "0.2",
        "0.5",
        "1.0",
        "2.0",
        "5.0",
        "+Inf",
    ]
    assert (buckets["0.02"], buckets["0.05"]) == (0.0, 1.0)


def test_two_servers_in_one_process_do_not_share_numbers() -> None:
    first, second = Metrics(), Metrics()
    first.server_up.set(1)
    assert samples(first)["reflex_server_up"] == [({}, 1.0)]
    assert samples(second)["reflex_server_up"] == [({}, 0.0)]
