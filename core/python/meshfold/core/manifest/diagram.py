"""A graph as a picture: Mermaid text or SVG, both drawn from the same boxes and lines, both deterministic."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from meshfold.core.errors import WiringError
from meshfold.core.operator import operator_rows

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("draw",)

#: Boxes of one picture; of a larger graph the first ones are drawn, and how many are missing is said.
BOXES_MAX: Final = 500
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 230, 34, 70, 16, 20
CHARACTERS_MAX: Final = 32
#: How a box is written in Mermaid, and its corners and colour in SVG.
_SHAPES: Final = {
    "route": ("([", "])"),
    "operator": ("[", "]"),
    "mailbox": ("[(", ")]"),
    "loop": ("{{", "}}"),
}
_LOOKS: Final = {
    "route": ("17", "#e8f0fe"),
    "operator": ("4", "#fef3e0"),
    "mailbox": ("4", "#e6f4ea"),
    "loop": ("12", "#fce8e6"),
}


@dataclass
class _Picture:
    """Boxes by key with title and shape, lines between keys."""

    boxes: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    left_out: int = 0


def draw(graph: Graph, kind: str) -> str:
    """Draw in one of the kinds.

    :raises WiringError: for another kind
    """
    if kind not in ("mermaid", "svg"):
        raise WiringError(f"no diagram of kind {kind!r}", fix="mermaid or svg", item="kind")
    picture = _picture(graph)
    return _mermaid(picture) if kind == "mermaid" else _svg(picture, graph.name)


def _picture(graph: Graph) -> _Picture:
    picture = _Picture()
    boxes: dict[str, tuple[str, str]] = {f"r {r.address}": (r.text, "route") for r in graph.routes()}
    lines: set[tuple[str, str]] = set()
    for info in sorted(operator_rows(graph), key=lambda info: (info.name, info.id)):
        key = f"o {info.id}"
        steps = " | ".join(stage.kind for stage in info.stages) or "forward"
        boxes[key] = (f"{info.label}: {steps}", "operator")
        lines |= {(f"r {r.address}", key) for r, _, _ in info.inputs}
        outputs = [info.sink] if info.sink is not None else []
        lines |= {(key, f"r {r.address}") for r in [*outputs, *(r for _, _, r in info.sides)]}
    lines |= {(f"r {source.address}", f"r {sink.address}") for source, sink, _ in graph.connected()}
    for name in graph.mailboxes():
        _, ingress, poison, sinks = graph.mailbox_parts(name)
        boxes[f"m {name}"] = (f"mailbox: {name}", "mailbox")
        lines.add((f"r {ingress.address}", f"m {name}"))
        lines |= {(f"m {name}", f"r {r.address}") for r in (*sinks, poison)}
    for loop in graph.control_loops():
        boxes[f"l {loop.name}"] = (f"control loop: {loop.name}", "loop")
        lines |= {(f"r {r.address}", f"l {loop.name}") for r in loop.reads}
        lines |= {(f"l {loop.name}", f"r {r.address}") for r in loop.writes}
    kept = list(boxes)[:BOXES_MAX]
    picture.boxes = {key: boxes[key] for key in kept}
    picture.left_out = len(boxes) - len(kept)
    place = {key: number for number, key in enumerate(picture.boxes)}
    drawn = [line for line in lines if set(line) <= picture.boxes.keys()]
    picture.lines = sorted(drawn, key=lambda line: (place[line[0]], place[line[1]]))
    return picture


def _mermaid(picture: _Picture) -> str:
    names = {key: f"n{number}" for number, key in enumerate(picture.boxes)}
    out = ["flowchart LR\n"]
    for key, (title, shape) in picture.boxes.items():
        text = html.escape(title).replace('"', "&quot;")
        left, right = _SHAPES[shape]
        out.append(f'    {names[key]}{left}"{text}"{right}\n')
    out += [f"    {names[source]} --> {names[target]}\n" for source, target in picture.lines]
    if picture.left_out:
        out.append(f'    more["and {picture.left_out} more"]\n')
    return "".join(out)


def _columns(picture: _Picture) -> dict[str, int]:
    """The column of each box: behind everything that leads to it, as far as there is no way round in a circle."""
    column = dict.fromkeys(picture.boxes, 0)
    for _ in picture.boxes:
        moved = False
        for source, target in picture.lines:
            if column[target] <= column[source] < len(picture.boxes) - 1:
                column[target] = column[source] + 1
                moved = True
        if not moved:
            break
    used = {old: new for new, old in enumerate(sorted(set(column.values())))}
    return {key: used[at] for key, at in column.items()}


def _svg(picture: _Picture, name: str) -> str:
    column = _columns(picture)
    rows: dict[int, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for key in picture.boxes:
        at = column[key]
        row = rows.get(at, 0)
        rows[at] = row + 1
        place[key] = (MARGIN + at * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    wide = MARGIN * 2 + (max(rows, default=0) + 1) * (WIDTH + GAP_X)
    high = MARGIN * 2 + max(rows.values(), default=1) * (HEIGHT + GAP_Y) + 20
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'font-family="sans-serif" font-size="12" role="img"><title>{html.escape(name)}</title>\n'
    )
    out = [head]
    for source, target in picture.lines:
        (x1, y1), (x2, y2) = place[source], place[target]
        from_x, middle = x1 + WIDTH, (x1 + WIDTH + x2) // 2
        out.append(
            f'<path d="M{from_x},{y1 + HEIGHT // 2} C{middle},{y1 + HEIGHT // 2} {middle},{y2 + HEIGHT // 2} '
            f'{x2},{y2 + HEIGHT // 2}" fill="none" stroke="#888"/>\n'
        )
    for key, (title, shape) in picture.boxes.items():
        x, y = place[key]
        round_, fill = _LOOKS[shape]
        short = title if len(title) <= CHARACTERS_MAX else title[: CHARACTERS_MAX - 1] + "…"
        out.append(
            f'<g><title>{html.escape(title)}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" '
            f'rx="{round_}" fill="{fill}" stroke="#555"/><text x="{x + WIDTH // 2}" y="{y + HEIGHT // 2 + 4}" '
            f'text-anchor="middle">{html.escape(short)}</text></g>\n'
        )
    if picture.left_out:
        out.append(f'<text x="{MARGIN}" y="{high - 8}">and {picture.left_out} more</text>\n')
    out.append("</svg>\n")
    return "".join(out)
