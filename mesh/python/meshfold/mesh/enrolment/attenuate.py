"""Passing a grant on from the folder of the node that holds it: its own key signs, and nobody else is asked."""

from __future__ import annotations

import time
from pathlib import Path

from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.core.registry import Action
from meshfold.mesh.enrolment.authority_folder import grants_in
from meshfold.security import Capability, Caveat, Grant, NodeKeys

__all__ = ("attenuate_from",)


def attenuate_from(
    folder: Path,
    grant_id: str,
    public_key: str,
    pattern: str,
    actions: Action,
    caveats: tuple[Caveat, ...],
    seconds: float,
) -> Grant:
    """One more link on a grant in `folder`.

    :param grant_id: beginning of its id in hex
    :param public_key: the receiver's signing key in hex
    :raises ConfigError: if folder, grant or key cannot be used, or the new link would allow more than the grant does
    """
    try:
        held = [grant for grant in grants_in(folder) if grant.hash.hex().startswith(grant_id)]
        keys = NodeKeys.load(folder)
        receiver = bytes.fromhex(public_key)
    except (OSError, FrameRejected, ValueError) as error:
        raise ConfigError(
            f"cannot pass on a grant of {folder}: {error}",
            fix="--dir names the folder of the node that holds it, and the public key has 64 hex digits",
            item=str(folder),
        ) from None
    if len(held) != 1:
        raise ConfigError(
            f"{grant_id!r} names {len(held)} grants in {folder}",
            fix="`meshfold grant ls` shows ids",
            item=grant_id,
        )
    now_ms = time.time_ns() // 1_000_000
    try:
        return held[0].attenuate(
            keys,
            receiver,
            (Capability(actions, pattern, caveats),),
            not_after_ms=now_ms + int(seconds * 1000),
            now_ms=now_ms,
        )
    except FrameRejected as error:
        raise ConfigError(
            f"the grant cannot be passed on so: {error.detail} ({error.reason})",
            fix="a link may only narrow; `meshfold grant show` prints what the grant allows",
            item=error.reason,
        ) from None
