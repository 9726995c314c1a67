# SPDX-License-Identifier: Apache-2.0
"""Export requests as OpenTelemetry spans, after their answers and on a thread of its own. Needs the extra `otel`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from reflex_core import __version__
from reflex_core.records.background_writer import BackgroundWriter
from reflex_core.records.trace.schema import Failure
from reflex_core.text.rate_limit import RateLimit
from reflex_core.values import Request, Served
from reflex_ros.otel.attributes import ERROR_CHARACTERS, Finished, attributes, finished, stages

QUEUE = 2048
CLOSE_S = 2.0
EXPORTER_LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

log = logging.getLogger(__name__)


class Tracing:
    """A recorder: one span per request, with a child per stage. The request path only enqueues.

    models: the export directory of each policy slot. sample: share of the requests without a traceparent that become
    spans; with one, its sampled flag decides. Headers, compression, certificates, time-out and resource attributes are
    the library's own environment variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES and so on).
    """

    kind = "otel"

    def __init__(
        self,
        url: str,
        *,
        models: Mapping[str, str],
        embodiment: str,
        robot_id: str = "",
        sample: float = 1.0,
        flush_interval_s: float = 1.0,
        max_items: int = QUEUE,
    ) -> None:
        """Open the exporter. url: of the receiver, with its path."""
        self._url, self._models, self._embodiment = url, dict(models), embodiment
        self._exporter = OTLPSpanExporter(endpoint=url)
        self._ended = _Ended()
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=_resource(robot_id),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("reflex_ros", __version__)
        self._parents = TraceContextTextMapPropagator()
        self._complaints = _Complaints()
        logging.getLogger(EXPORTER_LOGGER).addFilter(self._complaints)
        self._unreached, self._unmade = RateLimit(), RateLimit()
        self._writer: BackgroundWriter[Finished] = BackgroundWriter(
            "otel", self._export, slug="otel-export-failed", failed=self._failed, recovered=self._recovered,
            errors=(_NotTakenError,), retry_s=0.0, flush_interval_s=flush_interval_s, max_items=max_items,
        )  # fmt: skip

    @property
    def problem(self) -> str:
        """Why spans cannot be exported; empty while they can."""
        return self._writer.problem

    @property
    def written(self) -> int:
        """Requests whose spans the receiver has taken; those not sampled are in neither count."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """Requests whose spans were lost: the queue was full, or the receiver did not take them."""
        return self._writer.dropped

    def __call__(self, request: Request, served: Served) -> None:
        """Enqueue one answer."""
        ended_ns = request.received_ns + int(served.latency_ms * 1e6)
        self._writer.put(finished(request, ended_ns, served, served.trace_seq))

    def error(self, request: Request, slug: str, message: str, seq: int = -1) -> None:
        """Enqueue a request that got no answer."""
        self._writer.put(finished(request, time.monotonic_ns(), Failure(slug, message), seq))

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Export what waits, for as long as `timeout_s` allows; a receiver that hangs does not hold up the end."""
        done = self._writer.close(timeout_s)
        # ends the retries of an export under way
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        if done:
            logging.getLogger(EXPORTER_LOGGER).removeFilter(self._complaints)

    def _export(self, batch: Sequence[Finished]) -> None:
        self._complaints.thread_id = threading.get_ident()
        wall_ns = time.time_ns() - time.monotonic_ns()  # from the requests' clock to the one that spans have
        sampled = sum(self._build(act, wall_ns) for act in batch)
        spans = self._ended.take()
        if spans:
            self._writer.attempt(sampled, partial(self._send, spans, sampled))

    def _send(self, spans: Sequence[ReadableSpan], requests: int) -> None:
        """Raise _NotTakenError where the receiver did not take them."""
        try:
            taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # older exporters raise what newer ones return
            raise _NotTakenError(f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]) from error
        if not taken:
            raise _NotTakenError(self._complaints.newest or "the receiver did not take the spans")
        self._writer.wrote(requests)

    def _build(self, act: Finished, wall_ns: int) -> int:
        """Start and end the spans of one request; return how many requests were sampled, 0 or 1."""
        try:
            return self._spans(act, wall_ns)
        except Exception:  # one odd request must not take the spans beside it along
            self._writer.lose(1)
            if self._unmade.times():
                log.exception("otel: no span could be made of request %s", act.request_id)
            return 0

    def _spans(self, act: Finished, wall_ns: int) -> int:
        span = self._tracer.start_span(
            "act",
            context=self._parent(act),
            kind=SpanKind.SERVER if act.traceparent else SpanKind.INTERNAL,
            attributes=attributes(act, self._models, self._embodiment),
            start_time=act.received_ns + wall_ns,
        )
        if not span.is_recording():
            return 0
        if isinstance(act.outcome, Failure):
            span.set_status(Status(StatusCode.ERROR, act.outcome.message[:ERROR_CHARACTERS]))
        inside = set_span_in_context(span, Context())
        for name, start_ns, end_ns in stages(act):
            stage = self._tracer.start_span(name, context=inside, start_time=start_ns + wall_ns)
            stage.end(end_ns + wall_ns)
        span.end(act.ended_ns + wall_ns)
        return 1

    def _parent(self, act: Finished) -> Context:
        if not act.traceparent:
            return Context()
        carrier = {"traceparent": act.traceparent}
        if act.tracestate:
            carrier["tracestate"] = act.tracestate
        return self._parents.extract(carrier, Context())

    def _failed(self, error: Exception) -> None:
        if self._unreached.times():
            log.warning(
                "slug=otel-export-failed spans do not reach %s, serving goes on; later failures are only counted: %s",
                self._url, error,
            )  # fmt: skip

    def _recovered(self) -> None:
        log.info("otel: spans reach %s again", self._url)


class _NotTakenError(Exception):
    """The receiver did not take the spans; the text says why."""


class _Ended(SpanProcessor):
    """Collects ended spans until they are taken; on one thread."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        spans, self._spans = self._spans, []
        return spans


class _Complaints(logging.Filter):
    """Keeps what the exporter logs in one thread instead of letting it through: at every retry is a flood."""

    def __init__(self) -> None:
        super().__init__()
        self.thread_id = 0
        self.newest = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self.thread_id:
            return True
        self.newest = record.getMessage()[:ERROR_CHARACTERS]
        return False


def _resource(robot_id: str) -> Resource:
    """Return the spans' resource; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the name of this package."""
    own = {"service.version": __version__} | ({"service.instance.id": robot_id} if robot_id else {})
    found = Resource.create(own)
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "reflex_ros"}))
    return found
