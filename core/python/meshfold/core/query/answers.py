"""How each command is answered: rows in the order of their keys, so that a page can be taken up where the last one ended.

Every answer is filtered by what the asker may see (S32): a route without META_READ is not there for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from meshfold._native import connections
from meshfold._native import kept as native_kept
from meshfold.core.address import Address
from meshfold.core.errors import MeshfoldError, PayloadGone, WiringError
from meshfold.core.event import Event, event_document
from meshfold.core.ids import parse_event_id
from meshfold.core.operator import operator_rows
from meshfold.core.query import commands as ask
from meshfold.core.query import rows as say
from meshfold.core.registry import Action
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.access import Sight
    from meshfold.core.graph import Graph
    from meshfold.core.policy import CreditInfo

__all__ = ("ANSWERS", "answer", "page", "visible")

#: Bytes of one page; a row larger than this is a page of its own.
PAGE_BYTES_MAX: Final = 256 * 1024
#: Causes one trace follows.
TRACE_EVENTS_MAX: Final = 10_000

Keyed: TypeAlias = Iterator[tuple[str, say.Row]]
Handler: TypeAlias = "Callable[[Graph, Sight, Any], Keyed]"


def page(keyed: Iterable[tuple[str, say.Row]], request: ask.Request) -> say.Answer:
    """Cut one page out of rows that come in the order of their keys."""
    rows: list[say.Row] = []
    size, last = 0, ""
    for key, row in keyed:
        if request.after and key <= request.after:
            continue
        cost = len(msgspec.json.encode(row))
        if rows and (len(rows) >= request.limit or size + cost > PAGE_BYTES_MAX):
            return say.Answer(rows, last)
        rows.append(row)
        size, last = size + cost, key
    return say.Answer(rows)


def _number(value: int) -> str:
    return f"{value:020d}"


def visible(graph: Graph, sight: Sight, text: str, action: Action) -> Route[Any]:
    """A route of the graph that the asker may act on; one it may not even see is unknown to it."""
    address = Address.parse(text)
    found = graph.route(address.tag)
    if found is None or not sight.sees(Action.META_READ, address):
        raise WiringError(
            f"no route {address.short} here", fix="the query `catalog` lists them", item=address.short
        )
    sight.require(action, found)
    return found


def _route_row(graph: Graph, r: Route[Any], edges: list[Any], sinks: dict[str, int]) -> say.RouteRow:
    kept = native_kept(graph, r)
    return say.RouteRow(
        route=r.text,
        address=r.address,
        schema=r.schema.descriptor(),
        schema_id=r.schema.id.hex(),
        secrecy=r.secrecy,
        published=graph.published(r),
        retained=len(kept),
        latest=kept[-1].id if kept else None,
        readers=sum(edge.route == r.text for edge in edges),
        writers=sinks.get(r.address, 0),
    )


def _sinks(graph: Graph) -> dict[str, int]:
    """How many operators and connections write each route."""
    found: dict[str, int] = {}
    for _, _, target in _writes(graph):
        found[target.address] = found.get(target.address, 0) + 1
    return found


def _writes(graph: Graph) -> Iterator[tuple[str, str, Route[Any]]]:
    """(name, kind, route) of everything in the graph that writes a route by itself."""
    for info in operator_rows(graph):
        if info.sink is not None:
            yield info.name, info.label, info.sink
        for _, side, r in info.sides:
            yield f"{info.name} ({side})", info.label, r
    for name, _, target in connections(graph):
        yield name, "connect", target
    for name in graph.mailboxes():
        for target in graph.mailbox_parts(name)[3]:
            yield name, "mailbox", target
    for loop in graph.control_loops():
        for target in loop.writes:
            yield loop.name, "control loop", target


def catalog(graph: Graph, sight: Sight, q: ask.Catalog) -> Keyed:
    """Routes by address."""
    edges, sinks = graph.edges(), _sinks(graph)
    for r in graph.routes():
        if r.address.startswith(q.prefix) and sight.sees(Action.META_READ, r.addr):
            yield r.address, _route_row(graph, r, edges, sinks)


def describe(graph: Graph, sight: Sight, q: ask.Describe) -> Keyed:
    """The route, then its readers, then its writers, then its taints."""
    r = visible(graph, sight, q.route, Action.META_READ)
    yield "0", _route_row(graph, r, graph.edges(), _sinks(graph))
    for place, rows in enumerate(
        (
            subscribers(graph, sight, ask.Subscribers(q.route)),
            writers(graph, sight, ask.Writers(q.route)),
            taints(graph, sight, ask.Taints(q.route)),
        )
    ):
        for key, row in rows:
            yield f"{place + 1} {key}", row


def topology(graph: Graph, sight: Sight, q: ask.Topology) -> Keyed:
    """Routes, operators, readers and links; what touches a route that the asker does not see is left out."""
    seen = {r.address for r in graph.routes() if sight.sees(Action.META_READ, r.addr)}
    edges, sinks = graph.edges(), _sinks(graph)
    for r in graph.routes():
        if r.address in seen:
            yield f"0 {r.address}", _route_row(graph, r, edges, sinks)
    infos = operator_rows(graph)
    shown = [info for info in infos if all(r.address in seen for r in _touched(info))]
    for info in shown:
        yield f"1 {_number(info.id)}", _operator_row(info)
    for info in shown:
        for place, (r, _, _) in enumerate(info.inputs):
            link = say.LinkRow(f"route:{r.text}", f"operator:{info.id}", info.label)
            yield f"2 {_number(info.id)} in {place:06d}", link
        outputs = [info.sink] if info.sink is not None else []
        for place, r in enumerate([*outputs, *(r for _, _, r in info.sides)]):
            link = say.LinkRow(f"operator:{info.id}", f"route:{r.text}", info.label)
            yield f"2 {_number(info.id)} out {place:06d}", link
    for place, (_, source, target) in enumerate(connections(graph)):
        if source.address in seen and target.address in seen:
            link = say.LinkRow(f"route:{source.text}", f"route:{target.text}", "connect")
            yield f"3 {place:06d}", link
    readers = [edge for edge in edges if edge.operator is None and edge.kind != "connect"]
    for place, edge in enumerate(readers):
        if Address.parse(edge.route).text in seen:
            kind = "mailbox" if edge.kind == "mailbox" else "reader"
            yield f"4 {place:06d}", say.LinkRow(f"route:{edge.route}", f"{kind}:{edge.name}", edge.kind)
    for place, (start, end, label) in enumerate(_parts_links(graph, seen)):
        yield f"5 {place:06d}", say.LinkRow(start, end, label)


def _parts_links(graph: Graph, seen: set[str]) -> Iterator[tuple[str, str, str]]:
    """What leads out of mailboxes, and into and out of control loops."""
    for name in graph.mailboxes():
        _, ingress, _, sinks = graph.mailbox_parts(name)
        if ingress.address in seen:
            for r in sinks:
                if r.address in seen:
                    yield f"mailbox:{name}", f"route:{r.text}", "mailbox"
    for loop in graph.control_loops():
        if all(r.address in seen for r in (*loop.reads, *loop.writes)):
            yield from ((f"route:{r.text}", f"loop:{loop.name}", "control loop") for r in loop.reads)
            yield from ((f"loop:{loop.name}", f"route:{r.text}", "control loop") for r in loop.writes)


def _touched(info: Any) -> list[Route[Any]]:
    sinks = [info.sink] if info.sink is not None else []
    return [*(r for r, _, _ in info.inputs), *sinks, *(r for _, _, r in info.sides)]


def _operator_row(info: Any) -> say.OperatorRow:
    return say.OperatorRow(
        id=info.id,
        name=info.name,
        label=info.label,
        stages=[{"kind": s.kind, "with": s.config, "gauges": s.gauges} for s in info.stages],
        inputs=[r.text for r, _, _ in info.inputs],
        sink=info.sink.text if info.sink is not None else None,
        emitted=info.emitted,
        failed=info.failed,
        dropped=info.dropped,
    )


def latest(graph: Graph, sight: Sight, q: ask.Latest) -> Keyed:
    """The newest event."""
    event = graph.latest(visible(graph, sight, q.route, Action.PAYLOAD_OPEN))
    if event is not None:
        yield "0", say.EventRow(event_document(event))


def replay(graph: Graph, sight: Sight, q: ask.Replay) -> Keyed:
    """What is retained, and before it what was asked for and is gone (S16)."""
    r = visible(graph, sight, q.route, Action.PAYLOAD_OPEN)
    sight.require(Action.REPLAY_READ, r)
    replayed = graph.replay(r, since=q.since, until=q.until)
    for place, (first, last) in enumerate(replayed.missing):
        yield f"0 {_number(place)}", say.GapRow(r.text, first, last)
    for place, event in enumerate(replayed.events):
        yield f"1 {_number(place)}", say.EventRow(event_document(event))


def _find(graph: Graph, sight: Sight, event: str, action: Action) -> Event[Any]:
    found = graph.find(*parse_event_id(event))
    if found is None or not sight.sees(Action.META_READ, found.route.addr):
        raise WiringError(f"no event {event} is retained here", item=event)
    sight.require(action, found.route)
    return found


def trace(graph: Graph, sight: Sight, q: ask.Trace) -> Keyed:
    """Causes breadth first; each once, so that no chain of ids can go round (HS8)."""
    _find(graph, sight, q.event, Action.META_READ)
    waiting, seen, number = [(q.event, 0)], {q.event}, 0
    while waiting and number < TRACE_EVENTS_MAX:
        identity, depth = waiting.pop(0)
        event = graph.find(*parse_event_id(identity))
        if event is None or not sight.sees(Action.META_READ, event.route.addr):
            yield _number(number), say.TraceRow(identity, depth, False)
        else:
            row = say.TraceRow(
                identity,
                depth,
                True,
                event.route.text,
                event.operator,
                event.time,
                list(event.taints),
                list(event.parents),
            )
            yield _number(number), row
            for parent in event.parents:
                if parent not in seen:
                    seen.add(parent)
                    waiting.append((parent, depth + 1))
        number += 1


def watermark(graph: Graph, sight: Sight, q: ask.Watermark) -> Keyed:
    """Stages that keep event time."""
    for info in operator_rows(graph):
        if not all(sight.sees(Action.META_READ, r.addr) for r in _touched(info)):
            continue
        for place, stage in enumerate(info.stages):
            if "watermark" in stage.gauges:
                row = say.WatermarkRow(info.name, place, stage.kind, stage.gauges["watermark"])
                yield f"{_number(info.id)} {place:06d}", row


def buffer_stats(graph: Graph, sight: Sight, q: ask.BufferStats) -> Keyed:
    """Counters of edges, of one route or of all that the asker sees."""
    wanted = visible(graph, sight, q.route, Action.META_READ).text if q.route is not None else None
    for place, edge in enumerate(graph.edges()):
        if wanted is not None and edge.route != wanted:
            continue
        if wanted is None and not sight.sees(Action.META_READ, Address.parse(edge.route)):
            continue
        c = edge.counters
        yield (
            _number(place),
            say.EdgeRow(
                edge.route,
                edge.name,
                edge.kind,
                c.offered,
                c.delivered,
                dict(c.dropped),
                c.pending,
                c.replayed,
            ),
        )


def credit_stats(graph: Graph, sight: Sight, q: ask.CreditStats) -> Keyed:
    """Room of one route, or of all that the asker sees, each followed by the windows that make it so."""
    wanted = [visible(graph, sight, q.route, Action.META_READ)] if q.route is not None else graph.routes()
    windows: dict[str, list[CreditInfo]] = {}
    for info in graph.credit_snapshot():
        windows.setdefault(info.route, []).append(info)
    for r in wanted:
        if not sight.sees(Action.META_READ, r.addr):
            continue
        yield f"{r.address} 0", say.CreditRow(r.text, graph.credit_for(r))
        for place, info in enumerate(windows.get(r.text, ()), 1):
            yield (
                f"{r.address} {place:06d}",
                say.EdgeCreditRow(
                    r.text,
                    info.name,
                    info.authority,
                    info.unit,
                    info.capacity,
                    info.available,
                    info.available_bytes,
                    info.gate,
                    info.granted,
                    info.spent,
                    info.on_the_way,
                    info.waiting,
                    info.waits,
                    info.rejected,
                ),
            )


def shadow(graph: Graph, sight: Sight, q: ask.Shadow) -> Keyed:
    """The state of one write binding."""
    r = visible(graph, sight, q.route, Action.META_READ)
    found = next((shadow for shadow in graph.shadows() if shadow.binding.request == r), None)
    if found is None:
        raise WiringError(f"{r.text} is not bound here", fix="bind it with graph.bind", item=r.text)
    for part in (found.binding.desired, found.binding.reported, found.binding.effective):
        sight.require(Action.PAYLOAD_OPEN, part)
    state = found.state()

    def document(event: Event[Any] | None) -> dict[str, Any] | None:
        return None if event is None else event_document(event)

    yield (
        "0",
        say.ShadowRow(
            r.text,
            state.write,
            document(state.desired),
            document(state.reported),
            document(state.effective),
            document(state.ack),
            list(state.coherence),
            state.by,
            state.requests,
            state.unmatched,
        ),
    )


def subscribers(graph: Graph, sight: Sight, q: ask.Subscribers) -> Keyed:
    """The edges of a route."""
    return buffer_stats(graph, sight, ask.BufferStats(q.route))


def writers(graph: Graph, sight: Sight, q: ask.Writers) -> Keyed:
    """Whoever wrote or writes a route."""
    r = visible(graph, sight, q.route, Action.META_READ)
    writing = [(name, kind) for name, kind, target in _writes(graph) if target.address == r.address]
    if graph.published(r):
        yield "0", say.WriterRow(r.text, graph.name, "publish", graph.published(r))
    for place, (name, kind) in enumerate(writing):
        yield f"1 {place:06d}", say.WriterRow(r.text, name, kind, graph.published(r))
    for producer, incarnation, _, last, _ in graph.track_rows(r):
        yield f"2 {producer.hex()}{incarnation.hex()}", say.WriterRow(r.text, producer.hex(), "remote", last)


def taints(graph: Graph, sight: Sight, q: ask.Taints) -> Keyed:
    """The bound of the route, then each taint of what is retained."""
    r = visible(graph, sight, q.route, Action.META_READ)
    bound = graph.taint_bound(r)
    declared = None if bound.declared is None else sorted(map(str, bound.declared))
    yield "0", say.BoundRow(r.text, declared, sorted(map(str, bound.seen)))
    found: dict[str, list[str]] = {}
    for event in native_kept(graph, r):
        for taint in event.taints:
            found.setdefault(taint, []).append(event.id)
    for taint, events in sorted(found.items()):
        yield f"1 {taint}", say.TaintRow(r.text, taint, events[0], len(events))


def validate(graph: Graph, sight: Sight, q: ask.Validate) -> Keyed:
    """What is wired wrongly, observers and operators that fail, queues that lose."""
    sight.require_any(Action.VALIDATE)
    for place, problem in enumerate(graph.validate_graph()):
        yield f" {_number(place)}", say.ProblemRow("wiring", problem.route, f"{problem.what}; {problem.fix}")
    for place, edge in enumerate(graph.edges()):
        lost = {reason: count for reason, count in edge.counters.dropped.items() if count}
        if edge.counters.unexplained:
            detail = f"{edge.counters.unexplained} events are unexplained"
            yield f"0 {_number(place)}", say.ProblemRow("accounting", f"{edge.route} {edge.name}", detail)
        if lost:
            detail = ", ".join(f"{count} {reason}" for reason, count in lost.items())
            yield f"1 {_number(place)}", say.ProblemRow("loss", f"{edge.route} {edge.name}", detail)
    for info in operator_rows(graph):
        if info.failed:
            yield f"2 {_number(info.id)}", say.ProblemRow("failure", info.name, f"{info.failed} items failed")
    for place, (where, error) in enumerate(graph.failures()[1]):
        yield f"3 {_number(place)}", say.ProblemRow("failure", where, error)


def explain_join(graph: Graph, sight: Sight, q: ask.ExplainJoin) -> Keyed:
    """Joins by name; one with a route that the asker does not see is unknown to it."""
    shown = [
        record
        for record in graph.joins()
        if q.name in (None, record.name)
        and all(sight.sees(Action.META_READ, Address.parse(text)) for text in record.routes)
    ]
    if q.name is not None and not shown:
        raise WiringError(f"no join {q.name[:60]!r} here", fix="graph.plan_join makes one", item="join")
    for record in shown:
        told = record.explain(graph)
        yield (
            told.name,
            say.JoinRow(
                told.name,
                told.kind,
                told.reason,
                list(told.routes),
                bool(record.operators),
                told.items,
                told.largest_partition_size,
                told.hot_key_frequency,
                told.skew,
            ),
        )


def open_payload(graph: Graph, sight: Sight, q: ask.OpenPayload) -> Keyed:
    """The bytes."""
    event = _find(graph, sight, q.event, Action.PAYLOAD_OPEN)
    if event.payload is None:
        raise PayloadGone(f"event {q.event} has no payload here", event=q.event, route=event.route.text)
    yield "0", say.PayloadRow(q.event, event.payload)


def audit(graph: Graph, sight: Sight, q: ask.Audit) -> Keyed:
    """Entries of the audit about routes that the asker may debug."""
    sight.require_any(Action.DEBUG_READ)
    for entry in sight.entries(q.since):
        if entry.address is None or sight.sees(Action.DEBUG_READ, entry.address):
            yield _number(entry.number), entry.row()


ANSWERS: Final[dict[type[Any], Handler]] = {
    ask.Catalog: catalog,
    ask.Describe: describe,
    ask.Topology: topology,
    ask.Latest: latest,
    ask.Replay: replay,
    ask.Trace: trace,
    ask.Watermark: watermark,
    ask.BufferStats: buffer_stats,
    ask.CreditStats: credit_stats,
    ask.Shadow: shadow,
    ask.Subscribers: subscribers,
    ask.Writers: writers,
    ask.Taints: taints,
    ask.Validate: validate,
    ask.ExplainJoin: explain_join,
    ask.OpenPayload: open_payload,
    ask.Audit: audit,
}


def answer(graph: Graph, sight: Sight, request: ask.Request) -> say.Answer:
    """One page; an error of ours is answered by code and text."""
    try:
        request.checked()
        return page(ANSWERS[type(request.command)](graph, sight, request.command), request)
    except MeshfoldError as error:
        return say.Answer(error=error.code, message=str(error))
