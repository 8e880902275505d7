"""`covers` against a slow, plain oracle: whatever a chain of covering links ends in, its root allows.

Ten thousand random chains in every run; MESHFOLD_LONG=1 makes it a hundred thousand.
"""

from __future__ import annotations

import os
import random

from meshfold.core.registry import Action
from meshfold.security import Capability, covers
from meshfold.security.capability import check_pattern, pattern_covers
from meshfold.security.caveat import Caveat, CaveatKind

CHAINS = 100_000 if os.environ.get("MESHFOLD_LONG") else 10_000
TOKENS = ("read", "logical", "a", "b", "ab")
#: Every address over two tokens a place: small enough to look at each.
WORLD = [tuple(("a", "b")[number >> place & 1] for place in range(6)) for number in range(64)]


def names(pattern: str, address: tuple[str, ...]) -> bool:
    """What a pattern names, said another way than in the code."""
    if pattern == ">":
        return True
    tokens = tuple(pattern.split("."))
    if tokens[-1] == ">":
        return address[: len(tokens) - 1] == tokens[:-1]
    return address == tokens


def any_pattern(rng: random.Random, below: str | None) -> str:
    """A random pattern, often one below the other."""
    tokens = [rng.choice("ab") for _ in range(6)]
    if below is not None and rng.random() < 0.8:
        start = below.split(".")[:-1] if below.endswith(">") else below.split(".")
        tokens[: len(start)] = start
    size = rng.randrange(7)
    return ".".join([*tokens[:size], ">"]) if size < 6 else ".".join(tokens)


def any_caveats(rng: random.Random, above: tuple[Caveat, ...]) -> tuple[Caveat, ...]:
    """Random caveats, often those above made tighter or looser by a little."""
    found: list[Caveat] = []
    known = {caveat.kind: caveat for caveat in above}
    for kind in CaveatKind:
        if kind in known and rng.random() < 0.9:
            values = tuple(max(0, value + rng.choice((-1, 0, 0, 1))) for value in known[kind].values)
        elif rng.random() < 0.3:
            values = tuple(sorted(rng.randrange(8) for _ in range(2 if kind is CaveatKind.EPOCHS else 1)))
        else:
            continue
        if len(values) == 2 and values[0] > values[1]:
            continue
        found.append(Caveat(kind, values))
    return tuple(found)


def any_below(rng: random.Random, parent: Capability | None) -> Capability:
    """A random capability, likely to be covered."""
    bits = rng.randrange(1, 1024)
    if parent is not None and rng.random() < 0.9:
        bits = (bits & parent.actions) or int(parent.actions)
    pattern = any_pattern(rng, parent.pattern if parent else None)
    return Capability(Action(bits), pattern, any_caveats(rng, parent.caveats if parent else ()))


def allows(capability: Capability, action: int, address: tuple[str, ...], rate: int, epoch: int) -> bool:
    """Whether one use of it is allowed, caveat by caveat."""
    if not capability.actions & action or not names(capability.pattern, address):
        return False
    for caveat in capability.caveats:
        if caveat.kind is CaveatKind.EPOCHS:
            if not caveat.values[0] <= epoch <= caveat.values[1]:
                return False
        elif rate > caveat.limit:
            return False
    return True


def test_no_random_chain_widens() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    linked = 0
    for number in range(CHAINS):
        root = leaf = any_below(rng, None)
        for _ in range(3):
            below = any_below(rng, leaf)
            check_pattern(below.pattern)
            if covers(leaf, below):
                leaf = below
                linked += 1
        assert covers(root, leaf) or leaf is root, f"not transitive, chain {number}, seed {seed}"
        for _ in range(8):
            use = (1 << rng.randrange(10), rng.choice(WORLD), rng.randrange(10), rng.randrange(10))
            assert not allows(leaf, *use) or allows(root, *use), f"chain {number}, seed {seed}, use {use}"
    assert linked > CHAINS / 2, "hardly anything was covered, so it proves nothing"


def test_patterns_agree_with_the_oracle_on_every_address() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for number in range(2000):
        above = any_pattern(rng, None)
        below = any_pattern(rng, above)
        inside = all(names(above, address) for address in WORLD if names(below, address))
        # `>` at the end names at least one more token, so equal sets have equal patterns over this world.
        assert pattern_covers(above, below) == inside, f"{above} {below}, case {number}, seed {seed}"
