"""Options that many commands take, and `on_mesh`, which gives a command those by which it finds a mesh."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from meshfold.core.registry import ExitCode
from meshfold.mesh.cli.interrupts import nothing_begun
from meshfold.mesh.cli.support import configure_logs, emit

__all__ = ("AsJson", "Call", "Chosen", "LogFormat", "LogLevel", "on_mesh")

AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
Chosen = Annotated[
    str | None,
    typer.Option(
        "--context",
        help="a mesh's name, a context file, or a context of the nats command; default: the newest mesh that runs",
    ),
]
Server = Annotated[
    str | None,
    typer.Option("--nats", help="the server's URL, or several joined by commas, instead of the mesh's"),
]
Creds = Annotated[
    Path | None, typer.Option("--creds", help="creds file, for a server that knows no logins of the mesh")
]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", help="debug, info, warning or error; default: warning")
]
LogFormat = Annotated[str | None, typer.Option("--log-format", help="text or json; default: text")]


@dataclass(frozen=True, slots=True)
class Call:
    """How a command was called: which mesh is meant, and how to print."""

    context: str | None
    nats: str | None
    creds: Path | None
    as_json: bool

    def run(self, work: Callable[[Any], Coroutine[Any, Any, Any]], *, publishing: bool = False) -> Any:
        """Run `work(node)` as a node of the mesh that is meant, with the operator's grants where this machine has them.

        :param publishing: whether it is a member while it runs; otherwise it asks and reads, and nobody counts it
        :raises ConfigError: if it would publish with the identity of a node that runs from the same folder
        :raises GrantDenied: if the node holds no grant at all
        :raises TransportClosed: if the mesh ends meanwhile
        :raises MeshfoldError: as finding and entering the mesh do, and as `work` does
        """
        with nothing_begun():
            from meshfold.mesh.cli.on_mesh import run_on_mesh

        return run_on_mesh(self.context, self.options(), work, publishing=publishing)

    def options(self) -> dict[str, Any]:
        """Settings that the command line gave."""
        return {"nats": self.nats, "creds": str(self.creds) if self.creds else None}

    def emit(self, document: Any, lines: Callable[[Any], list[str]]) -> None:
        """Print the answer: the document, or lines made of it."""
        emit(document, as_json=self.as_json, lines=lines)


def _shared() -> list[inspect.Parameter]:
    kinds: dict[str, tuple[Any, Any]] = {
        "context": (Chosen, None),
        "nats": (Server, None),
        "creds": (Creds, None),
        "as_json": (AsJson, False),
        "log_level": (LogLevel, None),
        "log_format": (LogFormat, None),
    }
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in kinds.items()
    ]


def on_mesh(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Call`; it takes the call as its first argument, and names none of them itself."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in list(inspect.signature(command).parameters.values())[1:]
    ]

    def called(**given: Any) -> None:
        configure_logs(given.pop("log_level"), given.pop("log_format"))
        fields = {name: given.pop(name) for name in ("context", "nats", "creds", "as_json")}
        try:
            command(Call(**fields), **given)
        except BrokenPipeError:
            # Whoever read us has gone, as `head` does. The parser would make a failure of that.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.HOLDS) from None

    parameters = [*own, *_shared()]
    called.__name__, called.__doc__, called.__module__ = command.__name__, command.__doc__, command.__module__
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect, and so by typer
    return called
