"""Ask another node to write, and be told what its device did. Needs: a running `meshfold up`."""

import subprocess

from meshfold.core import Schema
from meshfold.core.errors import GrantDenied
from meshfold.core.writes import WriteBinding
from meshfold.mesh import Node

brightness = WriteBinding.logical("lamp-3", "light", "brightness", schema=Schema.float("percent"))

with Node.open("lamp-3") as lamp:
    # The lamp owns its routes. It goes up to 70, and reports what it does.
    lamp.graph.bind(brightness).device(lambda percent: min(percent, 70.0))
    lamp.share(brightness.request).ready().result()

    with Node.open("panel") as panel:
        try:
            panel.request(brightness.request, 80.0).result()
        except GrantDenied as error:
            print("refused:", error.action, "on", error.route)

    command = f"meshfold grant issue panel {brightness.request.address} --action WRITE_REQUEST"
    subprocess.run(command.split(), check=True, capture_output=True)

    with Node.open("panel") as panel:
        answer = panel.request(brightness.request, 80.0).result()
        print(answer.owner, "has", answer.state)
    print("it shines at", lamp.graph.latest(brightness.effective).value, "percent")
