"""What all commands share: durations, output, errors as one line with an exit code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from meshfold.core.errors import ConfigError, GrantDenied, GrantExpired, GrantRevoked, MeshfoldError
from meshfold.core.registry import ExitCode

__all__ = ("emit", "exit_code_of", "parse_duration", "run_on_mesh", "say")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION_S_MAX = 366 * 86_400.0


def parse_duration(text: str, option: str) -> float:
    """Seconds of `15s`, `500ms`, `2m`, `1h`, `1d`.

    :raises ConfigError: for anything else, zero and negative included
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= DURATION_S_MAX:
        raise ConfigError(
            f"{option} {text!r} is no duration",
            fix="write a number with ms, s, m, h or d, such as 15s",
            item=option,
        )
    return seconds


def say(text: str) -> None:
    """A line for people, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def emit(document: Any, *, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    """The answer on stdout: the document, or lines made of it."""
    if as_json:
        sys.stdout.write(json.dumps(document, default=str) + "\n")
    else:
        sys.stdout.write("".join(line + "\n" for line in lines(document)))
    sys.stdout.flush()


def exit_code_of(error: MeshfoldError) -> ExitCode:
    """3 where a grant is missing, 1 where what was asked for does not hold now, 2 for unusable input."""
    if isinstance(error, (GrantDenied, GrantExpired, GrantRevoked)):
        return ExitCode.REFUSED
    return ExitCode.DOES_NOT_HOLD if error.retryable else ExitCode.UNUSABLE_INPUT


def run_on_mesh(context: str | None, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Run `work(node)` as the operator of the mesh of `context`."""
    import asyncio

    from meshfold.mesh.node import Node

    async def run() -> Any:
        async with Node.open("operator", context=context) as node:
            return await work(node)

    return asyncio.run(run())
