"""The local shortcut of the query plane: what the service would answer, as a return value and typed errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshfold.core.errors import WiringError
from meshfold.core.event import event_document
from meshfold.core.query import answers
from meshfold.core.query import commands as asked
from meshfold.core.query import rows as say
from meshfold.core.registry import Action

if TYPE_CHECKING:
    from meshfold.core.access import Sight
    from meshfold.core.graph import Graph

__all__ = ("ask",)


def ask(
    graph: Graph,
    sight: Sight,
    command: asked.Command | str,
    limit: int,
    after: str,
    fields: dict[str, Any],
) -> say.Answer:
    """Answer one request; see `Graph.query`. A watch waits here, so it cannot be asked inside an observer."""
    deadline_ms = fields.pop("deadline_ms", asked.DEADLINE_MS)
    if isinstance(command, str):
        command = asked.command_of(command, fields)
    elif fields:
        raise WiringError(
            f"a command object takes no further fields, such as {next(iter(fields))!r}",
            fix="set them on the command",
            item="query",
        )
    request = asked.Request(command, limit, after, deadline_ms).checked()
    if isinstance(command, asked.Watch):
        return _watch(graph, sight, command, request)
    return answers.page(answers.ANSWERS[type(command)](graph, sight, command), request)


def _watch(graph: Graph, sight: Sight, command: asked.Watch, request: asked.Request) -> say.Answer:
    """The next events, until there are enough or nothing came within the deadline."""
    r = answers.visible(graph, sight, command.route, Action.PAYLOAD_OPEN)
    rows: list[say.Row] = []
    with graph.stream(r, replay_latest=False) as stream:
        for event in stream.blocking(request.deadline_ms / 1000):
            if not sight.sees(Action.PAYLOAD_OPEN, r.addr):
                break
            rows.append(say.EventRow(event_document(event)))
            if len(rows) >= min(command.count, request.limit):
                break
    return say.Answer(rows)
