"""An OTLP/HTTP receiver in this process: keeps what it was sent, and waits for what a test wants to see."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WAIT_S = 30.0


@dataclass(frozen=True)
class Seen:
    """One span as it arrived."""

    service: str
    name: str
    kind: str
    trace: str
    span: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    resource: dict[str, Any]
    error: str
    start: int
    end: int


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return getattr(value, kind) if kind else None


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


@dataclass
class OtlpSink:
    """Use as a context manager; `url` is what exporters are given."""

    status: int = 200
    spans: list[Seen] = field(default_factory=list)
    requests: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        sink = self
        self._changed = threading.Condition()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                with sink._changed:
                    sink.requests += 1
                    sink.headers = {name.lower(): value for name, value in self.headers.items()}
                    if sink.status == 200:
                        sink._take(body)
                    sink._changed.notify_all()
                self.send_response(sink.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource_spans in request.resource_spans:
            resource = _attributes(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self.spans.append(
                        Seen(
                            service=resource["service.name"],
                            name=span.name,
                            kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                            trace=span.trace_id.hex(),
                            span=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                            attributes=_attributes(span.attributes),
                            resource=resource,
                            error=span.status.message,
                            start=span.start_time_unix_nano,
                            end=span.end_time_unix_nano,
                        )
                    )

    def wait(self, condition: Callable[[list[Seen]], Any], what: str = "spans") -> Any:
        """Block until the condition gives something true of the spans so far; returns that."""
        with self._changed:
            found = self._changed.wait_for(lambda: condition(self.spans), WAIT_S)
        assert found, f"{what}: not within {WAIT_S:.0f} s; here are {[span.name for span in self.spans]}"
        return found

    def wait_requests(self, count: int) -> None:
        """Block until so many requests came."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.requests >= count, WAIT_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
