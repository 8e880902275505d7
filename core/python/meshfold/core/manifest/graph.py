"""The part of `Graph` that remembers how it was wired, says so, and changes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from meshfold._native import own
from meshfold.core.errors import WiringError
from meshfold.core.writes.graph import Writes

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.manifest.document import Manifest, RetentionEntry
    from meshfold.core.manifest.plan import Plan
    from meshfold.core.manifest.written import Installed
    from meshfold.core.query import Answer
    from meshfold.core.route import Route

__all__ = ("Declared",)


class Declared(Writes):
    """The part of `Graph` behind `manifest`, `plan`, `load` and diagrams."""

    _installed: dict[int, Installed]
    _retention: dict[str, RetentionEntry]

    def install(
        self,
        spec: str,
        routes: Sequence[Route[Any]],
        functions: Sequence[list[tuple[str, Callable[..., Any]]]],
        observer: Callable[[Any], Any] | None,
    ) -> int:
        """Install an operator from its description, and remember it for the manifest."""
        from meshfold.core.manifest.written import Installed

        installed = Installed(json.loads(spec), tuple(routes), list(functions), observer)
        state = _materialized(installed)
        if state is not None and state in map(_materialized, self._installed.values()):
            raise WiringError(
                f"{state.text} is materialized from another route already",
                fix="close that first, or merge the sources",
                item=state.text,
            )
        number = super().install(spec, list(routes), list(functions), observer)
        self._installed[number] = installed
        if state is not None:
            # What a state is made of is what is materialized: nobody else writes it.
            own(self, state, True)
        return number

    def detach(self, edge: int) -> None:
        """Take an edge or an operator off. Idempotent."""
        super().detach(edge)
        installed = self._installed.pop(edge, None)
        if installed is not None and (state := _materialized(installed)) is not None:
            own(self, state, False)

    def retain(self, r: Route[Any], events: int, bytes: int | None, age: int | None) -> None:
        """Set what a route keeps, and remember it for the manifest."""
        from meshfold.core.manifest.document import RetentionEntry

        super().retain(r, events, bytes, age)
        self._retention[r.address] = RetentionEntry(events, bytes, age)

    def retention_of(self, r: Route[Any]) -> RetentionEntry | None:
        """What the route was told to keep; None: the default."""
        return self._retention.get(r.address)

    def set_retention(self, r: Route[Any], entry: RetentionEntry | None) -> None:
        """Set what a route keeps from a manifest's entry; None: the default of 8 events."""
        if entry is not None:
            self.retain(r, entry.events, entry.bytes, entry.age)
        elif self._retention.pop(r.address, None) is not None:
            super().retain(r, 8, None, None)

    def manifest(self) -> Manifest:
        """The wiring as a typed document: routes, operators, connections, write bindings. Equal wiring gives equal bytes
        of `manifest().encode()`, whatever the order it was made in.
        """
        from meshfold.core.manifest.written import write_manifest

        return write_manifest(self._graph(), self._installed, self._retention)

    def plan(
        self,
        manifest: Manifest | bytes | str | dict[str, Any],
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        prune: bool = False,
    ) -> Plan:
        """Compare the graph with a manifest: `print(plan)` says what would change, `plan.apply()` changes it.

        :param functions: Python functions by the names that the manifest gives them
        :param prune: also take off what the manifest does not have; routes stay, they may hold events
        :raises WiringError: if the document is not a manifest, or needs a function that is not given; nothing changed
        :raises SchemaMismatch: if a route is in the graph with another schema
        """
        from meshfold.core.manifest.document import read_manifest
        from meshfold.core.manifest.plan import make_plan

        return make_plan(self._graph(), read_manifest(manifest), functions or {}, prune)

    @classmethod
    def load(
        cls,
        manifest: Manifest | bytes | str | dict[str, Any],
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        **options: Any,
    ) -> Self:
        """Make a graph from a manifest; `options` are those of `Graph`.

        :raises WiringError: if the document is not a manifest, or cannot be wired
        """
        from meshfold.core.manifest.document import read_manifest

        document = read_manifest(manifest)
        chosen: dict[str, Any] = {"name": document.name, **options}
        graph = cls(**chosen)
        graph.plan(document, functions=functions).apply()
        return graph

    def take_off(self, entry: Any) -> Callable[[], object]:
        """Take off what a manifest's entry describes; returns what puts it back.

        :raises WiringError: if it is not there
        """
        from meshfold.core.manifest import document as doc
        from meshfold.core.manifest.written import operator_entry

        graph = self._graph()
        if isinstance(entry, doc.ConnectionEntry):
            return graph.disconnect_routes(entry.source, entry.sink)
        if isinstance(entry, doc.MailboxEntry):
            return graph.remove_mailbox(entry.name)
        if isinstance(entry, doc.LinkEntry):
            link = graph.link(entry.name)
            graph.unregister_link(entry.name)
            return lambda: graph.register_link(link)
        if isinstance(entry, doc.FlowEntry):
            before = graph.configured_flow()
            graph.configure_flow(None, {}, {})
            return lambda: graph.configure_flow(*before)
        if isinstance(entry, doc.LoopEntry):
            return _remove_loop(graph, entry.name)
        if isinstance(entry, doc.BindingEntry):
            for shadow in graph.shadows():
                if shadow.binding.request.address == entry.request:
                    shadow.close()
                    return lambda: graph.bind(shadow.binding)
        for number, installed in self._installed.items():
            if operator_entry(installed) == entry:
                self.detach(number)
                spec = json.dumps(installed.spec)
                return lambda: self.install(spec, installed.routes, installed.functions, installed.observer)
        raise WiringError("it is not in the graph", fix="plan again", item=str(entry)[:80])

    def topology(self, *, limit: int = 1000, after: str = "") -> Answer:
        """Routes, operators and what connects them, as the query `topology` answers."""
        return self._graph().query("topology", limit=limit, after=after)

    def diagram(self, kind: Literal["mermaid", "svg"] = "mermaid") -> str:
        """Draw the graph: Mermaid text, or an SVG document that loads nothing from elsewhere.

        :raises WiringError: for another kind
        """
        from meshfold.core.manifest.diagram import draw

        return draw(self._graph(), kind)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What notebooks show."""
        mermaid = f"```mermaid\n{self.diagram()}```\n"
        return {"image/svg+xml": self.diagram("svg"), "text/markdown": mermaid, "text/plain": repr(self)}

    def _graph(self) -> Graph:
        return cast("Graph", self)


def _remove_loop(graph: Graph, name: str) -> Callable[[], object]:
    loop = next((loop for loop in graph.control_loops() if loop.name == name), None)
    if loop is None:
        raise WiringError(f"no loop is named {name}", fix="plan again", item=name)
    follows = loop.follows()
    loop.close()

    def back() -> None:
        again = graph.control_loop(
            loop.name,
            reads=loop.reads,
            writes=loop.writes,
            step=loop.step,
            missing=loop.missing,
            max_age=loop.max_age,
        )
        for r in follows:
            again.follow(r)

    return back


def _materialized(installed: Installed) -> Route[Any] | None:
    """The state route of an operator that materializes one."""
    if installed.spec["label"] != "materialize" or "sink" not in installed.spec:
        return None
    sink: int = installed.spec["sink"]
    return installed.routes[sink]
