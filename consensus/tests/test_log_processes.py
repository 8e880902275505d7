"""The durable log in real processes on real files: killed in the middle of writing, and short of space."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from meshfold.consensus import SoloLog
from meshfold.core.ports import Versioned

#: Kills of one run; set MESHFOLD_KILLS for a longer one.
KILLS = int(os.environ.get("MESHFOLD_KILLS", "5"))

#: Writes for ever, several at a time, compacting often; says each acknowledged entry after it was acknowledged.
WRITER = """
import asyncio, sys
from pathlib import Path
from meshfold.consensus import SoloLog, solo

solo.COMPACT_BYTES = 20_000

async def main(folder, life):
    log = SoloLog.open(Path(folder), node="hub")
    print("term", log.status().term, flush=True)
    async def write(lane):
        at = 0
        while True:
            value = f"{life}-{at}".encode()
            index = await log.put(f"lane-{lane}", value * 20)
            print("acked", lane, at, index, flush=True)
            at += 1
    await asyncio.gather(*(write(lane) for lane in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""

#: Writes until the file-size limit stops it, then deletes the limit and goes on.
FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from meshfold.consensus import SoloLog
from meshfold.core.errors import NoQuorum

async def main(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = SoloLog.open(Path(folder), node="hub")
    await log.put("before", b"1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    refused = 0
    for _ in range(3):
        try:
            await log.put("large", bytes(20_000))
        except NoQuorum as error:
            assert "File too large" in str(error), error
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    index = await log.put("after", b"2")
    print(refused, index, sorted(await log.snapshot()), flush=True)
    log.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def read(log: SoloLog) -> Mapping[str, Versioned]:
    """What the writers left."""
    return await log.snapshot("lane-")


def test_hf2_kill_9_in_the_middle_of_writing_loses_nothing_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    highest, term = 0, 0
    for life in range(KILLS):
        acked: dict[int, tuple[int, int]] = {}
        writer = subprocess.Popen(
            (sys.executable, "-c", WRITER, str(tmp_path), str(life)), stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer, writer.stdout:
            try:
                enough = rng.randint(1, 400)
                for line in writer.stdout:
                    word, *numbers = line.split()
                    if word == "term":
                        assert int(numbers[0]) > term, f"seed {seed}: term {numbers[0]} twice"
                        term = int(numbers[0])
                    elif len(numbers) == 3:
                        lane, at, index = map(int, numbers)
                        assert index > highest, f"seed {seed}: index {index} twice"
                        acked[lane] = (at, index)
                    enough -= 1
                    if enough == 0:
                        os.kill(writer.pid, signal.SIGKILL)
            finally:
                writer.kill()
        assert acked or enough <= 0, f"seed {seed}: the writer ended by itself"
        log = SoloLog.open(tmp_path, node="hub")
        found = asyncio.run(read(log))
        for lane, (at, index) in acked.items():
            # What was acknowledged, or a later one of this lane that was not heard of any more.
            value = found[f"lane-{lane}"]
            kept_life, _, kept_at = value.value[: len(value.value) // 20].decode().partition("-")
            assert (int(kept_life), value.version >= index) == (life, True), f"seed {seed}, life {life}"
            assert int(kept_at) >= at, f"seed {seed}, life {life}"
        highest = max(highest, log.status().commit)
        assert log.status().term > term
        term = log.status().term
        log.close()


def test_hf1_a_file_that_may_not_grow_is_refused_and_then_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        (sys.executable, "-c", FULL, str(tmp_path)), capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.split(maxsplit=2) == ["3", "2", "['after', 'before']\n"]


def test_a_process_that_holds_the_folder_is_named(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from meshfold.consensus import SoloLog; SoloLog.open(Path(sys.argv[1]), node='other')"
    log = SoloLog.open(tmp_path, node="hub")
    done = subprocess.run(
        (sys.executable, "-c", code, str(tmp_path)), check=False, capture_output=True, text=True, timeout=100
    )
    log.close()
    assert done.returncode != 0
    assert f"process {os.getpid()} (hub)" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_hf5_a_folder_that_may_not_be_written_is_named() -> None:
    code = (
        "import os, sys; from pathlib import Path; from meshfold.consensus import SoloLog;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "SoloLog.open(Path(sys.argv[1]), node='hub')"
    )
    done = subprocess.run(
        (sys.executable, "-c", code, "/nowhere"), check=False, capture_output=True, text=True, timeout=100
    )
    assert "ConfigError: cannot use the control log in /nowhere: Permission denied" in done.stderr
