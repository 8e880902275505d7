"""A manifest of a graph as it is wired now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import msgspec
from meshfold.core.mailbox import MailboxDescriptor
from meshfold.core.manifest.document import (
    FORMAT,
    BindingEntry,
    ConnectionEntry,
    FlowEntry,
    InputEntry,
    LinkEntry,
    LoopEntry,
    MailboxEntry,
    Manifest,
    OperatorEntry,
    PolicyEntry,
    RetentionEntry,
    RouteEntry,
    SideEntry,
    StageEntry,
)

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.policy import FlowPolicy
    from meshfold.core.route import Route
    from meshfold.core.writes.loop import ControlLoop

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
            RouteEntry(
                r.address,
                r.schema.descriptor(),
                r.secrecy,
                r.shreddable,
                kept.get(r.address),
                _bound(graph, r),
            )
            for r in graph.routes()
        ],
        sorted(operators, key=lambda entry: (entry.name, entry.sink or "", _text(entry))),
        sorted(
            (
                ConnectionEntry(source.address, sink.address, policy_entry(flow))
                for source, sink, flow in graph.connected()
            ),
            key=lambda entry: (entry.source, entry.sink, _text(entry)),
        ),
        sorted((_binding(shadow.binding) for shadow in shadows), key=lambda entry: entry.request),
        [mailbox_entry(graph, name) for name in graph.mailboxes()],
        [loop_entry(loop) for loop in graph.control_loops()],
        [LinkEntry(link.name, link.kind, link.capabilities.names()) for link in graph.links()],
        flow_entry(graph),
    )


def _bound(graph: Graph, r: Route[Any]) -> list[str] | None:
    declared = graph.taint_bound(r).declared
    return None if declared is None else sorted(map(str, declared))


def policy_entry(policy: FlowPolicy | None) -> PolicyEntry | None:
    """A policy as a document."""
    if policy is None:
        return None
    return PolicyEntry(**{name: getattr(policy, name) for name in PolicyEntry.__struct_fields__})


def flow_entry(graph: Graph) -> FlowEntry | None:
    """What was configured of flow; None: nothing."""
    default, sources, sinks = graph.configured_flow()
    if default is None and not sources and not sinks:
        return None

    def by_address(policies: Mapping[Any, FlowPolicy]) -> dict[str, PolicyEntry]:
        found = {r.address: policy_entry(policy) for r, policy in policies.items()}
        return {address: entry for address, entry in sorted(found.items()) if entry is not None}

    return FlowEntry(policy_entry(default), by_address(sources), by_address(sinks))


def mailbox_entry(graph: Graph, name: str) -> MailboxEntry:
    """A mailbox as a document."""
    descriptor, ingress, poison, sinks = graph.mailbox_parts(name)
    default = MailboxDescriptor()
    said = {
        field.name: getattr(descriptor, field.name)
        for field in fields(descriptor)
        if field.name != "spill" and getattr(descriptor, field.name) != getattr(default, field.name)
    }
    if descriptor.spill is not None:
        said["spill"] = str(descriptor.spill)
    if "weights" in said:
        said["weights"] = dict(sorted(said["weights"].items()))
    return MailboxEntry(name, ingress.address, poison.address, said, sorted(r.address for r in sinks))


def loop_entry(loop: ControlLoop) -> LoopEntry:
    """A control loop as a document."""
    return LoopEntry(
        loop.name,
        [r.address for r in loop.reads],
        [r.address for r in loop.writes],
        function_name(loop.step),
        loop.missing,
        loop.max_age,
        sorted(r.address for r in loop.follows()),
    )


def _text(entry: msgspec.Struct) -> str:
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
