"""Two brokers behind one face: a real nats-server and the simulated one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.ports import Message, Transport
from meshfold.mesh.broker import EmbeddedServer, Papers, Permissions, mint_user
from meshfold.mesh.transport import Login, NatsTransport, SimBroker

__all__ = ("OPEN", "WAIT_S", "Broker", "NatsBroker", "SimulatedBroker", "arrived")

WAIT_S = 20.0
OPEN = Permissions(pub=(">",), sub=(">",), allow_responses=True)
LIFE_S = 600


async def arrived(queue: asyncio.Queue[Message]) -> Message:
    """The next message."""
    return await asyncio.wait_for(queue.get(), WAIT_S)


class Broker(Protocol):
    """What the suite of behaviour needs of a broker."""

    def client(self, name: str, permissions: Permissions = OPEN) -> Transport:
        """A client with these rights, not yet connected."""
        ...

    def restart(self) -> None:
        """Kill it and start it again in the same place."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class NatsBroker:
    """A server and its account."""

    def __init__(self, folder: Path) -> None:
        self.operator = Ed25519PrivateKey.generate().private_bytes_raw()
        self.account = Ed25519PrivateKey.generate().private_bytes_raw()
        self._folder = folder
        self._papers = Papers.mint(self.operator, self.account)
        self.server = EmbeddedServer.start(folder, self._papers)

    def login(self, name: str, permissions: Permissions = OPEN, life_s: int = LIFE_S) -> Login:
        """A login minted anew at each connect, for `life_s` seconds."""
        key = Ed25519PrivateKey.generate()

        def mint() -> str:
            return mint_user(
                self.account,
                key.public_key().public_bytes_raw(),
                name=name,
                permissions=permissions,
                expires_s=int(time.time()) + life_s,
            )

        return Login(jwt=mint, sign=key.sign)

    def client(self, name: str, permissions: Permissions = OPEN, life_s: int = LIFE_S) -> NatsTransport:
        """A client with these rights."""
        login = self.login(name, permissions, life_s)
        return NatsTransport(self.server.url, name=name, login=login, inbox_prefix=f"_MF.{name}")

    def restart(self) -> None:
        """Kill it and start it again on its port."""
        port = self.server.port
        self.server.stop()
        self.server = EmbeddedServer.start(self._folder, self._papers, port=port)

    def stop(self) -> None:
        """End it."""
        self.server.stop()


class SimulatedBroker:
    """The one in memory."""

    def __init__(self, seed: int) -> None:
        self.broker = SimBroker(seed)

    def client(self, name: str, permissions: Permissions = OPEN) -> Transport:
        """A client with these rights."""
        return self.broker.client(name, permissions)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.broker.stop()
        self.broker.start()

    def stop(self) -> None:
        """End it."""
