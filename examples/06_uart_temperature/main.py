"""Read a thermometer on a serial line, garbage and broken lines included. Needs: nothing."""

import os
import tty

from meshfold.core import Graph, Schema, route
from meshfold.core.sensors import DelimitedMessageBuffer, PeripheralAdapter, ReactiveSensorSource

temperature = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))
graph = Graph()
graph.observe(temperature, lambda event: print(f"event {event.seq}: {event.value} C"))

# A pseudo terminal stands for the serial port; the far end is the device.
device, port = os.openpty()
tty.setraw(device)


def decode(line: bytes) -> float | None:
    """`T=871.5` to 871.5; lines of another kind are kept out."""
    return float(line.removeprefix(b"T=")) if line.startswith(b"T=") else None


source = ReactiveSensorSource(graph, temperature)
with PeripheralAdapter(port, source, DelimitedMessageBuffer(b"\n"), decode) as adapter:
    for part in (b"boot v2\nT=87", b"1.5\nT=no", b"thing\n", b"T=872.0\n"):
        os.write(device, part)
    while adapter.published < 2:
        adapter.ended.wait(0.01)
    print("published", adapter.published, "could not read", adapter.failures)
