"""Pair accelerometer and gyroscope samples that belong together in time, out of order on arrival. Needs: nothing."""

from meshfold.core import Graph, Schema, route

accel = route("imu-1", "motion", "accel", schema=Schema.float("m/s2"))
gyro = route("imu-1", "motion", "gyro", schema=Schema.float("rad/s"))
pose = route("imu-1", "motion", "pose", schema=Schema.str())
MS = 1_000_000

graph = Graph()
near = graph.pipe(accel).interval_join(
    gyro, 5 * MS, lambda a, g: f"accel {a} with gyro {g}", disorder=50 * MS
)
near.into(pose)
graph.observe(pose, lambda event: print(event.value, "- causes:", len(event.parents)))

for at_ms, r, value in (
    (10, accel, 9.8),
    (30, accel, 9.7),
    (12, gyro, 0.1),
    (50, gyro, 0.3),
    (31, gyro, 0.2),
):
    graph.publish(r, value, time=at_ms * MS, key="imu-1")
