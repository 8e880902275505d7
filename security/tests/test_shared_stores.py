"""Key stores of several voters: the same keys under the same names, on disk when a call returns."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.security import KeyStore
from meshfold.security.key_store import MEMBERS_KEPT

ROUTE = ("read", "logical", "edge", "vault", "secret", "meta")


def test_a_store_takes_in_what_another_drew_and_has_it_after_a_restart(tmp_path: Path) -> None:
    first, second = KeyStore.generate(tmp_path / "a"), KeyStore.empty(tmp_path / "b")
    first.draw_roots(1)
    first.draw_outside(ROUTE, 1)
    first.draw_members(1, 5)
    assert not second.has_root(0)
    for name, key in first.stock().items():
        second.adopt(name, key)
    assert second.stock() == first.stock() == KeyStore.load(tmp_path / "b").stock()
    assert second.has_root(1) and second.holds_outside("d", ROUTE, 1)


def test_a_key_that_nobody_used_is_replaced_and_none_is_drawn_twice(tmp_path: Path) -> None:
    first, second = KeyStore.generate(tmp_path / "a"), KeyStore.generate(tmp_path / "b")
    second.draw_outside(ROUTE, 1)
    before = second.stock()
    second.draw_roots(0)
    second.draw_outside(ROUTE, 1)
    assert second.stock() == before
    first.draw_outside(ROUTE, 1)
    for name, key in first.stock().items():
        second.adopt(name, key)
    assert second.stock() == first.stock() == KeyStore.load(tmp_path / "b").stock()


def test_of_members_keys_the_newest_are_kept_whatever_comes(tmp_path: Path) -> None:
    store = KeyStore.empty(tmp_path / "a")
    for epoch in (5, 3, 4, 1):
        store.adopt(f"members/{epoch}/7", bytes([epoch]) * 32)
    assert [epoch for epoch, _, _ in store.members()] == [4, 5] and MEMBERS_KEPT == 2
    assert KeyStore.load(tmp_path / "a").members() == store.members()
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_what_was_shredded_opens_nothing_until_it_is_given_again(tmp_path: Path) -> None:
    store = KeyStore.empty(tmp_path / "a")
    store.draw_outside(ROUTE, 1)
    kept = store.stock()
    assert store.shred(ROUTE, 1) and not store.stock()
    with pytest.raises(KeyMissing):
        store.outside("d", ROUTE, 1)
    assert not KeyStore.load(tmp_path / "a").stock() and len(kept) == 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        "root",
        "root/m",
        "root/q/0",
        "root/m/-1",
        "root/m/01",
        "root/m/70000",
        "root/m/../../x",
        "root/m/0/0",
        "members/1",
        "members/1/x",
        "members/99999/0",
        "outside/m/1/edge",
        "outside/m/1/read.logical.edge.vault.secret",
        "outside/m/1/../../../etc/x",
        "file/m/0",
        "root/m/٣",
    ],
)
def test_a_name_that_is_none_is_refused_and_nothing_is_kept(tmp_path: Path, name: str) -> None:
    store = KeyStore.empty(tmp_path / "a")
    for key in (bytes(32), bytes(31)):
        with pytest.raises(FrameRejected) as caught:
            store.adopt(name, key)
        assert caught.value.reason == "format"
    with pytest.raises(FrameRejected):
        store.adopt("root/m/0", bytes(31))
    assert not store.stock() and not list((tmp_path / "a").iterdir())
