# SPDX-License-Identifier: Apache-2.0
"""What a metric stands at."""

from __future__ import annotations

from prometheus_client import Counter, Gauge


def value_of(metric: Counter | Gauge) -> float:
    """The value of a counter or gauge, or of one of its children."""
    [family] = metric.collect()
    return float(next(sample.value for sample in family.samples if not sample.name.endswith("_created")))
