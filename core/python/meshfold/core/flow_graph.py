"""The part of `Graph` that connects routes and says how what flows is held back (S5 to S8)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from meshfold._native import connections, credit_rows, mailbox_of
from meshfold.core.errors import WiringError
from meshfold.core.mailbox import Mailbox, MailboxDescriptor, MailboxSnapshot, snapshot_of
from meshfold.core.manifest.graph import Declared
from meshfold.core.operator import operator_rows
from meshfold.core.policy import (
    CREDIT_CLASSES,
    CreditInfo,
    EdgeDescription,
    FarReader,
    FlowPolicy,
    FlowSnapshot,
    builtin_policy,
    resolve,
)
from meshfold.core.route import Route, require_same_schema
from meshfold.core.schema import Schema
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Flow",)

T = TypeVar("T")
#: Stages that keep values by event time, in slots.
_WINDOWS: Final = ("window_time", "window_session")
#: Who gives credit back, by the label of an edge.
_AUTHORITIES: Final = {"mailbox": "mailbox", "tap": "bridge"}


class Flow(Declared):
    """The part of `Graph` that installs connections and mailboxes, and tells about credit."""

    _flow_default: FlowPolicy | None
    _flow_sources: dict[Route[Any], FlowPolicy]
    _flow_sinks: dict[Route[Any], FlowPolicy]
    _flow_edges: dict[int, FlowPolicy]
    #: by edge: what `connect` was told of it, and of queued connections where they lead
    _flow_given: dict[int, FlowPolicy]
    _queued_edges: dict[int, tuple[Route[Any], Route[Any]]]
    #: by edge of a tap: what tells the credit of readers on other nodes
    _far: dict[int, Callable[[], Iterable[FarReader]]]
    #: by edge of a mailbox: what it is connected to, by member
    _mail_sinks: dict[int, dict[str, Route[Any]]]
    #: by name: what it is and its edge. Not the object, which holds the graph where no garbage collector sees it.
    _mailboxes: dict[str, tuple[MailboxDescriptor, int, Route[Any], Route[Any], weakref.ref[Mailbox[Any]]]]

    def begin_flow(self) -> None:
        """Begin with nothing configured."""
        self._flow_default = None
        self._flow_sources, self._flow_sinks, self._flow_edges, self._mailboxes = {}, {}, {}, {}
        self._flow_given, self._queued_edges, self._mail_sinks, self._far = {}, {}, {}, {}

    def connect(
        self, source: Route[T] | Mailbox[T], sink: Route[T] | Mailbox[T], *, flow: FlowPolicy | None = None
    ) -> Edge:
        """Forward every event of `source` to `sink` as an event of its own with the source as parent (S5).

        A mailbox is meant by its ingress as a sink and by what it delivers as a source. The policy is composed of `flow`,
        the sink's, the source's, the mailboxes', the graph's and the built-in one, field by field (S8); `queued` puts a
        queue of the credit class's window in between, with its overflow rule.

        :raises SchemaMismatch: if the schemas differ
        :raises WiringError: if it would close a cycle that nothing cuts, or a mailbox takes no further consumer
        """
        into = sink.ingress if isinstance(sink, Mailbox) else sink
        out = source.ingress if isinstance(source, Mailbox) else source
        require_same_schema(out, into, "convert with pipe(source).map(...).into(sink)")
        policy = self.resolve_flow(source, sink, flow)
        if isinstance(source, Mailbox):
            edge: Edge = source.connect(into)
        elif policy.async_boundary == "queued" and not isinstance(sink, Mailbox):
            edge = self._queued(out, into, policy)
        else:
            name = f"{out.text} -> {into.text}"
            edge = Edge(
                self._graph(),
                self.attach_forward(out, into, name, policy.backpressure == "propagate"),
                sink=into,
            )
        self._flow_edges[edge.number] = policy
        if flow is not None and not isinstance(source, Mailbox):
            self._flow_given[edge.number] = flow
        return edge

    def _queued(self, source: Route[T], sink: Route[T], policy: FlowPolicy) -> Mailbox[T]:
        window = CREDIT_CLASSES[policy.credit_class or "default"]
        overflow: Any = policy.overflow
        if overflow == "spill_to_store":
            raise WiringError(
                "an edge has no folder to spill to",
                fix="put a mailbox with spill= in between",
                item=sink.text,
            )
        if policy.backpressure == "isolate" and overflow in ("block", "reject_write", "deadline_drop"):
            overflow = "drop_newest"
        descriptor = MailboxDescriptor(
            window.envelopes, "mpmc_unique", overflow_policy=overflow, max_bytes=window.payload_bytes
        )
        queue: Mailbox[T] = Mailbox(
            self._graph(),
            f"{source.text} -> {sink.text}",
            descriptor,
            source.schema,
            ingress=source,
            flow=policy,
        )
        queue.connect(sink)
        self._queued_edges[queue.number] = (source, sink)
        return queue

    def connected(self) -> list[tuple[Route[Any], Route[Any], FlowPolicy | None]]:
        """Connections of two routes, queued ones too, each with what `connect` was told of its flow."""
        rows = self.edge_rows()
        numbers = [row[0] for row in rows if row[2] == "connect"]
        found = [
            (source, sink, self._flow_given.get(number))
            for number, (_, source, sink) in zip(numbers, connections(self), strict=True)
        ]
        there = {row[0] for row in rows}
        found += [
            (source, sink, self._flow_given.get(number))
            for number, (source, sink) in self._queued_edges.items()
            if number in there
        ]
        return found

    def flows(self) -> list[tuple[Route[Any], Route[Any], int | None]]:
        """What leads from route to route beside operators: connections (None), and mailboxes with the number of their edge."""
        found: list[tuple[Route[Any], Route[Any], int | None]] = [
            (source, sink, None) for _, source, sink in connections(self)
        ]
        there = {row[0] for row in self.edge_rows()}
        found += [(*routes, number) for number, routes in self._queued_edges.items() if number in there]
        for name in self.mailboxes():
            _, ingress, _, sinks = self.mailbox_parts(name)
            found += [(ingress, sink, self._mailboxes[name][1]) for sink in sinks]
        return found

    def disconnect_routes(self, source: str, sink: str) -> Callable[[], object]:
        """Take the connection of two addresses off; returns what puts it back.

        :raises WiringError: if there is none
        """
        numbers = [row[0] for row in self.edge_rows() if row[2] == "connect"]
        pairs = [
            (number, from_, to) for number, (_, from_, to) in zip(numbers, connections(self), strict=True)
        ]
        pairs += [(number, *routes) for number, routes in self._queued_edges.items()]
        for number, from_, to in pairs:
            if (from_.address, to.address) == (source, sink):
                flow = self._flow_given.get(number)
                self.detach(number)
                return partial(self.connect, from_, to, flow=flow)
        raise WiringError(f"no connection {source} -> {sink}", fix="plan again", item=source)

    def detach(self, edge: int) -> None:
        """Take an edge or an operator off. Idempotent."""
        super().detach(edge)
        for known in (
            self._flow_given,
            self._queued_edges,
            self._mail_sinks,
            self._flow_edges,
            self._far,
        ):
            known.pop(edge, None)

    def mailboxes(self) -> list[str]:
        """Names of the installed mailboxes, sorted."""
        return sorted(name for name, row in self._mailboxes.items() if mailbox_of(self, row[1]) is not None)

    def mailbox_parts(self, name: str) -> tuple[MailboxDescriptor, Route[Any], Route[Any], list[Route[Any]]]:
        """A mailbox's descriptor, its ingress and poison routes, and the routes that it is connected to.

        :raises WiringError: if there is none of that name
        """
        found = self._mailboxes.get(name)
        if found is None or mailbox_of(self, found[1]) is None:
            raise WiringError(f"no mailbox is named {name}", fix="make it with graph.mailbox", item=name)
        descriptor, edge, ingress, poison, _ = found
        return descriptor, ingress, poison, list(self._mail_sinks.get(edge, {}).values())

    def remove_mailbox(self, name: str) -> Callable[[], object]:
        """Take a mailbox off by its name; what waits in it is counted as closed. Returns what installs it again, empty.

        :raises WiringError: if there is none of that name
        """
        descriptor, ingress, poison, sinks = self.mailbox_parts(name)
        box = self._mailboxes[name][4]()
        if box is not None:
            box.close()
        else:
            self.detach(self._mailboxes[name][1])

        def back() -> None:
            again = self.mailbox(name, descriptor, schema=ingress.schema, poison=poison)
            for sink in sinks:
                again.connect(sink)

        return back

    def note_mail_sink(self, edge: int, member: str, sink: Route[Any] | None) -> None:
        """Remember that a mailbox is connected to a route, or (None) is no more."""
        sinks = self._mail_sinks.setdefault(edge, {})
        if sink is None:
            sinks.pop(member, None)
        else:
            sinks[member] = sink

    def configured_flow(
        self,
    ) -> tuple[FlowPolicy | None, dict[Route[Any], FlowPolicy], dict[Route[Any], FlowPolicy]]:
        """What was configured: the graph's policy, those of sources, those of sinks."""
        return self._flow_default, dict(self._flow_sources), dict(self._flow_sinks)

    def configure_flow(
        self,
        default: FlowPolicy | None,
        sources: Mapping[Route[Any], FlowPolicy],
        sinks: Mapping[Route[Any], FlowPolicy],
    ) -> None:
        """Set all of it at once, for edges made from now on."""
        self._flow_default = default
        self._flow_sources, self._flow_sinks = dict(sources), dict(sinks)

    def resolve_flow(
        self,
        source: Route[Any] | Mailbox[Any],
        sink: Route[Any] | Mailbox[Any],
        edge: FlowPolicy | None = None,
    ) -> FlowPolicy:
        """The policy of an edge: for each field the first that is set (S8)."""
        into = sink.ingress if isinstance(sink, Mailbox) else sink
        out = source.ingress if isinstance(source, Mailbox) else source
        return resolve(
            [
                edge,
                self._flow_sinks.get(into),
                self._flow_sources.get(out),
                sink.flow if isinstance(sink, Mailbox) else None,
                source.flow if isinstance(source, Mailbox) else None,
                self._flow_default,
                builtin_policy(out),
            ]
        )

    def configure_flow_defaults(self, policy: FlowPolicy) -> None:
        """Set what edges made from now on get where nothing nearer says otherwise."""
        self._flow_default = policy

    def configure_source_flow(self, r: Route[Any], policy: FlowPolicy) -> None:
        """Set what edges from this route get, made from now on."""
        self._flow_sources[r] = policy

    def configure_sink_flow(self, r: Route[Any], policy: FlowPolicy) -> None:
        """Set what edges to this route have to have, made from now on."""
        self._flow_sinks[r] = policy

    def mailbox(
        self,
        name: str,
        descriptor: MailboxDescriptor | None = None,
        *,
        schema: Schema[T],
        poison: Route[T] | None = None,
    ) -> Mailbox[T]:
        """Install a mailbox (S12 to S14).

        :param poison: where goes what no consumer could work off; None: a route of its own
        :raises WiringError: if one of that name is installed, or the descriptor does not hold together
        :raises StoreUnavailable: if its folder cannot be used
        """
        found = self._mailboxes.get(name)
        if found is not None and mailbox_of(self, found[1]) is not None:
            raise WiringError(f"a mailbox named {name} exists", fix="use another name", item=name)
        box = Mailbox(self._graph(), name, descriptor or MailboxDescriptor(), schema, poison=poison)
        self._mailboxes[name] = (box.descriptor, box.number, box.ingress, box.poison, weakref.ref(box))
        return box

    def mailbox_snapshot(self, name: str) -> MailboxSnapshot:
        """A mailbox now.

        :raises WiringError: if there is none of that name
        """
        found = self._mailboxes.get(name)
        base = None if found is None else mailbox_of(self, found[1])
        if found is None or base is None:
            raise WiringError(f"no mailbox is named {name}", fix="make it with graph.mailbox", item=name)
        return snapshot_of(self._graph(), name, found[0], base)

    def note_far(self, edge: int, call: Callable[[], Iterable[FarReader]]) -> None:
        """Ask this for the credit of readers on other nodes behind a tap, until its edge is taken off."""
        self._far[edge] = call

    def credit_snapshot(self) -> list[CreditInfo]:
        """The credit of every edge that has a window: streams, queued observers, taps, mailboxes, queued connections; of
        readers on other nodes that hold a route up; and the slots of windows, which the watermark gives back and which
        lose by their own rule when there are none.
        """
        edges = self.edge_credit()
        return [*edges, *self._far_credit({info.edge: info for info in edges}), *self._window_slots()]

    def _far_credit(self, taps: Mapping[int, CreditInfo]) -> list[CreditInfo]:
        return [
            CreditInfo(
                edge=number,
                name=reader.name,
                route=taps[number].route,
                authority="reader",
                capacity=reader.window,
                available=reader.available,
                bytes_max=None,
                available_bytes=reader.available_bytes,
                gate=taps[number].gate,
                granted=reader.granted,
                spent=reader.granted - reader.available,
                on_the_way=reader.on_the_way,
                waiting=0,
                waits=reader.waits,
                rejected=0,
            )
            for number, call in list(self._far.items())
            if number in taps
            for reader in call()
        ]

    def edge_credit(self) -> list[CreditInfo]:
        """The credit of every edge of this graph that has a window."""
        names = {row[0]: row for row in self.edge_rows()}
        found: list[CreditInfo] = []
        for row in credit_rows(self):
            _, name, label, r, *_ = names[row["edge"]]
            found.append(
                CreditInfo(
                    edge=row["edge"],
                    name=name,
                    route=r.text,
                    authority=_AUTHORITIES.get(label, "consumer"),
                    capacity=row["capacity"],
                    available=row["available"],
                    bytes_max=row["bytes_max"],
                    available_bytes=row["available_bytes"],
                    gate=row["gate"],
                    granted=row["capacity"] + row["returned"],
                    spent=row["spent"],
                    on_the_way=row["on_the_way"],
                    waiting=row["waiting"],
                    waits=row["waits"],
                    rejected=row["rejected"],
                )
            )
        return found

    def _window_slots(self) -> list[CreditInfo]:
        edges = {row[0]: row for row in self.node_rows()}
        found: list[CreditInfo] = []
        for info in operator_rows(self._graph()):
            for stage in info.stages:
                most = stage.config.get("items_max")
                if stage.kind not in _WINDOWS or most is None:
                    continue
                held = stage.gauges["items"]
                lost = info.dropped.get("overflow_oldest", 0) + info.dropped.get("overflow_newest", 0)
                found.append(
                    CreditInfo(
                        edge=edges[info.id][10][0],
                        name=info.name,
                        route=info.inputs[0][0].text,
                        authority="window",
                        capacity=most,
                        available=max(0, most - held),
                        bytes_max=None,
                        available_bytes=None,
                        gate=False,
                        granted=most,
                        spent=held,
                        on_the_way=0,
                        waiting=0,
                        waits=0,
                        rejected=lost,
                        unit="slots",
                    )
                )
        return found

    def describe_edge(self, edge: Edge | int) -> EdgeDescription:
        """An edge with its counters' name, its credit, and the policy that the engine executes for it.

        :raises WiringError: if there is no such edge
        """
        number = edge if isinstance(edge, int) else edge.number
        for row in self.edge_rows():
            if row[0] == number:
                _, name, label, r, *_ = row
                break
        else:
            raise WiringError(f"no edge has the number {number}", fix="see graph.edges()", item="edge")
        credit = next((info for info in self.edge_credit() if info.edge == number), None)
        flow = self._flow_edges.get(number)
        if flow is None:
            overflow = next((row["overflow"] for row in credit_rows(self) if row["edge"] == number), None)
            flow = resolve([_as_built(overflow), builtin_policy(r)])
        return EdgeDescription(number, name, label, r.text, flow, credit)

    def flow_snapshot(self, r: Route[Any]) -> FlowSnapshot:
        """What holds a route up now."""
        credits = {info.edge: info for info in self.edge_credit()}
        dropped: dict[str, int] = {}
        depth = blocked = 0
        for number, _, _, at, row, *_ in self.edge_rows():
            if at != r:
                continue
            for reason, count in row[2].items():
                dropped[reason] = dropped.get(reason, 0) + count
            depth = max(depth, row[3])
            if number in credits:
                blocked += credits[number].waiting
        policy = resolve(
            [self._flow_sinks.get(r), self._flow_sources.get(r), self._flow_default, builtin_policy(r)]
        )
        lane = CREDIT_CLASSES[builtin_policy(r).credit_class or "default"].lane
        far = [info.available for info in self._far_credit(credits) if info.route == r.text]
        leaving = min(far, default=None)
        return FlowSnapshot(r.text, self.room_for(r), blocked, dropped, depth, lane, policy, leaving)

    def _graph(self) -> Graph:
        return cast("Graph", self)


def _as_built(overflow: str | None) -> FlowPolicy | None:
    """The policy of a queue that was made with an overflow rule."""
    if not overflow:
        return None
    held = overflow in ("block", "reject_write", "deadline_drop")
    return FlowPolicy("propagate" if held else "isolate", None, None, "queued", overflow)
