"""Telemetry of a node: spans of sampled events over OTLP, metrics and health over HTTP."""

from meshfold.mesh.telemetry.otlp import require_exporter
from meshfold.mesh.telemetry.recorder import Recorder
from meshfold.mesh.telemetry.settings import TelemetrySettings
from meshfold.mesh.telemetry.spans import Facts
from meshfold.mesh.telemetry.traces import find_trace, merge, trace_document

__all__ = (
    "Facts",
    "Recorder",
    "TelemetrySettings",
    "find_trace",
    "merge",
    "require_exporter",
    "trace_document",
)
