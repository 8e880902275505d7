"""`meshfold recover`: give up the damaged end of a control log, knowing what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.options import AsJson
from meshfold.mesh.cli.support import emit

__all__ = ("recover",)


def recover(
    folder: Annotated[
        Path, typer.Argument(help="the folder of a mesh or of its log, while no voter runs there")
    ],
    recover_to: Annotated[
        int, typer.Option("--recover-to", min=0, help="the byte that the damage was found at")
    ],
    as_json: AsJson = False,
) -> None:
    """Give up the damaged end of a control log. What stood there, revocations too, is lost; its indexes are never used again.

    Example: meshfold recover ./mesh --recover-to 4891
    """
    from meshfold.consensus import SoloLog

    if folder.name == "raft" or next(folder.glob("voter/*/raft"), None) is not None:
        raise ConfigError(
            f"{folder} is of one of several voters: what it acknowledged cannot be given up, the others count on it",
            fix="leave it out: a majority of the others has everything, and goes on without it",
            item=str(folder),
        )
    found = next((path for path in (folder / "voter" / "log", folder) if (path / "state").exists()), None)
    if found is None:
        raise ConfigError(
            f"there is no control log in {folder}",
            fix="name the folder that `up --dir` or `node run --dir` was given",
            item=str(folder),
        )
    log = SoloLog.open(found, node="recover", recover_to=recover_to)
    try:
        status = log.status()
        document: dict[str, Any] = {
            "log": str(found),
            "term": status.term,
            "commit": status.commit,
            "keys": len(log.state.values),
        }
    finally:
        log.close()

    def lines(done: dict[str, Any]) -> list[str]:
        return [
            f"{done['log']}: {done['keys']} keys are left, the next entry is {done['commit'] + 1}",
            "compare `meshfold grant ls` with what you know: later grants and revocations are gone",
        ]

    emit(document, as_json=as_json, lines=lines)
