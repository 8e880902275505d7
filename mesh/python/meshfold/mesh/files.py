"""Reading files that people name: never more than a bound, whatever stands behind the name, and one line if it cannot be."""

from __future__ import annotations

from pathlib import Path

from meshfold.core.errors import ConfigError

__all__ = ("read_named", "read_named_text")


def read_named(path: Path, bytes_max: int, item: str, *, fix: str = "") -> bytes:
    """Return what a file holds.

    Its size is not asked for: a device or a pipe has none, and `<(command)` is a pipe.

    :param bytes_max: more than so many bytes are refused, and not read either
    :param item: the option, setting or variable that names the file
    :param fix: what helps where there is no such file
    :raises ConfigError: if it cannot be read or is larger
    """
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {path}: {why}", fix=fix, item=item) from None
    if len(raw) > bytes_max:
        raise ConfigError(f"{path} has more than {bytes_max} bytes", fix="is it the right file?", item=item)
    return raw


def read_named_text(path: Path, bytes_max: int, item: str) -> str:
    """Return the UTF-8 text of a file; raises as `read_named` does, and where it is no text.

    :raises ConfigError: if it cannot be read, is larger, or is no text
    """
    raw = read_named(path, bytes_max, item)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: this is no UTF-8 text", item=item) from None
