"""Runs the fuzz targets of the rooms: `tools/fuzz.py --quick` for 15 s each, `--seconds N` for as long as you like.

Inputs are honest ones changed at random: bits, bytes, lengths, pieces of other inputs, cuts. One that is refused in a new way
is kept and changed further, so the fuzzer gets deeper than the first check. A find is written to a file, with what it takes to
run it again, and the exit code is 1.

`--quick` walks from the same seed each time: a change is judged by what it changes, not by luck. Search with `--seconds`, which
takes a fresh seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "security" / "tests"), str(ROOT / "core" / "tests")]

from core_fuzz_targets import CORE_TARGETS
from fuzz_targets import TARGETS as SECURITY_TARGETS
from fuzz_targets import Target
from store_fuzz_targets import STORE_TARGETS

QUICK_S = 15.0
QUICK_SEED = 20
CORPUS_MAX = 512
INPUT_BYTES_MAX = 64 * 1024


LOCAL_TARGETS = {**CORE_TARGETS, **STORE_TARGETS}


def _local(name: str) -> Callable[[], Target]:
    return lambda: Target(*LOCAL_TARGETS[name]())


TARGETS = {**SECURITY_TARGETS, **{name: _local(name) for name in LOCAL_TARGETS}}
INTERESTING = (0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255)


def changed(data: bytes, corpus: list[bytes], rng: random.Random) -> bytes:
    """One more input: a few changes of one in the corpus."""
    out = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        place = rng.randrange(len(out) + 1) if out else 0
        how = rng.randrange(8)
        if how == 0 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif how == 1 and place < len(out):
            out[place] = rng.choice(INTERESTING)
        elif how == 2:
            out[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif how == 3:
            del out[place : place + rng.randrange(1, 33)]
        elif how == 4:
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            out[place : place + rng.randrange(65)] = other[start : start + rng.randrange(65)]
        elif how == 5:
            width = rng.choice((2, 4, 8))
            number = rng.choice(
                (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), rng.randrange(2 ** (8 * width)))
            )
            out[place : place + width] = number.to_bytes(width, "big")
        elif how == 6:
            out = out[:place]
        else:
            out += out[place : place + rng.randrange(1, 257)]
    return bytes(out[:INPUT_BYTES_MAX])


def fuzz(target: Target, seconds: float, seed: int) -> tuple[int, int, str]:
    """Run one target; returns how many inputs, how many ways to be refused, and what was found."""
    rng = random.Random(seed)
    corpus = list(target.seeds)
    ways = {target.run(data) for data in corpus}
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(64):
            data = changed(rng.choice(corpus), corpus, rng)
            count += 1
            try:
                way = target.run(data)
            except Exception:  # noqa: BLE001 - whatever is raised here is the find
                return count, len(ways), f"{traceback.format_exc()}\ninput {data.hex()}"
            if way not in ways:
                ways.add(way)
                if len(corpus) < CORPUS_MAX:
                    corpus.append(data)
    return count, len(ways), ""


def seed_of(options: argparse.Namespace) -> int:
    """The seed asked for, the one of every quick run, or a fresh one."""
    if options.seed is not None:
        return int(options.seed)
    return QUICK_SEED if options.quick else random.randrange(2**32)


def main() -> int:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_S:.0f} s for each target, as CI does")
    parser.add_argument("--seconds", type=float, default=QUICK_S, help="seconds for each target")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated"
    )
    parser.add_argument("--seed", type=int, help="to run a find again")
    options = parser.parse_args()
    seconds = QUICK_S if options.quick else options.seconds
    if seconds <= 0:
        parser.error("--seconds is a time above zero")
    failed = 0
    for name in options.target or TARGETS:
        seed = seed_of(options)
        target = TARGETS[name]()
        count, ways, found = fuzz(target, seconds, seed)
        sys.stdout.write(
            f"{target.name:<26} {count:>10,} inputs, {ways:>4} ways to be refused, seed {seed}\n"
        )
        if found:
            path = Path(f"fuzz-{name}-{seed}.txt")
            path.write_text(found)
            sys.stdout.write(f"FOUND something, written to {path}:\n{found[:2000]}\n")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
