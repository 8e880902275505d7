"""The average of the last three temperatures of each kiln, in native code. Needs: nothing."""

from meshfold.core import Graph, Schema, route
from meshfold.core.expressions import key, mean

temperature = route("plant", "thermal", "temperature", schema=Schema.float("Celsius"))
average = route("plant", "thermal", "average", schema=Schema.float("Celsius"))

graph = Graph()
graph.pipe(temperature).window(3, aggregate=mean(), partition_by=key).into(average)
graph.observe(average, lambda event: print(f"{event.key}: {event.value:.1f}"))

for kiln, celsius in (("a", 870.0), ("b", 400.0), ("a", 880.0), ("a", 890.0), ("a", 900.0), ("b", 420.0)):
    graph.publish(temperature, celsius, key=kiln)
