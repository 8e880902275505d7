"""Ask a lamp for a brightness, and tell what was asked for from what it does. Needs: nothing."""

from meshfold.core import Graph, Schema
from meshfold.core.writes import WriteBinding

brightness = WriteBinding.logical("lamp-3", "light", "brightness", schema=Schema.float("percent"))
graph = Graph()
lamp = graph.bind(brightness)


def show(moment: str) -> None:
    """The three values and how they fit together."""
    state = lamp.state()
    values = [event.value if event else None for event in (state.desired, state.reported, state.effective)]
    print(f"{moment}: desired {values[0]}, reported {values[1]}, effective {values[2]},", *state.coherence)


request = lamp.request(80.0)
show("asked")

# The lamp is limited to 70: it answers this very request, so its answer is what holds.
lamp.acknowledge(request)
lamp.report(70.0, cause=request)
show("answered")

# Somebody turned the knob: a report that nobody asked for.
lamp.report(20.0)
show("turned by hand")
