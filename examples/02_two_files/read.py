"""Read a route that another process shares: prints five events and stops."""

import asyncio

from meshfold.core import Schema, route
from meshfold.mesh import Node

temperature = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))


async def main() -> None:
    async with Node.open("panel") as node:
        node.read(temperature)
        seen = 0
        async for event in node.graph.stream(temperature):
            print(event.value, event.id)
            seen += 1
            if seen == 5:
                break


asyncio.run(main())
