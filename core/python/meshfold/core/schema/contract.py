"""Contracts between versions of a schema: what a reader accepts besides its own, and how it becomes its own (S1).

Rules: events are upcast where they enter the reader's graph, so everything behind that sees one schema; a version nobody
registered is refused by name. Without a mapper an upgrade must be one that loses nothing: fields may be added with a
default, and neither be taken away nor change their type (HS5).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from meshfold.core.errors import DecodeError, MeshfoldError, SchemaMismatch
from meshfold.core.schema.codec import said

if TYPE_CHECKING:
    from meshfold.core.schema.base import Schema

__all__ = ("Upcaster", "automatic", "register", "rewrite_payloads")

#: Other schemas one schema accepts, those they accept in turn included.
UPCASTERS_MAX: Final = 64
_UINT_BYTES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Upcaster:
    """One older schema and the way from its values to ours."""

    schema: Schema[Any]
    mapper: Callable[[Any], Any]

    def upcast(self, to: Schema[Any], data: bytes) -> bytes:
        """Return the bytes of the mapped value.

        :raises DecodeError: if the bytes are no value of the older schema, or the mapper makes none of ours of it
        """
        value = self.schema.decode(data)
        try:
            return to.encode(self.mapper(value))
        except Exception as error:
            # The mapper is foreign code: whatever it raises, this event cannot be read.
            what = error.what if isinstance(error, MeshfoldError) else said(error)
            raise DecodeError(
                f"{self.schema.name} v{self.schema.version} does not become {to.name} v{to.version}: {what}",
                reason="schema",
                schema=to.name,
            ) from error


def register(
    to: Schema[Any], known: dict[bytes, Upcaster], older: Schema[Any], mapper: Callable[[Any], Any] | None
) -> dict[bytes, Upcaster]:
    """Return `known` with one more way in, and with what the older schema accepts in turn.

    :raises SchemaMismatch: if it is the schema itself, known already, one too many, or incompatible without a mapper
    """
    if older.id == to.id:
        raise _refused(to, older, "it is the schema itself", "register older versions")
    if older.id in known:
        raise _refused(to, older, "it is registered already", "keep one of the two")
    step = mapper or automatic(to, older)
    found = dict(known)
    found[older.id] = Upcaster(older, step)
    for identity, way in older.upcasters.items():
        if identity != to.id and identity not in found:
            found[identity] = Upcaster(way.schema, _chain(way.mapper, step))
    if len(found) > UPCASTERS_MAX:
        raise _refused(
            to, older, f"more than {UPCASTERS_MAX} versions", "drop versions nobody sends any more"
        )
    return found


def _chain(first: Callable[[Any], Any], then: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: then(first(value))


def _refused(to: Schema[Any], older: Schema[Any], why: str, fix: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"{to.name} v{to.version} cannot accept {older.name} v{older.version}: {why}",
        fix=fix,
        reason="compat",
        expected=to.name,
        found=older.name,
    )


def automatic(to: Schema[Any], older: Schema[Any]) -> Callable[[Any], Any]:
    """Return the mapper of an upgrade that only adds fields with defaults.

    :raises SchemaMismatch: with reason `compat`, naming the fields at fault
    """
    if to.kind != "json" or older.kind != "json" or to.codec is None or older.codec is None:
        raise _refused(to, older, "only JSON schemas have an automatic upgrade", "give a mapper")
    ours, theirs = (_resolved(codec.shape) for codec in (to.codec, older.codec))
    problems = sorted(_lost(ours, theirs, ""))
    if problems:
        raise _refused(to, older, "; ".join(problems[:8]), "give a mapper that says what becomes of them")
    return lambda value: to.decode(older.encode(value))


def _resolved(shape: dict[str, Any]) -> dict[str, Any]:
    """The schema with its root reference followed; deeper ones are compared by their definitions."""
    definitions = shape.get("$defs", {})

    def follow(node: Any, open_: tuple[str, ...]) -> Any:
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).rpartition("/")[2]
            if name in definitions and name not in open_:
                return follow(definitions[name], (*open_, name))
            return {key: follow(item, open_) for key, item in node.items() if key != "$defs"}
        if isinstance(node, list):
            return [follow(item, open_) for item in node]
        return node

    found: dict[str, Any] = follow(shape, ())
    return found


def _lost(ours: dict[str, Any], theirs: dict[str, Any], path: str) -> set[str]:
    """What of `theirs` would not survive, as phrases with the path of the field."""
    if "properties" not in ours or "properties" not in theirs:
        same = json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)
        return set() if same else {f"{path or 'the value'} changes its type"}
    problems: set[str] = set()
    mine, old = ours["properties"], theirs["properties"]
    for name in old.keys() - mine.keys():
        kind = "required field" if name in theirs.get("required", ()) else "field"
        problems.add(f"{kind} {path}{name} is taken away")
    for name in mine.keys() - old.keys():
        if name in ours.get("required", ()):
            problems.add(f"field {path}{name} is new and has no default")
    for name in mine.keys() & old.keys():
        if name in ours.get("required", ()) and name not in theirs.get("required", ()):
            problems.add(f"field {path}{name} loses its default")
        now, was = (
            {key: item for key, item in shape.items() if key != "default"}
            for shape in (mine[name], old[name])
        )
        problems |= _lost(now, was, f"{path}{name}." if "properties" in now else f"{path}{name}")
    return problems


def rewrite_payloads(section: bytes, upcast: Callable[[bytes], bytes | None]) -> bytes:
    """Return a payload section of a batch (MB1) with every payload replaced, or taken away where `upcast` gives None.

    :raises DecodeError: with reason `batch` if it is none, or as `upcast` raises
    """
    at = 1
    count, at = _uint(section, at)
    out = bytearray(section[:at])
    for _ in range(count):
        size, at = _uint(section, at)
        if size == 0:
            out.append(0)
            continue
        if at + size - 1 > len(section):
            raise _no_batch()
        data = upcast(section[at : at + size - 1])
        at += size - 1
        if data is None:
            out.append(0)
            continue
        length = len(data) + 1
        while length > 0x7F:
            out.append(length & 0x7F | 0x80)
            length >>= 7
        out.append(length)
        out += data
    if at != len(section):
        raise _no_batch()
    return bytes(out)


def _uint(section: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_UINT_BYTES_MAX):
        if at >= len(section):
            break
        byte = section[at]
        at += 1
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at
    raise _no_batch()


def _no_batch() -> DecodeError:
    return DecodeError("not a payload section", reason="batch", schema="")
