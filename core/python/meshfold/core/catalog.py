"""A catalog of parts: what can be built into a graph, what each needs and gives, and the knobs it has.

It is read from the code itself - signatures and docstrings - so it lists what is there and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("PartInfo", "parts")

#: Parameters that are never a knob.
_NOT_KNOBS: Final = ("self", "cls", "graph", "name")
#: Verbs of a graph that install something; its other methods ask or publish.
_INSTALLERS: Final = ("Operator", "Edge", "Shadow", "ControlLoop", "Subscription", "Stream", "Tap", "Mailbox")


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One part.

    `needs` are the routes it reads, `gives` those it writes, both by parameter; `knobs` the other parameters with their
    defaults as text, `required` those without one.
    """

    name: str
    group: str
    summary: str
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    knobs: dict[str, str]
    required: tuple[str, ...]


def parts() -> list[PartInfo]:
    """Every part, by group and name: verbs of a graph, stages of a pipeline, sensor helpers, stores, schemas."""
    return sorted(_all(), key=lambda part: (part.group, part.name))


def _all() -> Iterator[PartInfo]:
    from meshfold.core import sensors, stores
    from meshfold.core.graph import Graph
    from meshfold.core.pipeline import Pipeline
    from meshfold.core.schema import Schema

    for name, method in _methods(Graph):
        given = str(inspect.signature(method).return_annotation).partition("[")[0]
        if given in _INSTALLERS:
            yield _part(f"graph.{name}", "graph", method)
    for name, method in _methods(Pipeline):
        if str(inspect.signature(method).return_annotation).startswith(("Pipeline", "Operator")):
            yield _part(f"pipe.{name}", "pipeline", method)
    for name, method in _methods(Schema):
        if str(inspect.signature(method).return_annotation).startswith("Schema"):
            yield _part(f"Schema.{name}", "schema", method)
    for group, module in (("sensors", sensors), ("stores", stores)):
        for name in module.__all__:
            made = getattr(module, name)
            if inspect.isclass(made) and not issubclass(made, BaseException):
                yield _part(name, group, made)


def _methods(of: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, method in inspect.getmembers(of, callable):
        inside = (getattr(method, "__module__", None) or "").startswith("meshfold.core")
        if not name.startswith("_") and inside and inspect.isroutine(method):
            yield name, method


def _part(name: str, group: str, call: Callable[..., Any]) -> PartInfo:
    needs: list[str] = []
    gives: list[str] = []
    knobs: dict[str, str] = {}
    required: list[str] = []
    try:
        signature = inspect.signature(call)
    except ValueError:
        signature = inspect.Signature()
    for parameter in signature.parameters.values():
        if parameter.name in _NOT_KNOBS or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if str(parameter.annotation).startswith("Route"):
            written = parameter.name in (
                "sink",
                "output",
                "rejected",
                "upstream",
                "late",
                "dead_letter",
                "poison",
            )
            (gives if written else needs).append(parameter.name)
        elif parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            knobs[parameter.name] = repr(parameter.default)
    summary = (inspect.getdoc(call) or "").partition("\n")[0]
    return PartInfo(name, group, summary, tuple(needs), tuple(gives), knobs, tuple(required))
