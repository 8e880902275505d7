"""Share one route with the mesh. Needs: a running `meshfold up`."""

import asyncio
import itertools

from meshfold.core import Schema, route
from meshfold.mesh import Node

temperature = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))


async def main() -> None:
    async with Node.open("kiln-7") as node:
        node.share(temperature)
        for step in itertools.count():
            node.graph.publish(temperature, 870.0 + step % 10)
            await asyncio.sleep(0.2)


asyncio.run(main())
