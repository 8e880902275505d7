"""Announce LiDAR scans at once and fetch their points only for the reader that needs them. Needs: nothing."""

from meshfold.core import Event, Graph, PayloadGone, Schema, route
from meshfold.core.payloads import LazyPayloadSource

scans = route("lidar-1", "scan", "points", schema=Schema.bytes(), layer="bulk")
graph = Graph()
reads: list[int] = []


def scan(number: int, returns: int) -> LazyPayloadSource:
    """A scan that stays on the device until somebody opens it."""

    def read() -> bytes:
        reads.append(number)
        return bytes([number]) * returns

    return LazyPayloadSource(read, logical_length_bytes=returns)


# Whoever looks at metadata reads nothing, however large the scan is.
graph.observe(scans, lambda event: print("announced:", event.key, event.taints or "no taints"))
events: list[Event[bytes]] = [
    graph.publish_lazy(scans, scan(number, 100_000 * number), key=f"sweep-{number}") for number in (1, 2, 3)
]
print("read so far:", reads)

opened = graph.open_payload(events[1])
print("opened:", events[1].key, len(opened.value), "bytes, read:", reads)
graph.open_payload(events[1])
print("opened again, read:", reads)

graph.evict_payload(events[0])
try:
    graph.open_payload(events[0])
except PayloadGone as gone:
    print("gone:", gone.code)
print("fetched bytes:", graph.payload_demand_snapshot()[0].fetched_bytes)
