"""From one wiring to another: what would change, and changing it - all of it, or nothing.

A plan is made against the graph as it is and names every step. Applying one to a graph that has changed meanwhile is
refused. A step that fails takes back those before it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from meshfold.core.address import Address
from meshfold.core.errors import MeshfoldError, SchemaMismatch, WiringError
from meshfold.core.links import Link, LinkCapabilities
from meshfold.core.manifest.document import (
    BindingEntry,
    ConnectionEntry,
    FlowEntry,
    LinkEntry,
    LoopEntry,
    MailboxEntry,
    Manifest,
    OperatorEntry,
    RouteEntry,
    descriptor_of,
    policy_of,
    refused,
)
from meshfold.core.route import Route
from meshfold.core.schema import Schema

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Change", "Plan", "diff", "make_plan")

Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `+`, `-` or `~`, of what, and which."""

    sign: str
    kind: str
    item: str

    def __str__(self) -> str:
        return f"{self.sign} {self.kind} {self.item}"


def _key(entry: msgspec.Struct) -> str:
    return json.dumps(msgspec.to_builtins(entry), sort_keys=True)


def _title(entry: Any) -> str:
    if isinstance(entry, OperatorEntry | MailboxEntry | LoopEntry | LinkEntry):
        return entry.name
    if isinstance(entry, FlowEntry):
        return "policies"
    if isinstance(entry, ConnectionEntry):
        return f"{entry.source} -> {entry.sink}"
    return entry.request if isinstance(entry, BindingEntry) else entry.address


def _apart(old: Iterable[Any], new: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """What only the old has and what only the new has, equal entries counted one against the other."""
    old, new = list(old), list(new)
    have, want = Counter(map(_key, old)), Counter(map(_key, new))
    gone, added = have - want, want - have

    def pick(entries: list[Any], left: Counter[str]) -> list[Any]:
        picked: list[Any] = []
        for entry in entries:
            if left[_key(entry)] > 0:
                left[_key(entry)] -= 1
                picked.append(entry)
        return picked

    return pick(old, gone), pick(new, added)


def _kinds(old: Manifest, new: Manifest) -> list[tuple[str, Sequence[Any], Sequence[Any]]]:
    """What two manifests have of each kind, in the order in which it is installed."""
    return [
        ("link", old.links, new.links),
        (
            "flow",
            [] if old.flow is None else [old.flow],
            [] if new.flow is None else [new.flow],
        ),
        ("mailbox", old.mailboxes, new.mailboxes),
        ("operator", old.operators, new.operators),
        ("connection", old.connections, new.connections),
        ("binding", old.bindings, new.bindings),
        ("loop", old.loops, new.loops),
    ]


def diff(old: Manifest, new: Manifest) -> list[Change]:
    """Every difference between two manifests, in the order of their entries."""
    changes: list[Change] = []
    before = {entry.address: entry for entry in old.routes}
    after = {entry.address: entry for entry in new.routes}
    for address in sorted(before.keys() | after.keys()):
        if address not in after:
            changes.append(Change("-", "route", address))
        elif address not in before:
            changes.append(Change("+", "route", address))
        elif before[address] != after[address]:
            changes.append(Change("~", "route", address))
    for kind, left, right in _kinds(old, new):
        gone, added = _apart(left, right)
        changes += [Change("-", kind, _title(entry)) for entry in gone]
        changes += [Change("+", kind, _title(entry)) for entry in added]
    return changes


@dataclass
class Plan:
    """Steps from the graph as it was to a manifest. `changes` says them; `apply` does them."""

    graph: Graph
    target: Manifest
    functions: Functions
    base: bytes
    changes: list[Change]
    remove: list[Any] = field(default_factory=list[Any])
    add: list[Any] = field(default_factory=list[Any])
    routes: list[RouteEntry] = field(default_factory=list[RouteEntry])

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes)) or "nothing to do"

    def apply(self) -> None:
        """Change the graph.

        :raises WiringError: if the graph has changed since the plan was made, or a step cannot be done; then it is as before
        """
        if self.graph.manifest().encode() != self.base:
            raise WiringError(
                "the graph has changed since this plan was made", fix="plan again", item=self.graph.name
            )
        undo: list[Callable[[], object]] = []
        entry: Any = None
        try:
            steps: list[tuple[Callable[[Any], Callable[[], object]], Any]] = [
                *((self._declare, entry) for entry in self.routes),
                *((self.graph.take_off, entry) for entry in self.remove),
                *((self._install, entry) for entry in self.add),
            ]
            for step, entry in steps:
                undo.append(step(entry))
        except MeshfoldError as error:
            for back in reversed(undo):
                back()
            raise refused(_title(entry), error.what, error.fix) from error

    def _route(self, address: str) -> Route[Any]:
        parsed = Address.parse(address)
        found = self.graph.route(parsed.tag)
        if found is None:
            raise WiringError(f"no route {address}", item=address)
        return found

    def _declare(self, entry: RouteEntry) -> Callable[[], object]:
        parsed = Address.parse(entry.address)
        known = self.graph.route(parsed.tag)
        if known is None:
            secrecy: Any = entry.secrecy
            known = Route(parsed, Schema.from_descriptor(entry.schema), secrecy, entry.shreddable)
            self.graph.declare(known)
        before = self.graph.retention_of(known)
        if entry.taints is not None:
            # It only grows, so there is nothing to take back.
            self.graph.bound_taints(known, entry.taints)
        self.graph.set_retention(known, entry.retention)
        made = known
        return lambda: self.graph.set_retention(made, before)

    def _install(self, entry: Any) -> Callable[[], object]:
        if isinstance(entry, ConnectionEntry):
            flow = None if entry.flow is None else policy_of(entry.flow)
            return self.graph.connect(self._route(entry.source), self._route(entry.sink), flow=flow).close
        if isinstance(entry, BindingEntry):
            return self._bind(entry)
        if isinstance(entry, MailboxEntry):
            return self._mailbox(entry)
        if isinstance(entry, LoopEntry):
            return self._loop(entry)
        if isinstance(entry, LinkEntry):
            self.graph.register_link(Link(entry.name, entry.kind, LinkCapabilities.of(entry.capabilities)))
            return lambda: self.graph.unregister_link(entry.name)
        if isinstance(entry, FlowEntry):
            return self._flow(entry)
        return self._operator(entry)

    def _mailbox(self, entry: MailboxEntry) -> Callable[[], object]:
        ingress = self._route(entry.ingress)
        box = self.graph.mailbox(
            entry.name, descriptor_of(entry), schema=ingress.schema, poison=self._route(entry.poison)
        )
        try:
            if box.ingress != ingress:
                raise WiringError(
                    f"{entry.ingress} is not the ingress of a mailbox named {entry.name}",
                    fix=f"it is {box.ingress.address}",
                    item=entry.ingress,
                )
            for sink in entry.sinks:
                box.connect(self._route(sink))
        except MeshfoldError:
            box.close()
            raise
        return box.close

    def _loop(self, entry: LoopEntry) -> Callable[[], object]:
        missing: Any = entry.missing
        loop = self.graph.control_loop(
            entry.name,
            reads=[self._route(address) for address in entry.reads],
            writes=[self._route(address) for address in entry.writes],
            step=self._call(entry.step),
            missing=missing,
            max_age=entry.max_age,
        )
        for address in entry.follows:
            loop.follow(self._route(address))
        return loop.close

    def _flow(self, entry: FlowEntry) -> Callable[[], object]:
        before = self.graph.configured_flow()
        default = None if entry.default is None else policy_of(entry.default)
        sources = {self._route(address): policy_of(policy) for address, policy in entry.sources.items()}
        sinks = {self._route(address): policy_of(policy) for address, policy in entry.sinks.items()}
        self.graph.configure_flow(default, sources, sinks)
        return lambda: self.graph.configure_flow(*before)

    def _call(self, name: str) -> Callable[..., Any]:
        found = self.functions.get(name)
        if found is None:
            raise WiringError(
                f"the function {name!r} is not given", fix="pass functions={name: function}", item=name
            )
        return found

    def _operator(self, entry: OperatorEntry) -> Callable[[], object]:
        routes: list[Route[Any]] = []

        def place(address: str) -> int:
            routes.append(self._route(address))
            return len(routes) - 1

        functions: list[list[tuple[str, Callable[..., Any]]]] = []
        stages: list[dict[str, Any]] = []
        for stage in entry.stages:
            if stage.kind == "foreign":
                functions.append([(way, self._call(name)) for way, name in stage.functions])
                names = [f"{way} {name}" for way, name in stage.functions]
                with_ = {"functions": names}
                stages.append({"kind": "foreign", "function": len(functions) - 1, "with": with_})
            else:
                stages.append({"kind": stage.kind, "with": stage.config})
        spec: dict[str, Any] = {
            "name": entry.name,
            "label": entry.label,
            "stages": stages,
            "inputs": [
                {
                    "route": place(given.route),
                    "stage": given.stage,
                    "port": given.port,
                    "replay": given.replay,
                }
                for given in entry.inputs
            ],
            "sides": [
                {"stage": side.stage, "side": side.side, "route": place(side.route)} for side in entry.sides
            ],
        }
        if entry.sink is not None:
            spec["sink"] = place(entry.sink)
        observer = None if entry.observer is None else self._call(entry.observer)
        number = self.graph.install(json.dumps(spec), routes, functions, observer)
        return lambda: self.graph.detach(number)

    def _bind(self, entry: BindingEntry) -> Callable[[], object]:
        from meshfold.core.writes import WriteBinding

        shadow = self.graph.bind(
            WriteBinding(
                request=self._route(entry.request),
                desired=self._route(entry.desired),
                reported=self._route(entry.reported),
                effective=self._route(entry.effective),
                override=self._route(entry.override),
                ack=None if entry.ack is None else self._route(entry.ack),
                reconcile=None if entry.reconcile is None else self._call(entry.reconcile),
                write_ids=entry.write_ids,
                fire_and_forget=entry.fire_and_forget,
                report_within=entry.report_within,
            )
        )
        return shadow.close


def make_plan(graph: Graph, target: Manifest, functions: Functions, prune: bool) -> Plan:
    """Plan the way from the graph to the manifest; see `Graph.plan`."""
    now = graph.manifest()
    have = {entry.address: entry for entry in now.routes}
    for place, entry in enumerate(target.routes):
        known = have.get(entry.address)
        if known is not None and known.schema != entry.schema:
            raise SchemaMismatch(
                f"manifest: routes[{place}]: {entry.address} is in the graph with another schema",
                fix="use one schema for a route, or another graph",
                route=entry.address,
                expected=str(known.schema.get("name")),
                found=str(entry.schema.get("name")),
            )
    plan = Plan(graph, target, functions, now.encode(), [])
    plan.routes = [entry for entry in target.routes if have.get(entry.address) != entry]
    for entry in plan.routes:
        plan.changes.append(Change("~" if entry.address in have else "+", "route", entry.address))
    for kind, left, right in _kinds(now, target):
        gone, added = _apart(left, right)
        if not prune:
            # What has a new form goes; what the manifest does not know stays.
            titles = {_title(entry) for entry in added}
            gone = [entry for entry in gone if kind != "connection" and _title(entry) in titles]
        plan.remove += gone
        plan.add += added
        plan.changes += [Change("-", kind, _title(entry)) for entry in gone]
        plan.changes += [Change("+", kind, _title(entry)) for entry in added]
    _check_functions(plan)
    return plan


def _check_functions(plan: Plan) -> None:
    """Every function that a step needs is there, before anything changes."""
    needed: Counter[str] = Counter()
    for entry in plan.add:
        if isinstance(entry, OperatorEntry):
            needed.update(name for stage in entry.stages for _, name in stage.functions)
            needed.update([entry.observer] if entry.observer is not None else [])
        if isinstance(entry, BindingEntry) and entry.reconcile is not None:
            needed[entry.reconcile] += 1
        if isinstance(entry, LoopEntry):
            needed[entry.step] += 1
    for name, count in sorted(needed.items()):
        if count > 1 and "<lambda>" in name:
            raise WiringError(
                f"manifest: {count} functions are called {name!r}, so which is which cannot be told",
                fix="use functions with names",
                item=name,
            )
    missing = sorted(needed.keys() - plan.functions.keys())
    if missing:
        raise WiringError(
            f"manifest: functions that are not given: {', '.join(missing[:8])}",
            fix="pass functions={name: function}",
            item=missing[0],
        )
