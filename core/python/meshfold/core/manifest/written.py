"""A manifest of a graph as it is wired now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshfold._native import connections
from meshfold.core.manifest.document import (
    FORMAT,
    BindingEntry,
    ConnectionEntry,
    InputEntry,
    Manifest,
    OperatorEntry,
    RetentionEntry,
    RouteEntry,
    SideEntry,
    StageEntry,
)

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.route import Route

__all__ = ("Installed", "operator_entry", "write_manifest")


@dataclass(frozen=True, slots=True)
class Installed:
    """An operator as it was installed: its description, its routes, its functions."""

    spec: dict[str, Any]
    routes: tuple[Route[Any], ...]
    functions: list[list[tuple[str, Any]]]
    observer: Any


def function_name(call: Any) -> str:
    """What a function is called in listings and manifests."""
    return str(getattr(call, "__qualname__", type(call).__name__))


def operator_entry(installed: Installed) -> OperatorEntry:
    """One operator as a document."""
    spec, address = installed.spec, [r.address for r in installed.routes]
    stages: list[StageEntry] = []
    for stage in spec["stages"]:
        if stage["kind"] == "foreign":
            run = installed.functions[stage["function"]]
            stages.append(StageEntry("foreign", functions=[(way, function_name(call)) for way, call in run]))
        else:
            stages.append(StageEntry(stage["kind"], stage.get("with") or {}))
    return OperatorEntry(
        name=spec["name"],
        label=spec["label"],
        stages=stages,
        inputs=[
            InputEntry(
                address[given["route"]],
                given.get("stage", 0),
                given.get("port", 0),
                given.get("replay", False),
            )
            for given in spec["inputs"]
        ],
        sink=address[spec["sink"]] if "sink" in spec else None,
        sides=[SideEntry(side["stage"], side["side"], address[side["route"]]) for side in spec["sides"]],
        observer=None if installed.observer is None else function_name(installed.observer),
    )


def write_manifest(
    graph: Graph, installed: Mapping[int, Installed], kept: Mapping[str, RetentionEntry]
) -> Manifest:
    """Describe the whole graph, everything in an order that does not depend on when it was made."""
    shadows = graph.shadows()
    bound = {shadow.number for shadow in shadows}
    operators = [operator_entry(entry) for number, entry in installed.items() if number not in bound]
    return Manifest(
        FORMAT,
        graph.name,
        [
            RouteEntry(r.address, r.schema.descriptor(), r.secrecy, r.shreddable, kept.get(r.address))
            for r in graph.routes()
        ],
        sorted(operators, key=lambda entry: (entry.name, entry.sink or "", _text(entry))),
        sorted(
            (ConnectionEntry(source.address, sink.address) for _, source, sink in connections(graph)),
            key=lambda entry: (entry.source, entry.sink),
        ),
        sorted((_binding(shadow.binding) for shadow in shadows), key=lambda entry: entry.request),
    )


def _text(entry: OperatorEntry) -> str:
    import msgspec

    return json.dumps(msgspec.to_builtins(entry), sort_keys=True)


def _binding(binding: Any) -> BindingEntry:
    return BindingEntry(
        request=binding.request.address,
        desired=binding.desired.address,
        reported=binding.reported.address,
        effective=binding.effective.address,
        override=binding.override.address,
        ack=None if binding.ack is None else binding.ack.address,
        reconcile=None if binding.reconcile is None else function_name(binding.reconcile),
        write_ids=binding.write_ids,
        fire_and_forget=binding.fire_and_forget,
        report_within=binding.report_within,
    )
