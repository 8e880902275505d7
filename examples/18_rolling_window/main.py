"""Windows of event time: late values correct a window that was already given, too late ones have a place. Needs: nothing."""

from meshfold.core import Graph, Schema, route
from meshfold.core.expressions import mean

load = route("press-2", "load", "raw", schema=Schema.float("kN"))
average = route("press-2", "load", "average", schema=Schema.float("kN"))
late = route("press-2", "load", "late", schema=Schema.float("kN"))
S = 1_000_000_000

graph = Graph()
graph.pipe(load).window(width=10 * S, aggregate=mean(), disorder=0, grace=10 * S, late=late).into(average)
graph.observe(average, lambda event: print("average", event.value))
graph.observe(late, lambda event: print("too late", event.value))

for at_s, value in ((3, 10.0), (7, 20.0), (12, 40.0), (5, 60.0), (31, 50.0), (4, 70.0)):
    graph.publish(load, value, time=at_s * S)
