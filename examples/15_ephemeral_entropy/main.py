"""Random numbers that nobody can replay, on a route that ends by itself. Needs: nothing."""

import random

from meshfold.core import Graph, ManualClock, Schema, WiringError, route

clock = ManualClock()
graph = Graph(clock=clock)
noise = graph.ephemeral("dice-1", "noise", "roll", schema=Schema.int(), ttl_s=60, seed=7)
kept = route("dice-1", "noise", "kept", schema=Schema.int())

source = random.Random(noise.seed)
for _ in range(3):
    event = noise.publish(source.randint(1, 6))
    print("rolled", event.value, *event.taints, event.correlation)

print("the graph keeps", graph.latest(noise.route))
copy = noise.promote(kept)
print("promoted", copy.value, *copy.taints)

clock.advance(61)
graph.advance()
try:
    noise.publish(1)
except WiringError as error:
    print("after its time:", error.what)
