"""Fences: lower tokens are refused for ever, over restarts and processes; damage is an error and not a fresh start."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from meshfold.consensus import Fence, Token
from meshfold.core.errors import ConfigError, Fenced, QueueFull, StoreDamaged, WiringError


def test_hc17_a_lower_token_is_refused_and_an_equal_one_passes(tmp_path: Path) -> None:
    fence = Fence(tmp_path / "fence")
    assert fence.highest("line-7") is None
    fence.admit(Token("line-7", 5))
    fence.admit(Token("line-7", 5))
    with pytest.raises(Fenced) as caught:
        fence.admit(Token("line-7", 4))
    assert (caught.value.fields["token"], caught.value.fields["highest"]) == (4, 5)
    # Another election is another matter.
    fence.admit(Token("line-8", 1))
    assert fence.highest("line-7") == Token("line-7", 5)


def test_a_fence_remembers_over_restarts(tmp_path: Path) -> None:
    Fence(tmp_path / "fence").admit(Token("line-7", 9))
    with pytest.raises(Fenced):
        Fence(tmp_path / "fence").admit(Token("line-7", 8))


def test_processes_share_a_fence(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from meshfold.consensus import Fence, Token;"
        "Fence(Path(sys.argv[1])).admit(Token('line-7', 70))"
    )
    subprocess.run((sys.executable, "-c", code, str(tmp_path / "fence")), check=True)
    with pytest.raises(Fenced):
        Fence(tmp_path / "fence").admit(Token("line-7", 69))


def test_an_effect_inside_hold_keeps_a_newer_leader_waiting(tmp_path: Path) -> None:
    fence, other = Fence(tmp_path / "fence"), Fence(tmp_path / "fence")
    order: list[str] = []

    def take_over() -> None:
        other.admit(Token("line-7", 2))
        order.append("newer")

    with fence.hold(Token("line-7", 1)):
        newer = threading.Thread(target=take_over)
        newer.start()
        order.append("older")
    newer.join(60)
    assert order == ["older", "newer"]


def test_a_damaged_fence_admits_nobody(tmp_path: Path) -> None:
    path = tmp_path / "fence"
    Fence(path).admit(Token("line-7", 5))
    whole = path.read_bytes()
    for wreck in (b"", whole[:-1], whole.replace(b"5", b"4", 1)):
        path.write_bytes(wreck)
        with pytest.raises(StoreDamaged):
            Fence(path).admit(Token("line-7", 9))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Fence(tmp_path / "nowhere" / "fence").admit(Token("line-7", 1))


def test_a_fence_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfold.consensus.fence.ELECTIONS_MAX", 2)
    fence = Fence(tmp_path / "fence")
    for name in ("a", "b"):
        fence.admit(Token(name, 1))
    with pytest.raises(QueueFull):
        fence.admit(Token("c", 1))
    fence.admit(Token("a", 2))


@pytest.mark.parametrize("text", ["", "x", "x:", "x:0", "x:-1", "x:1.5", "X:1", ":1", "x:" + "9" * 21])
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(WiringError):
        Token.parse(text)
    assert Token.parse(str(Token("line-7", 12))) == Token("line-7", 12)
