# SPDX-License-Identifier: Apache-2.0
"""Create the recorder that exports spans from settings; the one place that handles a missing extra `otel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.records.recorder import Recorder
from reflex_core.settings.table import Settings

if TYPE_CHECKING:
    from reflex_ros.otel.tracing import Tracing

TRACES_PATH = "/v1/traces"


def connect_tracing(settings: Settings, models: Mapping[str, str], embodiment: str) -> Recorder:
    """Open the recorder of --otel-endpoint. models: the export directory of each policy slot.

    Raises SettingError for a URL that cannot be used, ConfigurationError where the extra is not installed.
    """
    return _tracing()(
        traces_url(settings.otel_endpoint), models=models, embodiment=embodiment, robot_id=settings.robot_id,
        sample=settings.otel_sample,
    )  # fmt: skip


def check_endpoint(settings: Settings) -> None:
    """Raise SettingError for a URL that cannot be used."""
    if settings.otel_endpoint:
        traces_url(settings.otel_endpoint)


def check_tracing(settings: Settings) -> None:
    """Raise ConfigurationError where spans are requested and the extra that sends them is not installed."""
    if settings.otel_endpoint:
        _tracing()


def _tracing() -> type[Tracing]:
    """Import the recorder only here: without tracing, the import costs nothing."""
    try:
        from reflex_ros.otel.tracing import Tracing
    except ImportError as error:
        raise ConfigurationError(
            f"--otel-endpoint needs the extra 'otel' ({error}): pip install 'reflex_ros[otel]', or opentelemetry-sdk and"
            " opentelemetry-exporter-otlp-proto-http",
            "extra-missing",
        ) from error
    return Tracing


def traces_url(base: str) -> str:
    """Return where spans go: the base URL of the receiver with /v1/traces, unless it ends with that already."""
    problem = ""
    try:
        parts = urlsplit(base)
        _ = parts.port
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            problem = "expected http://HOST:PORT or https://HOST:PORT"
        if parts.username is not None or parts.password is not None:
            # people read this setting on the page and in the log; so the sentence does not repeat it either
            raise SettingError(
                "--otel-endpoint: no password in the URL, put it into OTEL_EXPORTER_OTLP_HEADERS"
            )
    except ValueError as error:
        problem = str(error)
    if problem:
        raise SettingError(
            f"--otel-endpoint: {base!r} is not the base URL of an OTLP/HTTP receiver: {problem}"
        )
    trimmed = base.rstrip("/")
    return trimmed if trimmed.endswith(TRACES_PATH) else trimmed + TRACES_PATH
