"""Two nodes want to lead one line; a token tells an old leader from the new one. Needs: a running `meshfold up`."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from meshfold.consensus import Fence
from meshfold.core.errors import Fenced
from meshfold.mesh import Node


async def main(folder: Path) -> None:
    # What only the leader may touch keeps the highest token it has seen.
    line = Fence(folder / "line-7")
    async with Node.open("robot-1") as first, Node.open("robot-2") as second:
        async with first.election("line-7").lead(barrier=[line]) as lease:
            old = lease.token
            leader = await second.election("line-7").leader()
            print("robot-2 sees", leader.leader, "lead")
        async with second.election("line-7").lead(barrier=[line]) as lease:
            print("robot-2 leads with a higher token:", lease.token.number > old.number)
            try:
                line.admit(old)
            except Fenced:
                print("the token of robot-1 is refused")


with TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder)))
