"""Join two routes that are partitioned differently, as a plan that says what it does and how evenly the keys fall. Needs: nothing."""

from meshfold.core import Graph, JoinInput, Schema, field, route, value

Order = dict[str, int]
orders = route("shop", "sales", "orders", schema=Schema.of(Order, name="order"))
stock = route("depot", "goods", "stock", schema=Schema.of(Order, name="stock"))
left_over = route("shop", "sales", "left-over", schema=Schema.int())

graph = Graph()
plan = graph.plan_join(
    "left-over",
    JoinInput(orders, key=field("article"), partitioned_by="customer"),
    JoinInput(stock, key=field("article"), partitioned_by="shelf", bounded=True),
    partitions=4,
)
print("plan:", plan.kind, "-", plan.reason)
for r in plan.routes:
    print("in between:", r.text)

plan.install(value[1]["count"] - value[0]["count"], left_over)
graph.observe(left_over, lambda event: print("left:", event.value, "- causes:", len(event.parents)))

graph.publish(stock, {"article": 7, "count": 100})
graph.publish(stock, {"article": 8, "count": 20})
for article, count in ((7, 30), (8, 5), (7, 10), (7, 1)):
    graph.publish(orders, {"article": article, "count": count})

told = graph.explain_join("left-over")
print(f"hottest key: {told.hot_key_frequency:.0%} of {told.items} items, skew {told.skew:.1f}")
