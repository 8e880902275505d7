"""A counter that reads its own output: the loop is closed, and goes round once for each epoch. Needs: nothing."""

from meshfold.core import Graph, Schema, WiringError, route
from meshfold.core.writes import ReadThenWriteNextEpochStep

count = route("line-7", "counter", "count", schema=Schema.int())
following = route("line-7", "counter", "following", schema=Schema.int())
graph = Graph()

# Without a barrier the loop would never end, so it is refused.
with graph.pipe(count).map(lambda n: n + 1).into(following):
    try:
        graph.connect(following, count)
    except WiringError as error:
        print("refused:", error.what)

step = ReadThenWriteNextEpochStep.map("count up", count, following, lambda n: n + 1)
step.install(graph)
graph.connect(following, count)
graph.observe(following, lambda event: print("epoch", event.epoch, "count", event.value))

graph.publish(count, 0, epoch=1)
for epoch in (2, 3, 4):
    step.advance(graph, epoch)
