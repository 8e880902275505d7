"""Which control log a voter keeps: `SoloLog` where it is the only one, `RaftLog` where there are several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from meshfold.consensus import RaftLog, SoloLog, Wire
from meshfold.core.errors import ConfigError
from meshfold.core.ports import Clock
from meshfold.mesh.enrolment.authority_folder import write_private
from meshfold.mesh.node.raft_wire import number_of
from meshfold.mesh.subjects import GROUP
from meshfold.security import Identity

__all__ = ("VoterLog", "open_group", "voter_folder")

VoterLog = SoloLog | RaftLog


def voter_folder(state_dir: Path, identity: Identity, voters: Sequence[Identity]) -> Path:
    """Where a voter keeps log and keys, made if needed: several voters of one machine stand side by side.

    :raises ConfigError: if the mesh was founded with another number of voters
    """
    folder = state_dir / "voter"
    alone = len(voters) == 1
    if next(folder.glob("*/raft"), None) is not None if alone else (folder / "log").exists():
        raise ConfigError(
            f"{folder} holds the log of a mesh with {'several voters' if alone else 'one voter'}",
            fix="a mesh keeps the voters it was founded with",
            item=str(folder),
        )
    own = folder if alone else folder / identity.tag.hex()
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    return own


def open_group(
    folder: Path, node_folder: Path, identity: Identity, voters: Sequence[Identity], wire: Wire, clock: Clock
) -> RaftLog:
    """This voter's part of the log of several; it takes part once it is started.

    :param node_folder: where the node's keys are: it remembers that this identity has voted
    :raises ConfigError: if the folder cannot be used, or what this identity voted is lost: it must not vote again
    :raises StoreDamaged: if the log is damaged below what it acknowledged
    """
    path, mark = folder / "raft", node_folder / "voted"
    names = {number_of(one.tag): one.name for one in voters}
    if mark.exists() and not path.exists():
        raise ConfigError(
            f"{identity.name} has voted, and its log {path} is gone: under the same identity it could vote otherwise",
            fix="put the folder back; the other voters go on without it",
            item=str(path),
        )
    log = RaftLog.open(
        path,
        group=GROUP,
        node=number_of(identity.tag),
        names=lambda number: names.get(number, f"{number:016x}"),
        founders=sorted(names),
        wire=wire,
        clock=clock,
        seed=int.from_bytes(os.urandom(8), "big"),
    )
    if sorted(log.status().voters) != sorted(names.values()):
        raise ConfigError(
            f"{path} is the log of the voters {', '.join(log.status().voters)}",
            fix="a mesh keeps the voters it was founded with",
            item=str(path),
        )
    write_private(mark, b"")
    return log
