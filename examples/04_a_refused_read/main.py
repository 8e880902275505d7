"""A node without a grant is refused, told what it lacks, and let in by a grant. Needs: a running `meshfold up`."""

import subprocess

from meshfold.core import Schema, route
from meshfold.core.errors import GrantDenied
from meshfold.mesh import Node

temperature = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))

with Node.open("kiln-7") as kiln:
    kiln.share(temperature).ready().result()

    with Node.open("outsider") as outsider:
        try:
            outsider.read(temperature)
        except GrantDenied as error:
            print("refused:", error.action, "on", error.route)

    command = (
        "meshfold grant issue outsider kiln-7/thermal/temperature --action META_READ --action PAYLOAD_OPEN"
    )
    subprocess.run(command.split(), check=True, capture_output=True)

    with Node.open("outsider") as outsider:
        outsider.read(temperature).ready(20).result()
        stream = outsider.graph.stream(temperature)
        kiln.graph.publish(temperature, 871.5)
        for event in stream.blocking(20):
            print("granted:", event.value)
            break
