"""A graph's wiring as a document: written, compared, planned, applied, drawn."""

from meshfold.core.manifest.document import (
    BindingEntry,
    ConnectionEntry,
    InputEntry,
    Manifest,
    OperatorEntry,
    RetentionEntry,
    RouteEntry,
    SideEntry,
    StageEntry,
    read_manifest,
)
from meshfold.core.manifest.plan import Change, Plan, diff

__all__ = (
    "BindingEntry",
    "Change",
    "ConnectionEntry",
    "InputEntry",
    "Manifest",
    "OperatorEntry",
    "Plan",
    "RetentionEntry",
    "RouteEntry",
    "SideEntry",
    "StageEntry",
    "diff",
    "read_manifest",
)
