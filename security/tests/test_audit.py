"""The audit chain: whole it holds, and whatever is changed, left out, put in or cut shows."""

from __future__ import annotations

import json
import random

from hostile import VARIANTS
from meshfold.security import AuditChain, NodeKeys, read_audit


def chain_of(keys: NodeKeys, count: int = 30) -> list[bytes]:
    """A log with a head after every ten entries."""
    chain = AuditChain()
    lines: list[bytes] = []
    for number in range(count):
        lines.append(
            chain.entry(number, who="hub", action="META_READ", route="a/b/c", allowed=True, because="grant 1")
        )
        if number % 10 == 9:
            head = chain.head(keys, number)
            assert head is not None
            lines.append(head)
    return lines


def test_a_whole_chain_holds_and_says_how_far_it_is_signed() -> None:
    keys = NodeKeys.generate()
    report = read_audit(chain_of(keys), keys.node_pub)
    assert (report.broken, report.signed_to, len(report.entries)) == ("", 30, 30)
    assert report.entries[4]["seq"] == 5


def test_a_piece_of_a_chain_holds_on_its_own() -> None:
    keys = NodeKeys.generate()
    report = read_audit(chain_of(keys)[7:], keys.node_pub, first=False)
    assert report.broken == ""


def test_whatever_is_done_to_it_shows() -> None:
    keys = NodeKeys.generate()
    lines = chain_of(keys)
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for variant in range(VARIANTS * 3):
        altered = list(lines)
        place = rng.randrange(len(lines) - 1)
        how = variant % 4
        if how == 0:
            raw = altered[place]
            at = rng.randrange(len(raw))
            altered[place] = raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(7)]) + raw[at + 1 :]
        elif how == 1:
            del altered[place]
        elif how == 2:
            altered.insert(place, altered[rng.randrange(len(lines))])
        else:
            document = json.loads(altered[place])
            document["at_ms"] = 99
            altered[place] = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        report = read_audit(altered, keys.node_pub)
        assert report.broken or altered == lines, f"variant {variant}, seed {seed}"


def test_a_log_written_anew_by_another_key_does_not_hold() -> None:
    keys = NodeKeys.generate()
    report = read_audit(chain_of(NodeKeys.generate()), keys.node_pub)
    assert "signature" in report.broken
    assert len(report.entries) == 10


def test_a_later_life_goes_on_where_the_last_one_ended() -> None:
    keys = NodeKeys.generate()
    lines = chain_of(keys)
    report = read_audit(lines, keys.node_pub)
    chain = AuditChain(report.seq, report.prev)
    lines.append(chain.entry(50, who="", action="start", route="", allowed=True, because=""))
    assert read_audit(lines, keys.node_pub).broken == ""
