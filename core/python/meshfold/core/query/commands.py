"""What can be asked: one typed command for each question, and the request that carries one (S34)."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias, get_args

import msgspec
from meshfold.core.errors import WiringError

__all__ = (
    "COMMANDS",
    "Audit",
    "BufferStats",
    "Catalog",
    "Command",
    "CreditStats",
    "Describe",
    "ExplainJoin",
    "Latest",
    "OpenPayload",
    "Replay",
    "Request",
    "Shadow",
    "Subscribers",
    "Taints",
    "Topology",
    "Trace",
    "Validate",
    "Watch",
    "Watermark",
    "Writers",
    "command_of",
)

#: Rows of one page, unless asked for fewer; more are never sent at once.
PAGE_ROWS: Final = 100
PAGE_ROWS_MAX: Final = 1000
DEADLINE_MS: Final = 5000


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="command", tag=_snake):
    pass


class Catalog(_Base, frozen=True):
    """Routes, by address; `prefix` narrows to addresses that begin with it."""

    prefix: str = ""


class Describe(_Base, frozen=True):
    """Everything about one route."""

    route: str


class Topology(_Base, frozen=True):
    """Routes, operators, and what connects them."""


class Latest(_Base, frozen=True):
    """The newest retained event of a route."""

    route: str


class Watch(_Base, frozen=True):
    """The next `count` events of a route as they come, each on a page of its own; ends at the deadline."""

    route: str
    count: int = 10


class Replay(_Base, frozen=True):
    """Retained events of a route from number `since` to `until`, oldest first."""

    route: str
    since: int = 1
    until: int | None = None


class Trace(_Base, frozen=True):
    """The causes of an event, as far as they are retained, nearest first."""

    event: str


class Watermark(_Base, frozen=True):
    """How far event time has come, by operator."""


class BufferStats(_Base, frozen=True):
    """Counters of every edge, of one route or all."""

    route: str | None = None


class CreditStats(_Base, frozen=True):
    """How many events a route, or every route, takes now without waiting."""

    route: str | None = None


class Shadow(_Base, frozen=True):
    """What a write binding was asked for, reported, and holds, by its request route."""

    route: str


class Subscribers(_Base, frozen=True):
    """Who reads a route."""

    route: str


class Writers(_Base, frozen=True):
    """Who writes a route."""

    route: str


class Taints(_Base, frozen=True):
    """Taints of what a route retains, with the first event of each."""

    route: str


class Validate(_Base, frozen=True):
    """What is wrong with the wiring."""


class ExplainJoin(_Base, frozen=True):
    """How joins are done, why so, and how evenly their keys fall; of one join or of all."""

    name: str | None = None


class OpenPayload(_Base, frozen=True):
    """The payload bytes of a retained event."""

    event: str


class Audit(_Base, frozen=True):
    """Who did or was refused what, from entry `since` on."""

    since: int = 0


Command: TypeAlias = (
    Catalog
    | Describe
    | Topology
    | Latest
    | Watch
    | Replay
    | Trace
    | Watermark
    | BufferStats
    | CreditStats
    | Shadow
    | Subscribers
    | Writers
    | Taints
    | Validate
    | ExplainJoin
    | OpenPayload
    | Audit
)

COMMANDS: Final[dict[str, type[Any]]] = {_snake(kind.__name__): kind for kind in get_args(Command)}


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command with its page and its deadline.

    :param limit: rows of one page, 1 to 1000
    :param after: the `next` of the page before; empty: the first page
    :param deadline_ms: an answer later than this after the request is an error
    """

    command: Command
    limit: int = PAGE_ROWS
    after: str = ""
    deadline_ms: int = DEADLINE_MS

    def checked(self) -> Request:
        """Return itself.

        :raises WiringError: if page or deadline cannot be served
        """
        if not 1 <= self.limit <= PAGE_ROWS_MAX:
            raise WiringError(f"a page of {self.limit} rows", fix=f"1 to {PAGE_ROWS_MAX}", item="limit")
        if not 1 <= self.deadline_ms <= 3_600_000:
            raise WiringError(
                f"a deadline of {self.deadline_ms} ms", fix="1 ms to one hour", item="deadline_ms"
            )
        return self


def command_of(name: str, fields: dict[str, Any]) -> Command:
    """Make a command from its name and fields, as people type them.

    :raises WiringError: for an unknown command, or fields that it does not have
    """
    kind = COMMANDS.get(name)
    if kind is None:
        raise WiringError(f"unknown query {name[:60]!r}", fix=f"one of {', '.join(COMMANDS)}", item="query")
    try:
        return msgspec.convert({"command": name, **fields}, kind)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise WiringError(f"query {name}: {error}", fix=(kind.__doc__ or "").strip(), item="query") from None
