"""Spans in OpenTelemetry's own types, and the exporter that posts them.

Records become `ReadableSpan` objects directly: the tracer of the SDK would cost ten times as much for each, and its
processor drops spans without counting them. The exporter is the standard one and reads its `OTEL_EXPORTER_OTLP_*`.
"""

from __future__ import annotations

import importlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from meshfold.core import SpanRecord
from meshfold.core.errors import ConfigError
from meshfold.mesh.telemetry.settings import TelemetrySettings
from meshfold.mesh.telemetry.spans import Facts, Value, view

__all__ = ("Exporter", "SpanFactory", "otlp_exporter", "require_exporter")

log = logging.getLogger("meshfold.telemetry")

INSTALL = "pip install 'meshfold[otel]'"


class Exporter(Protocol):
    """Takes spans to somewhere. Called by one thread; may block for seconds."""

    def export(self, spans: Sequence[Any]) -> bool:
        """Hand the spans over; whether they arrived."""
        ...

    def shutdown(self) -> None:
        """Give up what still runs, soon. Called by another thread."""
        ...


class _Otlp:
    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult

        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._success = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[Any]) -> bool:
        return self._exporter.export(spans) is self._success

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # the library leaves it bare


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(
        f"traces need OpenTelemetry, which is not installed: {error}", fix=INSTALL, item="OTEL"
    )


def require_exporter() -> None:
    """Make sure that spans can be exported from here.

    :raises ConfigError: if OpenTelemetry is not installed
    """
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise _missing(error) from error


def otlp_exporter(endpoint: str) -> Exporter:
    """The OTLP/HTTP exporter.

    :raises ConfigError: if OpenTelemetry is not installed, or one of its variables cannot be used
    """
    try:
        return _Otlp(endpoint)
    except ImportError as error:
        raise _missing(error) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the OTLP exporter cannot be made: {error}", fix="check the OTEL_EXPORTER_OTLP_* variables"
        ) from error


class SpanFactory:
    """Makes `ReadableSpan` objects of one node.

    :param service: `service.name`
    :param namespace: `service.namespace`: the mesh
    :param instance: `service.instance.id`: the incarnation
    :raises ConfigError: if OpenTelemetry is not installed
    """

    def __init__(
        self, settings: TelemetrySettings, facts: Facts, *, service: str, namespace: str, instance: str
    ) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as error:
            raise _missing(error) from error
        self._facts = facts
        attributes: dict[str, Value] = {
            "service.namespace": namespace,
            "service.instance.id": instance,
            "host.name": socket.gethostname(),
            **settings.resource,
            "service.name": settings.service or service,
        }
        self._resource = Resource.create(attributes)
        self._scope = InstrumentationScope("meshfold")
        self._build = self._builder()

    def spans(self, records: Sequence[SpanRecord]) -> list[Any]:
        """One span for each record."""
        return [self._build(record) for record in records]

    def _builder(self) -> Callable[[SpanRecord], Any]:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

        sampled = TraceFlags(TraceFlags.SAMPLED)
        kinds = {kind.name: kind for kind in SpanKind}

        def context(trace: bytes, span: bytes, *, remote: bool) -> SpanContext:
            return SpanContext(int.from_bytes(trace), int.from_bytes(span), remote, sampled)

        def build(record: SpanRecord) -> ReadableSpan:
            seen = view(record, self._facts)
            remote = record.kind == "process"
            return ReadableSpan(
                seen.name,
                context=context(record.trace, record.span, remote=False),
                parent=None if record.parent is None else context(record.trace, record.parent, remote=remote),
                resource=self._resource,
                attributes=seen.attributes,
                links=[Link(context(trace, span, remote=False)) for trace, span in record.links],
                kind=kinds[seen.kind],
                status=Status(StatusCode.ERROR, seen.error) if seen.error else Status(),
                start_time=record.start,
                end_time=record.end,
                instrumentation_scope=self._scope,
            )

        return build
