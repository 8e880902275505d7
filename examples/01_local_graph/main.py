"""Publish, observe and derive in one process, and ask an event where it comes from. Needs: nothing."""

from meshfold.core import Graph, Schema, route

temperature = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))
alarm = route("kiln-7", "thermal", "alarm", schema=Schema.str())

graph = Graph()
graph.pipe(temperature).filter(lambda celsius: celsius > 900).map(lambda c: f"{c} is too hot").into(alarm)
graph.observe(alarm, lambda event: print("alarm:", event.value))

for celsius in (871.5, 912.0, 899.9, 930.25):
    graph.publish(temperature, celsius)

last = graph.latest(alarm)
lineage = graph.lineage(last.id)
print("the last alarm is event", last.seq, "of", last.route.text)
print("it was caused by event", lineage.parents[0].first, "of", temperature.text)
