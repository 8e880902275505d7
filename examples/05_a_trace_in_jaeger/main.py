"""Follow one event over two nodes and find its trace in Jaeger by the event's id. Needs: a running `meshfold up`, and Jaeger."""

import json
import os
import urllib.parse
import urllib.request

from meshfold.core import Schema, route
from meshfold.mesh import Node

JAEGER = os.environ.setdefault("JAEGER_URL", "http://127.0.0.1:16686")
os.environ.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")

celsius = route("kiln-7", "thermal", "celsius", schema=Schema.float("Celsius"))
fahrenheit = route("panel", "thermal", "fahrenheit", schema=Schema.float("Fahrenheit"))


def spans_of(event: str) -> list[str]:
    """What Jaeger knows about the trace of an event."""
    query = {"service": "kiln-7", "tags": json.dumps({"meshfold.event.id": event})}
    with urllib.request.urlopen(f"{JAEGER}/api/traces?{urllib.parse.urlencode(query)}") as answer:
        traces = json.load(answer)["data"]
    names = {name: process["serviceName"] for trace in traces for name, process in trace["processes"].items()}
    return sorted(f"{names[s['processID']]}: {s['operationName']}" for t in traces for s in t["spans"])


with Node.open("kiln-7") as kiln, Node.open("panel") as panel:
    kiln.share(celsius).ready(20).result()
    panel.read(celsius).ready(20).result()
    panel.graph.pipe(celsius).map(lambda c: c * 1.8 + 32).into(fahrenheit)
    derived = panel.graph.stream(fahrenheit)
    event = kiln.graph.publish(celsius, 871.5)
    print("derived:", next(iter(derived.blocking(20))).value)

while len(spans := spans_of(event.id)) < 4:
    pass  # both nodes have sent their spans by now; Jaeger takes a moment to show them
print("\n".join(spans))
