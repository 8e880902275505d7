"""What a node must remember over a restart to stay safe, as files in its folder. Each is replaced atomically and fsynced.

running     held while a process is this node
start       the start record of the last life (SR1)
stamps      no frame of an earlier life is stamped later than this, ms since 1970
windows     replay windows, written every second and at a clean stop
policy      the highest policy record ever seen (PR1)
wrap        the newest wrapping key's record (WR1)
shredded    epochs of shreddable routes this node has confirmed to have erased
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.enrolment.authority_folder import write_private
from meshfold.mesh.folders import FolderLock
from meshfold.security import NodeKeys, StartRecord, WrapRecord

__all__ = ("NodeMemory",)

#: Stamps are reserved on disk so far ahead: one write a second, and never one for each frame.
RESERVE_MS: Final = 1_000
SHREDDED_MAX: Final = 65_536


class NodeMemory:
    """The files of one node. One process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FolderLock(
            folder,
            "process that is this node",
            name="running",
            fix="stop that one, or take another name: two processes with one identity are a clone",
        )

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    def hold(self) -> None:
        """Be the one process that is this node.

        :raises ConfigError: if another is, or the folder cannot be used
        """
        self._lock.acquire()

    def release(self) -> None:
        """Let another process be this node. Idempotent."""
        self._lock.release()

    def begin(self, keys: NodeKeys, cluster: bytes, incarnation: bytes, hlc: HybridClock) -> StartRecord:
        """Order this life after the last one: on disk before anything is sent.

        :raises ConfigError: if the last life's record is damaged or of another node
        """
        raw = self._read("start")
        predecessor = bytes(8)
        if raw is not None:
            try:
                last = StartRecord.parse(raw, cluster=cluster)
                if last.node_pub != keys.node_pub:
                    raise FrameRejected("member", "of another node")
            except FrameRejected as error:
                raise ConfigError(
                    f"{self._folder / 'start'} is damaged: {error}",
                    fix="restore it; a node that forgets its last life is taken for a clone",
                    item="start",
                ) from None
            predecessor = last.incarnation
        reserved = self._read("stamps")
        hlc.reserve_from(
            (struct.unpack(">Q", reserved)[0] if reserved and len(reserved) == 8 else 0), self._stamps
        )
        record = StartRecord.issue(keys, cluster, incarnation, predecessor, hlc.stamp())
        self._write("start", record.raw)
        return record

    def _stamps(self, at_ms: int) -> int:
        """Reserve stamps from `at_ms` on; returns until when."""
        until_ms = at_ms + RESERVE_MS
        self._write("stamps", struct.pack(">Q", until_ms))
        return until_ms

    def windows(self) -> bytes | None:
        """The replay windows last written."""
        return self._read("windows")

    def save_windows(self, data: bytes) -> None:
        """Write them."""
        self._write("windows", data)

    def policy(self) -> bytes | None:
        """The highest policy record seen."""
        return self._read("policy")

    def save_policy(self, raw: bytes) -> None:
        """Write it."""
        self._write("policy", raw)

    def wrap(self, keys: NodeKeys, cluster: bytes) -> WrapRecord | None:
        """The record of the present wrapping key, if it was ever replaced."""
        raw = self._read("wrap")
        return WrapRecord.parse(raw, cluster=cluster, node_pub=keys.node_pub) if raw else None

    def rotate_wrap(self, keys: NodeKeys, cluster: bytes) -> WrapRecord:
        """Replace the wrapping key, and write and return its record."""
        last = self.wrap(keys, cluster)
        keys.rotate_wrap()
        record = WrapRecord.issue(keys, cluster, last.counter + 1 if last else 1)
        self._write("wrap", record.raw)
        return record

    def shredded(self) -> frozenset[str]:
        """Epochs erased here: `address epoch` each."""
        raw = self._read("shredded")
        return frozenset(raw.decode().split("\n")) if raw else frozenset()

    def note_shredded(self, names: frozenset[str]) -> None:
        """Remember them."""
        kept = sorted(self.shredded() | names)[-SHREDDED_MAX:]
        self._write("shredded", "\n".join(kept).encode())

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        write_private(self._folder / name, data)
