"""One line for each group, of what several voters say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshfold.mesh.subjects import GROUP

__all__ = ("groups_of",)


def groups_of(answers: Mapping[str, Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """(a line for each group, what is wrong with the voters), of the `status` answers by node.

    The newest leader counts, and only if it answers itself: others may name one that is gone.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    voting: list[str] = []
    for name, document in answers.items():
        for line in document["groups"]:
            lines.setdefault(line["group"], []).append(line)
            if line["group"] == GROUP:
                voting.append(name)
    if GROUP not in lines:
        # Said as it is: without a voter nobody leads, whoever did before.
        nobody = {"group": GROUP, "leader": None, "term": 0, "commit": 0, "token": None}
        return [*(newest(line) for line in lines.values()), nobody], ["no voter of the control log answers"]
    found = {group: newest(of_group) for group, of_group in lines.items()}
    control = found[GROUP]
    wrong = [f"voter {name} does not answer" for name in sorted(set(control["voters"]) - set(voting))]
    if 2 * len(voting) <= len(control["voters"]) or control["leader"] not in voting:
        control |= {"leader": None, "token": None}
    if control["leader"] is None:
        wrong.append(f"{GROUP} has no leader: {len(voting)} of {len(control['voters'])} voters answer")
    return list(found.values()), wrong


def newest(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the voter says that knows most."""
    return dict(max(lines, key=lambda line: (line["term"], line["leader"] is not None, line["commit"])))
