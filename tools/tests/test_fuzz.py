"""The fuzzer itself: it finds what is planted, and every target survives a moment of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fuzz
from fuzz import TARGETS
from fuzz_targets import Target


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_each_target_refuses_what_it_must_not_take(name: str) -> None:
    count, ways, found = fuzz.fuzz(TARGETS[name](), 0.2, 7)
    assert found == ""
    assert count > 0
    assert ways > 1


def test_a_planted_fault_is_found() -> None:
    def careless(data: bytes) -> str:
        return "ok" if data[3:4] != b"\xff" else str(data[10_000])

    target = Target("planted", (b"abcdefgh",), careless)
    _, _, found = fuzz.fuzz(target, 20.0, 1)
    assert "IndexError" in found
