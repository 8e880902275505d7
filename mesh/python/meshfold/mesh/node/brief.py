"""Values in a few characters, for tables of routes."""

from __future__ import annotations

from typing import Any, Final

from meshfold.core import Event, event_document
from meshfold.core.errors import MeshfoldError

__all__ = ("brief", "brief_event")

CHARS_MAX: Final = 80
#: Items of a list or fields of an object that are looked at.
ITEMS_MAX: Final = 6


def brief(value: Any) -> str:
    """A value as text: numbers to four digits, objects as `name value, name value`, lists by their first items."""
    return _text(value)[:CHARS_MAX]


def brief_event(event: Event[Any] | None) -> str:
    """The value of an event; empty for none, and for one whose payload is not here."""
    try:
        return brief(event_document(event)["value"]) if event is not None else ""
    except MeshfoldError:
        return ""


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(_field(name, item) for name, item in list(value.items())[:ITEMS_MAX])
    if isinstance(value, (list, tuple)):
        return " ".join(_text(item) for item in value[:ITEMS_MAX])
    return str(value)


def _field(name: Any, item: Any) -> str:
    # The names of what holds other names tell little: `values percent 3` is `percent 3`.
    return _text(item) if isinstance(item, dict) else f"{name} {_text(item)}"
