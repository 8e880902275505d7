"""Links: what carries events between routes, and what it can keep of what a route promises (S33).

A link that is declared is checked where it is used: a bridge over it is refused where it cannot keep the contract or the
secrecy that the route asks for, and what it may do to events is in their taints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from meshfold._native import GraphBase
from meshfold.core.errors import WiringError
from meshfold.core.operator import Operator
from meshfold.core.pipeline import Pipeline
from meshfold.core.registry import CONTRACTS, Contract, Taint
from meshfold.core.route import Route, require_same_schema

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Link", "LinkCapabilities", "Linked")

T = TypeVar("T")
#: Links of one graph.
LINKS_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class LinkCapabilities:
    """What a link can do. What is not said it cannot.

    :param ordered: events of one producer arrive in their order
    :param acknowledged: the sender learns what arrived
    :param durable: what nobody has taken yet is kept over a restart
    :param replayable: a reader that comes later gets what was before
    :param deduplicated: nothing is handed over twice
    :param credited: a slow reader holds its producers up, and loses nothing
    :param authenticated: who sent an event is proven
    :param sealed: nobody on the way can read it
    :param bulk: payloads of any size go over it
    """

    ordered: bool = False
    acknowledged: bool = False
    durable: bool = False
    replayable: bool = False
    deduplicated: bool = False
    credited: bool = False
    authenticated: bool = False
    sealed: bool = False
    bulk: bool = False

    def names(self) -> list[str]:
        """What it can do, by name."""
        return [field.name for field in fields(self) if getattr(self, field.name)]

    @classmethod
    def of(cls, names: Iterable[str]) -> LinkCapabilities:
        """The capabilities of these names.

        :raises WiringError: for an unknown one
        """
        known = [field.name for field in fields(cls)]
        given = list(names)
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            raise WiringError(
                f"unknown capability {unknown[:60]!r}", fix=f"use some of {', '.join(known)}", item="link"
            )
        return cls(**dict.fromkeys(given, True))


#: What a contract needs of a link.
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "at_most_once": (),
    "at_least_once": ("acknowledged", "durable"),
    "effectively_once": ("acknowledged", "durable", "deduplicated"),
    "latest": ("replayable",),
}
#: What it does to events where a link cannot do it.
_MARKS: Final[Mapping[str, Taint]] = {
    "ordered": Taint.ORDER_POSSIBLY_OUT_OF_ORDER,
    "authenticated": Taint.TRUST_UNVERIFIED,
    "sealed": Taint.TRUST_PLAINTEXT,
}


@dataclass(frozen=True, slots=True)
class Link:
    """Something that carries events.

    :param kind: what it is, in words: `loopback`, `nats`, `serial`
    """

    name: str
    kind: str
    capabilities: LinkCapabilities = LinkCapabilities()

    def contracts(self) -> tuple[str, ...]:
        """The delivery contracts that it can keep."""
        return tuple(contract for contract in CONTRACTS if not self.lacks(contract))

    def lacks(self, contract: str) -> list[str]:
        """What it would have to be able to do, to keep a contract.

        :raises WiringError: for an unknown contract
        """
        needs = _NEEDS.get(contract)
        if needs is None:
            raise WiringError(
                f"unknown contract {contract[:60]!r}", fix=f"use one of {', '.join(CONTRACTS)}", item="link"
            )
        return [need for need in needs if not getattr(self.capabilities, need)]

    def taints(self) -> tuple[Taint, ...]:
        """What everything that it carried has to be marked with."""
        return tuple(taint for name, taint in _MARKS.items() if not getattr(self.capabilities, name))

    def require(self, contract: str, r: Route[Any]) -> None:
        """Check that it can carry a route as its contract, secrecy and layer ask.

        :raises WiringError: naming what it lacks
        """
        lacks = self.lacks(contract)
        # There is no fallback to plaintext: only a route that says so goes over a link that others can read.
        if r.secrecy != "none" and not self.capabilities.sealed:
            lacks.append("sealed")
        if r.addr.layer == "bulk" and not self.capabilities.bulk:
            lacks.append("bulk")
        if lacks:
            raise WiringError(
                f"link {self.name} cannot carry {r.text} {contract}: it is not {', '.join(lacks)}",
                fix=f"it keeps {', '.join(self.contracts())}; use one of these, or another link",
                item=self.name,
            )


class Linked(GraphBase):
    """The part of `Graph` that knows its links."""

    _links: dict[str, Link]

    def register_link(self, link: Link) -> Link:
        """Make a link known by its name; registering an equal one again changes nothing.

        :raises WiringError: for an empty name, another link of that name, or more than 1024 links
        """
        known = self._links.get(link.name)
        if known not in (None, link):
            raise WiringError(
                f"a link named {link.name} can do something else", fix="use another name", item=link.name
            )
        if not link.name or len(self._links) >= LINKS_MAX:
            raise WiringError(
                f"a link named {link.name!r}", fix=f"use a name, and at most {LINKS_MAX} links", item="link"
            )
        self._links[link.name] = link
        return link

    def unregister_link(self, name: str) -> None:
        """Forget a link; bridges that go over it stay. Idempotent."""
        self._links.pop(name, None)

    def links(self) -> list[Link]:
        """All links, by name."""
        return [self._links[name] for name in sorted(self._links)]

    def link(self, name: str) -> Link:
        """A link by its name.

        :raises WiringError: if there is none
        """
        found = self._links.get(name)
        if found is None:
            raise WiringError(
                f"no link is named {name[:60]!r}", fix="register it with graph.register_link", item=name
            )
        return found

    def bridge(
        self,
        source: Route[T],
        sink: Route[T],
        *,
        link: Link | str,
        contract: Contract = "at_most_once",
        name: str | None = None,
    ) -> Operator:
        """Carry `source` to `sink` over a link of this process: each event becomes one of `sink` with its causes and with
        the taints of the link (S33). What goes to other machines is shared by the mesh.

        :param link: a link, or the name of a registered one
        :raises WiringError: if the link cannot keep the contract, the secrecy or the size of what it is to carry, naming
            what it lacks; or if it would close a cycle
        :raises SchemaMismatch: if the schemas differ
        """
        over = self.link(link) if isinstance(link, str) else self.register_link(link)
        require_same_schema(source, sink, "convert with pipe(source).map(...) before it")
        over.require(contract, source)
        pipe: Pipeline[T] = Pipeline(cast("Graph", self), source, label="bridge")
        title = name or f"{over.name}: {source.text} -> {sink.text}"
        return pipe.taint(*over.taints()).into(sink, name=title)
