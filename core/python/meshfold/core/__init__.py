"""The local graph: routes, events and operators in one process. Imports no other room."""

from meshfold.core.access import Access, LocalGrant, Principal
from meshfold.core.address import Address, escape_token, unescape_token
from meshfold.core.clocks import ManualClock, SystemClock
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
    WiringError,
    WouldBlock,
)
from meshfold.core.event import Event, event_document
from meshfold.core.flow import EdgeCounters, EdgeInfo, InletReceipt, Lineage, ParentRange, SeqRange
from meshfold.core.graph import Graph
from meshfold.core.ids import event_id, parse_event_id
from meshfold.core.inlet import Inlet
from meshfold.core.middleware import Middleware
from meshfold.core.operator import Operator, OperatorInfo, StageInfo
from meshfold.core.parts import Part
from meshfold.core.pipeline import Pipeline, Port, Stage
from meshfold.core.registry import Action, Taint
from meshfold.core.replay import Replayed
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema
from meshfold.core.scope import RouteScope, logical_routes
from meshfold.core.stream import Edge, Stream, Subscription
from meshfold.core.tap import Tap
from meshfold.core.tracing import SpanRecord, Tracing, event_span
from meshfold.core.view import GraphView

__all__ = (
    "Access",
    "Action",
    "Address",
    "CoreError",
    "DecodeError",
    "Edge",
    "EdgeCounters",
    "EdgeInfo",
    "EncodeError",
    "Ephemeral",
    "Event",
    "Graph",
    "GraphView",
    "Inlet",
    "InletReceipt",
    "Lineage",
    "LocalGrant",
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
    "Tap",
    "Tracing",
    "WiringError",
    "WouldBlock",
    "escape_token",
    "event_document",
    "event_id",
    "event_span",
    "logical_routes",
    "parse_event_id",
    "route",
    "unescape_token",
)
