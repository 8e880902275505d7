"""Work that must not be lost: a mailbox leases each item, and an item that fails comes back. Needs: nothing."""

from meshfold.core import Graph, Schema
from meshfold.core.mailbox import MailboxDescriptor

graph = Graph()
jobs = graph.mailbox("jobs", MailboxDescriptor(capacity=8, delivery_mode="mpmc_unique"), schema=Schema.str())

for job in ("cut", "weld", "paint"):
    graph.publish(jobs.ingress, job)

tried: list[str] = []
with jobs.consumer("robot-1") as robot:
    while delivery := robot.receive_nowait():
        tried.append(delivery.value)
        if delivery.value == "weld" and tried.count("weld") == 1:
            print("failed:", delivery.value, "attempt", delivery.attempt)
            delivery.nack()
        else:
            print("done:", delivery.value, "attempt", delivery.attempt)
            delivery.ack()

print("left:", graph.mailbox_snapshot("jobs").depth)
