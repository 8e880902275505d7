"""The publishing process of the mesh benchmark: its argument is a context file, lines on stdin tell it what to do."""

from __future__ import annotations

import json
import sys
import time

from meshfold.core import Schema, route
from meshfold.mesh.node import Node

__all__ = ("main", "records")

#: What is sent: JSON of telemetry as bytes, alike from record to record as telemetry is.
records = route("edge", "bench", "record", schema=Schema.bytes("telemetry JSON", compress="safe"))
READY_S = 60.0
SLICE = 4096
#: At most so many events wait in the bridge: beyond its capacity an at-most-once route gives up the oldest.
WAITING_MAX = 32_768
PAUSE_S = 0.0005
RECORD = (
    '{"host":"edge-7","sensor":"thermal-%03d","value":%07.2f,"unit":"Celsius","status":"ok","seq":%010d,'
    '"at":%019d,"quality":0.%04d,"mode":"auto","labels":["kiln","line7"]}'
)
START_NS = 1_764_000_000_000_000_000


def record(number: int) -> bytes:
    """The record of a number; 186 bytes."""
    value = 800 + number * 7919 % 10_000 / 100
    text = RECORD % (number % 16, value, number, START_NS + number * 1_000_003, number * 31 % 10_000)
    return text.encode().ljust(186)


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    """Publish as many records as each line asks for."""
    with Node.open("edge", context=sys.argv[1]) as node:
        bridge = node.share(records)
        bridge.ready().result(READY_S)
        _say("ready")
        for line in sys.stdin:
            items = json.loads(line)["items"]
            made = [record(number) for number in range(items)]
            _say("made")
            for start in range(0, items, SLICE):
                while bridge.counters["pending"] > WAITING_MAX:
                    time.sleep(PAUSE_S)
                node.graph.publish_many(records, made[start : start + SLICE])
            _say("published")
