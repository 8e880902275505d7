"""A graph as a document: typed, strict, deterministic (S34). The same wiring gives the same bytes.

Functions are named, not contained: a manifest holds no code, and loading one runs none that the loader did not give.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from meshfold._native import check_json
from meshfold.core.address import Address
from meshfold.core.errors import MeshfoldError, WiringError
from meshfold.core.links import LinkCapabilities
from meshfold.core.policy import FlowPolicy
from meshfold.core.schema import Schema
from meshfold.core.schema.codec import said

if TYPE_CHECKING:
    from meshfold.core.mailbox import MailboxDescriptor

__all__ = (
    "FORMAT",
    "BindingEntry",
    "ConnectionEntry",
    "FlowEntry",
    "InputEntry",
    "LinkEntry",
    "LoopEntry",
    "MailboxEntry",
    "Manifest",
    "OperatorEntry",
    "PolicyEntry",
    "RetentionEntry",
    "RouteEntry",
    "SideEntry",
    "StageEntry",
    "read_manifest",
)

T = TypeVar("T")
FORMAT: Final = 1
DOCUMENT_BYTES_MAX: Final = 64 * 1024 * 1024
ROUTES_MAX: Final = 200_000
OPERATORS_MAX: Final = 20_000


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class RetentionEntry(_Base, frozen=True):
    """What a route keeps, where it is not the default: events, payload bytes, age in ns."""

    events: int
    bytes: int | None = None
    age: int | None = None


class RouteEntry(_Base, frozen=True):
    """A route: its full address, the descriptor of its schema, and the declared bound of its taints, if there is one."""

    address: str
    schema: dict[str, Any]
    secrecy: str = "sealed"
    shreddable: bool = False
    retention: RetentionEntry | None = None
    taints: list[str] | None = None


class StageEntry(_Base, frozen=True):
    """An operator of the engine with its configuration, or (`foreign`) functions by way and name."""

    kind: str
    config: dict[str, Any] = {}
    functions: list[tuple[str, str]] = []


class InputEntry(_Base, frozen=True):
    """A route that feeds a port of a stage."""

    route: str
    stage: int = 0
    port: int = 0
    replay: bool = False


class SideEntry(_Base, frozen=True):
    """A further output of a stage."""

    stage: int
    side: str
    route: str


class OperatorEntry(_Base, frozen=True):
    """An operator: stages, where items come from, where results go; `observer` names a function that takes them."""

    name: str
    label: str
    stages: list[StageEntry]
    inputs: list[InputEntry]
    sink: str | None = None
    sides: list[SideEntry] = []
    observer: str | None = None


class PolicyEntry(_Base, frozen=True):
    """What was said of how an edge flows; None is left to the next in line (S8)."""

    backpressure: str | None = None
    credit_class: str | None = None
    mailbox: str | None = None
    async_boundary: str | None = None
    overflow: str | None = None


class FlowEntry(_Base, frozen=True):
    """Flow policies of the graph, of edges from a route and of edges to one, by address."""

    default: PolicyEntry | None = None
    sources: dict[str, PolicyEntry] = {}
    sinks: dict[str, PolicyEntry] = {}


class ConnectionEntry(_Base, frozen=True):
    """A connection of two routes, with what was said of how it flows."""

    source: str
    sink: str
    flow: PolicyEntry | None = None


class MailboxEntry(_Base, frozen=True):
    """A mailbox: its routes, its descriptor where it is not the default, and the routes that it is connected to.

    Consumers are readers of the moment.
    """

    name: str
    ingress: str
    poison: str
    descriptor: dict[str, Any] = {}
    sinks: list[str] = []


class LoopEntry(_Base, frozen=True):
    """A control loop; `step` names a function, `follows` the epoch routes that run it."""

    name: str
    reads: list[str]
    writes: list[str]
    step: str
    missing: str = "skip"
    max_age: float | None = None
    follows: list[str] = []


class LinkEntry(_Base, frozen=True):
    """A registered link and what it can do."""

    name: str
    kind: str
    capabilities: list[str] = []


class BindingEntry(_Base, frozen=True):
    """A write binding by its routes; `reconcile` names a function."""

    request: str
    desired: str
    reported: str
    effective: str
    override: str
    ack: str | None = None
    reconcile: str | None = None
    write_ids: bool = True
    fire_and_forget: bool = False
    report_within: float | None = None


class Manifest(_Base, frozen=True):
    """A graph's wiring. Readers of the moment - observers, streams, bridges - are no part of it."""

    format: int
    name: str
    routes: list[RouteEntry]
    operators: list[OperatorEntry] = []
    connections: list[ConnectionEntry] = []
    bindings: list[BindingEntry] = []
    mailboxes: list[MailboxEntry] = []
    loops: list[LoopEntry] = []
    links: list[LinkEntry] = []
    flow: FlowEntry | None = None

    def encode(self) -> bytes:
        """The document as JSON with sorted keys: equal wiring, equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"


def refused(path: str, why: str, fix: str = "") -> WiringError:
    """The refusal of a document, naming the place."""
    return WiringError(f"manifest: {path}: {why}", fix=fix, item=path)


def read_manifest(source: Manifest | bytes | str | dict[str, Any]) -> Manifest:
    """Read and check a document; nothing is installed by it.

    :raises WiringError: naming the place in the document and what is wrong there
    """
    manifest = source if isinstance(source, Manifest) else _decoded(source)
    if manifest.format != FORMAT:
        raise refused("format", f"format {manifest.format}", f"this version reads format {FORMAT}")
    for path, count, most in (
        ("routes", len(manifest.routes), ROUTES_MAX),
        ("operators", len(manifest.operators), OPERATORS_MAX),
        ("connections", len(manifest.connections), OPERATORS_MAX),
        ("bindings", len(manifest.bindings), OPERATORS_MAX),
        ("mailboxes", len(manifest.mailboxes), OPERATORS_MAX),
        ("loops", len(manifest.loops), OPERATORS_MAX),
        ("links", len(manifest.links), OPERATORS_MAX),
    ):
        if count > most:
            raise refused(path, f"{count} entries, at most {most}", "split the graph")
    known = _routes(manifest)
    _references(manifest, known)
    _flow_references(manifest, known)
    return manifest


def _decoded(source: Any) -> Manifest:
    try:
        if isinstance(source, dict):
            return msgspec.convert(source, Manifest)
        data = source.encode() if isinstance(source, str) else source
        if not isinstance(data, bytes):
            raise refused("document", f"a {type(source).__name__} is no document")
        if len(data) > DOCUMENT_BYTES_MAX:
            raise refused("document", f"{len(data)} bytes, at most {DOCUMENT_BYTES_MAX}")
        check_json(data)
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise refused("document", said(error), "write it with graph.manifest()") from None


def _routes(manifest: Manifest) -> set[str]:
    known: set[str] = set()
    for place, entry in enumerate(manifest.routes):
        path = f"routes[{place}]"
        try:
            if Address.parse(entry.address).text != entry.address:
                raise refused(f"{path}.address", f"{entry.address!r} is not a full address")
            Schema.from_descriptor(entry.schema)
        except MeshfoldError as error:
            raise refused(path, said(error.what)) from None
        if entry.secrecy not in ("sealed", "group", "none"):
            raise refused(f"{path}.secrecy", f"unknown secrecy {entry.secrecy[:40]!r}")
        if entry.address in known:
            raise refused(path, f"{entry.address} stands there twice")
        kept = entry.retention
        if kept is not None and min(kept.events, kept.bytes or 0, kept.age or 0) < 0:
            raise refused(f"{path}.retention", "a negative bound")
        known.add(entry.address)
    return known


def _flow_references(manifest: Manifest, known: set[str]) -> None:
    """What mailboxes, loops, links and policies say is possible, and names routes that are declared."""
    check = _checking(known)
    for place, box in enumerate(manifest.mailboxes):
        path = f"mailboxes[{place}]"
        for name, addresses in (("ingress", [box.ingress]), ("poison", [box.poison]), ("sinks", box.sinks)):
            for address in addresses:
                check(f"{path}.{name}", address)
        _possible(path, partial(descriptor_of, box))
    for place, loop in enumerate(manifest.loops):
        for name, addresses in (("reads", loop.reads), ("writes", loop.writes), ("follows", loop.follows)):
            for address in addresses:
                check(f"loops[{place}].{name}", address)
    for place, link in enumerate(manifest.links):
        _possible(f"links[{place}]", partial(LinkCapabilities.of, link.capabilities))
    for place, connection in enumerate(manifest.connections):
        if connection.flow is not None:
            _possible(f"connections[{place}].flow", partial(policy_of, connection.flow))
    flow = manifest.flow or FlowEntry()
    for name, policies in (("sources", flow.sources), ("sinks", flow.sinks)):
        for address, policy in policies.items():
            check(f"flow.{name}", address)
            _possible(f"flow.{name}", partial(policy_of, policy))
    if flow.default is not None:
        _possible("flow.default", partial(policy_of, flow.default))


def _possible(path: str, make: Callable[[], object]) -> None:
    try:
        make()
    except MeshfoldError as error:
        raise refused(path, said(error.what), error.fix) from None


def policy_of(entry: PolicyEntry) -> FlowPolicy:
    """The policy that an entry describes.

    :raises WiringError: for a value that no policy has
    """
    return FlowPolicy(**{name: getattr(entry, name) for name in entry.__struct_fields__})


def descriptor_of(entry: MailboxEntry) -> MailboxDescriptor:
    """The descriptor that an entry describes.

    :raises WiringError: for a field or a value that no descriptor has
    """
    from meshfold.core.mailbox import MailboxDescriptor

    try:
        return MailboxDescriptor(**msgspec.convert(entry.descriptor, _Descriptor).given())
    except msgspec.ValidationError as error:
        raise WiringError(f"mailbox {entry.name[:60]}: {said(error)}", item="descriptor") from None


class _Descriptor(_Base, frozen=True):
    """What a document says of a mailbox, with its types."""

    capacity: int | None = None
    delivery_mode: str | None = None
    ordering_policy: str | None = None
    overflow_policy: str | None = None
    max_bytes: int | None = None
    ttl: float | None = None
    lease: float | None = None
    max_attempts: int | None = None
    backoff: float | None = None
    block_timeout: float | None = None
    weights: dict[str, int] | None = None
    spill: str | None = None

    def given(self) -> dict[str, Any]:
        """What it says."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in found.items() if value is not None}


def _checking(known: set[str]) -> Callable[[str, str | None], None]:
    def check(path: str, address: str | None) -> None:
        if address is not None and address not in known:
            raise refused(path, f"no route {address[:120]!r} is declared", "list it under routes")

    return check


def _references(manifest: Manifest, known: set[str]) -> None:
    """Every route that something names is declared; every stage that something enters is there."""
    check = _checking(known)
    for place, entry in enumerate(manifest.operators):
        path = f"operators[{place}]"
        if not entry.inputs:
            raise refused(f"{path}.inputs", f"operator {entry.name[:60]!r} has no input")
        for number, given in enumerate(entry.inputs):
            check(f"{path}.inputs[{number}].route", given.route)
            # A stage past the end is the sink: a pipeline without stages has its input there.
            if not 0 <= given.stage <= len(entry.stages) or given.port < 0:
                raise refused(f"{path}.inputs[{number}]", f"no stage {given.stage}")
        check(f"{path}.sink", entry.sink)
        for number, side in enumerate(entry.sides):
            check(f"{path}.sides[{number}].route", side.route)
            if not 0 <= side.stage < len(entry.stages):
                raise refused(f"{path}.sides[{number}]", f"no stage {side.stage}")
        if entry.sink is None and entry.observer is None:
            raise refused(f"{path}.sink", f"operator {entry.name[:60]!r} has neither sink nor observer")
    for place, connection in enumerate(manifest.connections):
        check(f"connections[{place}].source", connection.source)
        check(f"connections[{place}].sink", connection.sink)
    for place, binding in enumerate(manifest.bindings):
        for field in ("request", "desired", "reported", "effective", "override", "ack"):
            check(f"bindings[{place}].{field}", getattr(binding, field))
