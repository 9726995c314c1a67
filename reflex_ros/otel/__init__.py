# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry: a span per request. Only `connect` may be imported where the extra `otel` is not installed."""
