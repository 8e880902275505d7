"""Options that many commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ("AsJson", "Chosen")

AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
Chosen = Annotated[
    str | None,
    typer.Option("--context", help="a mesh's name or a context file; default: the newest that runs"),
]
