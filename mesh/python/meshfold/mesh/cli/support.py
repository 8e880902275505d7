"""What all commands share: durations, output, logs, errors as one line with an exit code."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from meshfold.core.errors import ConfigError, GrantDenied, GrantExpired, GrantRevoked, MeshfoldError
from meshfold.core.registry import ExitCode

__all__ = ("configure_logs", "emit", "exit_code_of", "parse_duration", "put", "say", "standard_streams")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION_S_MAX = 366 * 86_400.0
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


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


def standard_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr some that lead nowhere.

    Otherwise the next file it opens would get the free number, and what is meant for people would end up in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one: those below it are open by now.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def say(text: str) -> None:
    """A line for people, on stderr; a terminal that was closed stops nothing."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def put(text: str) -> None:
    """Write an answer on stdout. That its reader has gone, as `head` does, is no failure: the rest goes nowhere.

    :raises OSError: if it cannot be written
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit(document: Any, *, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    """The answer on stdout: the document, or lines made of it."""
    put(
        json.dumps(document, default=str) + "\n"
        if as_json
        else "".join(line + "\n" for line in lines(document))
    )


def exit_code_of(error: MeshfoldError) -> ExitCode:
    """3 where a grant is missing, 1 where what was asked for does not hold now, 2 for unusable input."""
    if isinstance(error, (GrantDenied, GrantExpired, GrantRevoked)):
        return ExitCode.REFUSED
    return ExitCode.DOES_NOT_HOLD if error.retryable else ExitCode.UNUSABLE_INPUT


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


def configure_logs(level: str | None, form: str | None) -> None:
    """Send logs to stderr: `debug` to `error`, default `warning`; as `text`, the default, or `json` lines.

    :raises ConfigError: for another level or format
    """
    for option, value, known in (("--log-level", level, LEVELS), ("--log-format", form, FORMATS)):
        if value is not None and value not in known:
            raise ConfigError(f"{option} {value!r} is unknown", fix=f"one of {', '.join(known)}", item=option)
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if form == "json" else text)
    logging.basicConfig(level=(level or "warning").upper(), handlers=[handler], force=True)
