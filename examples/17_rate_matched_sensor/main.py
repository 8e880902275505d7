"""A fast sensor and a slow reader: the reader sets the pace, and what it missed is counted. Needs: nothing."""

from meshfold.core import Graph, Schema, route
from meshfold.core.elements import RateMatchedSensor

raw = route("imu-1", "motion", "raw", schema=Schema.int())
paced = route("imu-1", "motion", "paced", schema=Schema.int())
demand = route("imu-1", "motion", "demand", schema=Schema.bool())

graph = Graph()
with RateMatchedSensor(raw, paced, demand).install(graph) as sensor:
    graph.observe(paced, lambda event: print("took", event.value, *event.taints))
    for value in range(1, 10):
        graph.publish(raw, value)
        if value % 4 == 0:
            graph.publish(demand, True)
    print("published", graph.published(raw), "held", sensor.counters.pending, "lost", sensor.counters.dropped)
