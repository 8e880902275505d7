"""What a user can get wrong: one line that says what, where and what to do; the right exit code; nothing else changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RUN_S = 100.0


@pytest.fixture
def meshfold(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in an empty folder, with contexts of its own."""

    def run(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meshfold.mesh", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "MESHFOLD_CONTEXTS": str(tmp_path / "contexts"), **environ},
            timeout=RUN_S,
            check=False,
        )

    return run


def refused(answer: subprocess.CompletedProcess[str], code: int, *named: str) -> None:
    """One line on stderr that names everything given, nothing on stdout, and the exit code."""
    assert answer.returncode == code, answer.stderr
    assert answer.stdout == ""
    assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    for text in named:
        assert text in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("bogus",), "bogus"),
        (("up", "--no-such-option"), "--no-such-option"),
        (("up", "--nodes", "1"), "--nodes"),
        (("up", "--nodes", "many"), "--nodes"),
        (("up", "--for", "5"), "such as 15s"),
        (("up", "--for", "-1s"), "such as 15s"),
        (("up", "--log-level", "loud"), "debug, info, warning, error"),
        (("status", "--log-format", "xml"), "text, json"),
        (("status", "--context", "nope"), "no running mesh named 'nope'"),
        (("status", "--context", "/nope/x.json"), "/nope/x.json"),
        (("status", "--context", "/dev/zero/"), "/dev/zero"),
        (("status", "--context", "/proc/kmsg.json"), "/proc/kmsg.json"),
        (("status",), "meshfold up"),
        (("route", "latest", "no..route"), "owner/family/stream"),
        (("route", "latest", "a/b"), "owner/family/stream"),
        (("route", "watch", "a/b/c/d/e"), "owner/family/stream"),
        (("route", "publish", "a/b/c", "hello"), "no JSON"),
        (("route", "publish", "a/b/c", "NaN"), "NaN is no JSON number"),
        (("route", "publish", "a/b/c", "[" * 100_000), "no JSON"),
        (("route", "publish", "a/b/c", "1", "--schema", "protobof"), "unknown schema type 'protobof'"),
        (("grant", "issue", "x", "a/b/c", "--action", "FLY"), "META_READ"),
        (("init", "--dir", "m"), "--key-file"),
        (("init", "--dir", "m", "--key-file", "no/such/folder/k"), "no/such/folder/k"),
        (("init", "--dir", "m", "--passphrase-file", "/dev/zero"), "/dev/zero has more than 4096 bytes"),
        (("join", "--dir", "j", "--token-file", "missing"), "missing"),
        (("join", "--dir", "j", "--token-file", "/dev/zero"), "/dev/zero has more than"),
        (("join", "--dir", "j", "--creds", "/dev/zero"), "/dev/zero has more than"),
        (("node", "run"), "--dir"),
        (("node", "run", "--dir", "nothing-here"), "meshfold invite"),
        (("bench", "everything"), "mesh or all"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_is_one_line_and_exit_code_two(
    meshfold: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    refused(meshfold(*arguments), 2, named)
    assert list(tmp_path.iterdir()) == [], "it left something behind"


@pytest.mark.parametrize("path", ["~", "~/state", "$HOME/x", "a$b"])
def test_hl5_a_path_that_the_shell_should_have_replaced_is_refused(
    meshfold: Callable[..., Any], tmp_path: Path, path: str
) -> None:
    refused(meshfold("up", "--for", "1s", "--dir", path), 2, "write the path out")
    refused(meshfold("init", "--dir", path, "--key-file", "k"), 2, "write the path out")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"k"}


def test_hl5_a_folder_with_other_files_and_what_is_no_folder_are_refused(
    meshfold: Callable[..., Any], tmp_path: Path
) -> None:
    full, file, loop = tmp_path / "full", tmp_path / "file", tmp_path / "loop"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file.write_text("mine")
    loop.symlink_to(loop)
    for command in (("up", "--for", "1s"), ("init", "--key-file", str(tmp_path / "k"))):
        refused(meshfold(*command, "--dir", str(full)), 2, "notes.txt", "empty or new")
        refused(meshfold(*command, "--dir", str(file)), 2, "file", "choose a folder")
        refused(meshfold(*command, "--dir", str(file / "x")), 2, "file", "choose a folder")
        refused(meshfold(*command, "--dir", str(loop)), 2, "loop", "choose a folder")
        refused(meshfold(*command, "--dir", "../../../../../../../../etc"), 2, "empty or new")
    assert [entry.name for entry in full.iterdir()] == ["notes.txt"]
    assert file.read_text() == "mine"


def test_hl10_a_secret_on_the_command_line_is_refused_and_not_repeated(meshfold: Callable[..., Any]) -> None:
    answer = meshfold("join", "--dir", "j", "mfj1_c2VjcmV0")
    refused(answer, 2, "--token-file")
    assert "c2VjcmV0" not in answer.stderr
    for url in (
        "nats://user:hunter2@host:4222",
        "nats://hunter2@host",
        "tls://a:hunter2@h:99999",
        "nats://h,nats://u:hunter2@h",
    ):
        for command in (("init", "--dir", "m", "--key-file", "k"), ("join", "--dir", "j")):
            answer = meshfold(*command, "--nats", url, stdin=token())
            refused(answer, 2, "--creds")
            assert "hunter2" not in answer.stderr


def token() -> str:
    """A token that is well formed, for a mesh that is not there."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from meshfold.security.join import JoinToken

    return JoinToken(
        mesh="plant",
        cluster=bytes(16),
        authority=bytes(32),
        enrol_pub=X25519PrivateKey.generate().public_key().public_bytes_raw(),
        secret=bytes(32),
        name="edge-1",
        roles=("node",),
        expires_ms=2**45,
        url="nats://127.0.0.1:9",
    ).encode()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`disk(options)` mounts a small file system; needs root, which CI is."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"cannot mount a file system here: {made.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_hf1_a_full_disk_is_one_line_and_the_state_is_usable_once_there_is_room(
    meshfold: Callable[..., Any], disk: Callable[..., Path]
) -> None:
    folder = disk("size=64k") / "state"
    answer = meshfold("up", "--for", "1s", "--dir", str(folder))
    refused(answer, 2, "o space left on device")
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder.parent)], check=True)
    again = meshfold("up", "--for", "1s", "--dir", str(folder))
    assert again.returncode == 0, again.stderr


def test_hf5_a_read_only_disk_is_one_line(meshfold: Callable[..., Any], disk: Callable[..., Path]) -> None:
    folder = disk("size=1m,ro")
    refused(
        meshfold("up", "--for", "1s", "--dir", str(folder)), 2, "Read-only file system", "choose a folder"
    )
    refused(
        meshfold("init", "--dir", str(folder / "m"), "--key-file", str(folder / "k")),
        2,
        "Read-only file system",
    )


def test_contexts_that_cannot_be_written_do_not_stop_a_mesh(
    meshfold: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    answer = meshfold("up", "--for", "1s", MESHFOLD_CONTEXTS=str(tmp_path / "file" / "x"))
    assert answer.returncode == 0, answer.stderr
    assert "--context" in answer.stderr
