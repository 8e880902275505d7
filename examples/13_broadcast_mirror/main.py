"""Mirror a small table beside a fast stream, so that each reading is looked up without asking anybody. Needs: nothing."""

from meshfold.core import Graph, JoinInput, Schema, field, key, route, value

readings = route("line-1", "press", "force", schema=Schema.float("N"))
limits = route("office", "press", "limits", schema=Schema.of(dict[str, str | float], name="limit"))
margins = route("line-1", "press", "margin", schema=Schema.float("N"))

graph = Graph()
graph.publish(limits, {"press": "a", "most": 90.0})
plan = graph.plan_join(
    "margin", JoinInput(readings, key=key), JoinInput(limits, key=field("press"), bounded=True, mirrored=True)
)
print("plan:", plan.kind, "-", plan.reason)
plan.install(value[1]["most"] - value[0], margins)
print("mirror:", *(r.text for r in plan.routes))
graph.observe(margins, lambda event: print(event.key, "has", event.value, "N to spare"))

graph.publish(readings, 60.0, key="a")
graph.publish(readings, 60.0, key="b")  # no limit is known for b yet
graph.publish(limits, {"press": "b", "most": 75.0})
graph.publish(readings, 70.0, key="b")
graph.publish(limits, {"press": "a", "most": 65.0})
graph.publish(readings, 60.0, key="a")

(join,) = [edge for edge in graph.edges() if edge.route == readings.text]
print("without a limit:", join.counters.dropped)
plan.close()
