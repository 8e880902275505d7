"""Read a route that another process shares. Needs: a running `meshfold up`, and share.py beside it."""

import asyncio

from meshfold.core import Schema, route
from meshfold.mesh import Node

temperature = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))


async def main() -> None:
    async with Node.open("panel") as node:
        node.read(temperature)
        seen = 0
        async for event in node.graph.stream(temperature):
            print(event.value, "is event", event.seq, "of", event.route.text)
            seen += 1
            if seen == 5:
                break


asyncio.run(main())
