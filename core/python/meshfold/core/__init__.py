"""The local graph: routes, events and operators in one process. Imports no other room."""

from meshfold.core.access import Access, LocalGrant, Principal
from meshfold.core.address import Address, escape_token, unescape_token
from meshfold.core.bounds import TaintBound
from meshfold.core.clocks import ManualClock, SystemClock
from meshfold.core.columns import Columns
from meshfold.core.determinism import LogClock, Transcript, record, rerun, transcript_of
from meshfold.core.ephemeral import Ephemeral
from meshfold.core.errors import (
    CoreError,
    DecodeError,
    EncodeError,
    MeshfoldError,
    PayloadGone,
    QueueFull,
    SchemaMismatch,
    StoreDamaged,
    TaintExceeded,
    WiringError,
    WouldBlock,
)
from meshfold.core.event import Event, event_document
from meshfold.core.expressions import (
    Aggregate,
    Expr,
    count,
    ema,
    event_time,
    field,
    first,
    greatest,
    key,
    last,
    least,
    max_,
    mean,
    min_,
    quantile,
    std,
    sum_,
    value,
)
from meshfold.core.flow import EdgeCounters, EdgeInfo, InletReceipt, Lineage, ParentRange, SeqRange
from meshfold.core.graph import Graph
from meshfold.core.ids import event_id, parse_event_id
from meshfold.core.inlet import Inlet
from meshfold.core.join_plan import JoinExplanation, JoinInput, JoinPlan
from meshfold.core.links import Link, LinkCapabilities
from meshfold.core.middleware import Middleware
from meshfold.core.operator import Operator, OperatorInfo, StageInfo
from meshfold.core.parts import Part
from meshfold.core.pipeline import Pipeline
from meshfold.core.registry import Action, Taint
from meshfold.core.replay import Replayed
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema
from meshfold.core.scope import RouteScope, logical_routes
from meshfold.core.stage import Port, Stage
from meshfold.core.stream import Edge, Stream, Subscription
from meshfold.core.tap import Tap
from meshfold.core.tracing import SpanRecord, Tracing, event_span
from meshfold.core.values import ValueStream
from meshfold.core.view import GraphView

__all__ = (
    "Access",
    "Action",
    "Address",
    "Aggregate",
    "Columns",
    "CoreError",
    "DecodeError",
    "Edge",
    "EdgeCounters",
    "EdgeInfo",
    "EncodeError",
    "Ephemeral",
    "Event",
    "Expr",
    "Graph",
    "GraphView",
    "Inlet",
    "InletReceipt",
    "JoinExplanation",
    "JoinInput",
    "JoinPlan",
    "Lineage",
    "Link",
    "LinkCapabilities",
    "LocalGrant",
    "LogClock",
    "ManualClock",
    "MeshfoldError",
    "Middleware",
    "Operator",
    "OperatorInfo",
    "ParentRange",
    "Part",
    "PayloadGone",
    "Pipeline",
    "Port",
    "Principal",
    "QueueFull",
    "Replayed",
    "Route",
    "RouteScope",
    "Schema",
    "SchemaMismatch",
    "SeqRange",
    "SpanRecord",
    "Stage",
    "StageInfo",
    "StoreDamaged",
    "Stream",
    "Subscription",
    "SystemClock",
    "Taint",
    "TaintBound",
    "TaintExceeded",
    "Tap",
    "Tracing",
    "Transcript",
    "ValueStream",
    "WiringError",
    "WouldBlock",
    "count",
    "ema",
    "escape_token",
    "event_document",
    "event_id",
    "event_span",
    "event_time",
    "field",
    "first",
    "greatest",
    "key",
    "last",
    "least",
    "logical_routes",
    "max_",
    "mean",
    "min_",
    "parse_event_id",
    "quantile",
    "record",
    "rerun",
    "route",
    "std",
    "sum_",
    "transcript_of",
    "unescape_token",
    "value",
)
