"""What the standard `OTEL_*` variables say about traces. No variable of our own stands beside one of these.

Traces are on where an endpoint is named, and off otherwise: an event then costs nothing. The exporter itself reads the
rest (headers, timeout, compression, certificates).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from meshfold.core.errors import ConfigError

__all__ = ("ROOTS_PER_S", "SPANS_PER_S", "TelemetrySettings")

#: Traces begun in a second where `OTEL_TRACES_SAMPLER` is not set: enough to see, little enough to forget.
ROOTS_PER_S: Final = 100
#: Spans of a node in a second, whoever sampled them: exporting one costs as much as sending many events.
SPANS_PER_S: Final = 2000
#: Records are taken so often unless `OTEL_BSP_SCHEDULE_DELAY` says otherwise; the ring holds more than that fills.
INTERVAL_S: Final = 0.1
BATCH_SPANS: Final = 512
ATTRIBUTES_MAX: Final = 128

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SAMPLERS: Final = ("always_on", "always_off", "traceidratio")


@dataclass(frozen=True)
class TelemetrySettings:
    """Whether and what to trace, and where it goes."""

    #: record sampled events at all
    on: bool = False
    #: whole URL that spans are posted to; None: they stay in this process, where `trace` finds them
    endpoint: str | None = None
    #: share of the traces that begin here, 0 to 1
    ratio: float = 1.0
    #: at most so many traces begin here in a second; None: any number
    roots_per_s: int | None = ROOTS_PER_S
    #: at most so many spans in a second, those of traces that others began included
    spans_per_s: int | None = SPANS_PER_S
    #: `service.name`; None: the node's name
    service: str | None = None
    #: further attributes of the resource
    resource: Mapping[str, str] = field(default_factory=dict[str, str])
    interval_s: float = INTERVAL_S
    batch_spans: int = BATCH_SPANS

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables.

        :raises ConfigError: naming the variable that cannot be used, and what it may be
        """
        ratio, roots_per_s = _sampler(environ)
        chosen = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() or "otlp"
        if chosen not in ("otlp", "none"):
            raise _refused("OTEL_TRACES_EXPORTER", chosen, "otlp or none")
        disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or chosen == "none"
        endpoint = None if disabled else _endpoint(environ)
        delay_ms = _number(environ, "OTEL_BSP_SCHEDULE_DELAY", INTERVAL_S * 1000, 1, 60_000)
        return cls(
            on=endpoint is not None,
            endpoint=endpoint,
            ratio=ratio,
            roots_per_s=roots_per_s,
            service=environ.get("OTEL_SERVICE_NAME") or None,
            resource=_resource(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")),
            interval_s=delay_ms / 1000,
            batch_spans=int(_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS, 1, 8192)),
        )

    def to(self, base: str, option: str) -> Self:
        """The same, exporting to the OTLP/HTTP receiver at `base`, such as http://127.0.0.1:4318.

        :raises ConfigError: naming `option` if that is no URL
        """
        return replace(self, on=True, endpoint=_url(base, option).rstrip("/") + "/v1/traces")


def _refused(variable: str, value: str, allowed: str) -> ConfigError:
    return ConfigError(f"{variable}={value!r} cannot be used", fix=f"write {allowed}", item=variable)


def _url(value: str, name: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    else:
        usable = usable and not (parts.username or parts.password)
    if not usable:
        raise _refused(name, value, "the URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318")
    return value


def _endpoint(environ: Mapping[str, str]) -> str | None:
    traces, base = (environ.get(name, "").strip() for name in _ENDPOINTS)
    if not traces and not base:
        return None
    for name in _PROTOCOLS:
        protocol = environ.get(name, "").strip()
        if protocol and protocol != "http/protobuf":
            raise _refused(name, protocol, "http/protobuf, the one there is; receivers take it on port 4318")
        if protocol:
            break
    if traces:
        return _url(traces, _ENDPOINTS[0])
    return _url(base, _ENDPOINTS[1]).rstrip("/") + "/v1/traces"


def _sampler(environ: Mapping[str, str]) -> tuple[float, int | None]:
    """Share of the traces, and how many a second.

    Every sampler is parent-based here: what a root decided holds for its trace everywhere.
    """
    variable = "OTEL_TRACES_SAMPLER"
    name = environ.get(variable, "").strip()
    if not name:
        return 1.0, ROOTS_PER_S
    plain = name.removeprefix("parentbased_")
    if plain not in _SAMPLERS:
        raise _refused(variable, name, "one of " + ", ".join(f"[parentbased_]{one}" for one in _SAMPLERS))
    if plain == "traceidratio":
        return _number(environ, "OTEL_TRACES_SAMPLER_ARG", 1.0, 0, 1), None
    return (1.0 if plain == "always_on" else 0.0), None


def _number(environ: Mapping[str, str], variable: str, default: float, low: float, high: float) -> float:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise _refused(variable, text, f"a number from {low:g} to {high:g}")
    return value


def _resource(text: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise _refused("OTEL_RESOURCE_ATTRIBUTES", pair, "key=value pairs joined by commas")
        found[key.strip()] = unquote(value.strip())
    if len(found) > ATTRIBUTES_MAX:
        raise _refused("OTEL_RESOURCE_ATTRIBUTES", f"{len(found)} attributes", f"at most {ATTRIBUTES_MAX}")
    return found
