"""The usual routes of one device from one place, so that owner and family are written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from meshfold.core.route import Route, route
from meshfold.core.schema import Schema

__all__ = ("RouteScope", "logical_routes")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RouteScope:
    """Makes routes of one owner and family. Each method raises `WiringError` for a stream that cannot be a token."""

    owner: str
    family: str

    def read_event(self, stream: str, *, schema: Schema[T]) -> Route[T]:
        """What happens: `read.logical.<owner>.<family>.<stream>.event`."""
        return route(self.owner, self.family, stream, schema=schema, variant="event")

    def read_state(self, stream: str, *, schema: Schema[T]) -> Route[T]:
        """What is measured: `read.logical.<owner>.<family>.<stream>.meta`, the usual route."""
        return route(self.owner, self.family, stream, schema=schema)

    def write_request(self, stream: str, *, schema: Schema[T]) -> Route[T]:
        """What somebody wants: `write.logical.<owner>.<family>.<stream>.request`."""
        return route(self.owner, self.family, stream, schema=schema, plane="write", variant="request")

    def state(self, stream: str, *, schema: Schema[T]) -> Route[T]:
        """What is known now: `state.logical.<owner>.<family>.<stream>.state`."""
        return route(self.owner, self.family, stream, schema=schema, plane="state", variant="state")


def logical_routes(owner: str, family: str) -> RouteScope:
    """Begin the routes of a device.

    :raises WiringError: if owner or family cannot be a token
    """
    # A route of its own checks both at once; it is thrown away.
    route(owner, family, "check", schema=Schema.bytes())
    return RouteScope(owner, family)
