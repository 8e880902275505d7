"""Routes: an address and a schema, typed by the value they carry (S1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar, get_args

from meshfold._native import RouteBase
from meshfold.core.address import Address, escape_token
from meshfold.core.errors import SchemaMismatch, WiringError
from meshfold.core.schema import Schema

__all__ = ("Route", "Secrecy", "require_same_schema", "route")

T = TypeVar("T")
U = TypeVar("U")
Secrecy = Literal["sealed", "group", "none"]


class Route(RouteBase, Generic[T]):
    """Where values of one schema go. Equal if address and schema are; immutable."""

    addr: Address
    schema: Schema[T]
    secrecy: Secrecy
    shreddable: bool

    def __new__(
        cls, addr: Address, schema: Schema[T], secrecy: Secrecy = "sealed", shreddable: bool = False
    ) -> Route[T]:
        self = super().__new__(cls, addr.tag, schema.kind, schema, addr.short)
        self.addr = addr
        self.schema = schema
        self.secrecy = secrecy
        self.shreddable = shreddable
        return self

    @property
    def address(self) -> str:
        """The full text, `read.logical.kiln-7.thermal.temperature.meta`."""
        return self.addr.text

    @property
    def text(self) -> str:
        """The short form `kiln-7/thermal/temperature` where plane, layer and variant are the defaults."""
        return self.addr.short

    @property
    def tag(self) -> bytes:
        """The 8 bytes that stand for the address in event ids."""
        return self.addr.tag

    @classmethod
    def parse(cls, text: str, schema: Schema[T]) -> Route[T]:
        """Make a route from either text form.

        :raises WiringError: if `text` is not a route
        """
        return cls(Address.parse(text), schema)

    def derivative_route(self, stream: str, *, schema: Schema[U]) -> Route[U]:
        """A further stream of the same owner and family, on the same plane, layer and variant, with the same secrecy.

        :param stream: in plain text
        :raises WiringError: if the stream cannot be a token
        """
        addr = replace(self.addr, stream=escape_token(stream))
        return Route(addr, schema, self.secrecy, self.shreddable)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Route) and other.addr == self.addr and other.schema.id == self.schema.id

    def __hash__(self) -> int:
        return hash((self.addr, self.schema.id))

    def __repr__(self) -> str:
        return f"<Route {self.text} of {self.schema.name}>"


def route(
    owner: str,
    family: str,
    stream: str,
    *,
    schema: Schema[T],
    plane: str = "read",
    layer: str = "logical",
    variant: str = "meta",
    secrecy: Secrecy = "sealed",
    shreddable: bool = False,
) -> Route[T]:
    """Declare a route.

    :param owner: who publishes it, in plain text; with `family` and `stream` it is escaped into tokens
    :param secrecy: `sealed` seals and signs each frame. `group` seals and does not sign: cheaper, and anyone who may read
        the route can forge it, so owner and reader both have to declare it. `none` is the only way to plaintext on the wire;
        it taints events TRUST_PLAINTEXT
    :param shreddable: its keys are drawn and not derived, so that `meshfold key shred` can make an epoch unreadable
    :raises WiringError: if a token is empty or too long, or plane, layer or variant is unknown or does not fit
    """
    if secrecy not in get_args(Secrecy):
        raise WiringError(
            f"unknown secrecy {secrecy!r}", fix=f"use one of {', '.join(get_args(Secrecy))}", item="secrecy"
        )
    address = Address.of(owner, family, stream, plane=plane, layer=layer, variant=variant)
    return Route(address, schema, secrecy, shreddable)


def require_same_schema(source: Route[Any], sink: Route[Any], fix: str) -> None:
    """Return if what one route carries fits the other as it is.

    :param fix: what to do about it if not
    :raises SchemaMismatch: if the schemas differ, naming both
    """
    if source.schema.id != sink.schema.id:
        raise SchemaMismatch(
            f"{source.text} carries {source.schema.name}, {sink.text} carries {sink.schema.name}",
            fix=fix,
            route=sink.text,
            expected=sink.schema.name,
            found=source.schema.name,
        )
