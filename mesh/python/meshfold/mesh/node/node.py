"""`Node`: this process's part of a mesh, for both styles - `with` and `async with`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from meshfold.consensus import Fence, Token
from meshfold.core import Event, Graph, Route, SystemClock
from meshfold.core.errors import ConfigError, MeshfoldError, WiringError
from meshfold.core.policy import FlowPolicy
from meshfold.core.registry import CONTRACTS
from meshfold.mesh.bridge import Bridge
from meshfold.mesh.config.finding import find_mesh
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment import Enrolment, MemberFolder, enrol_locally
from meshfold.mesh.enrolment.local import OPERATOR
from meshfold.mesh.node.answers import Answers
from meshfold.mesh.node.election import Election
from meshfold.mesh.node.members import HEARTBEAT_S, Member
from meshfold.mesh.node.recording import Recording, Replayed, begin_recording, replay_file
from meshfold.mesh.node.remote_log import NodeLog
from meshfold.mesh.node.session import Session
from meshfold.mesh.node.vitals import vitals
from meshfold.mesh.node.writing import WriteAnswer
from meshfold.mesh.reply import Reply
from meshfold.mesh.telemetry import TelemetrySettings

__all__ = ("Node",)

T = TypeVar("T")

START_S = 30.0
STOP_S = 15.0


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _enrolment(context: Context, name: str) -> Enrolment:
    if context.authority_dir is not None:
        return enrol_locally(context, name, SystemClock().now()[0] // 1_000_000)
    if name != context.member:
        raise ConfigError(
            f"{context.path} is the folder of {context.member}, and not of {name}",
            fix=f"leave the name out, or use {context.member}",
            item="name",
        )
    return MemberFolder.open(context.state_dir).enrolment()


class Node:
    """A member of a mesh: a local graph, and bridges that carry its routes.

    Make one with `Node.open`, then enter it with `with` (plain calls; a loop of its own in a thread) or `async with`
    (the loop that runs). Routes are shared and read by bridges; see `Bridge` for what they promise.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        *,
        telemetry: TelemetrySettings | None = None,
        quiet: bool = False,
    ) -> None:
        self._name = name
        self._quiet = quiet
        if telemetry is None:
            # Commands are the operator's: short, many, and nobody looks for their traces.
            telemetry = (
                TelemetrySettings() if name == OPERATOR else TelemetrySettings.from_environ(os.environ)
            )
        self._telemetry = telemetry
        self._context = context
        self._session: Session | None = None
        self._answers: Answers | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._enrolment = _enrolment(context, name)
        self._graph = Graph(name=name, producer=self._enrolment.identity.tag, incarnation=os.urandom(8))

    @classmethod
    def open(
        cls,
        name: str | None = None,
        *,
        context: str | Path | None = None,
        config: str | Path | None = None,
        nats: str | None = None,
        creds: str | Path | None = None,
        state_dir: str | Path | None = None,
        otlp: str | None = None,
    ) -> Node:
        """Find the mesh and take part in it as `name`; entering the node connects.

        What is not given is taken from `meshfold.toml`, `MESHFOLD_*` and `NATS_*` variables.

        :param name: the node's name; None takes the joined node's own, else `operator`
        :param context: a context file or the name of a mesh; None takes `state_dir`, `MESHFOLD_CONTEXT`, else the newest
            mesh that runs on this machine
        :param config: a `meshfold.toml`
        :param nats: the server's URL, or several joined by commas, instead of what the context says
        :param creds: a creds file, for servers that know no JWTs of this mesh
        :param state_dir: folder where a node has joined, or of a mesh that `meshfold init` made
        :param otlp: URL of an OTLP/HTTP receiver of traces, such as http://127.0.0.1:4318; None takes `OTEL_*` variables
        :raises ConfigError: if no mesh is found, or files, variables or options cannot be used
        """
        telemetry = None if otlp is None else TelemetrySettings.from_environ(os.environ).to(otlp, "otlp")
        options = {"name": name, "nats": nats, "creds": _text(creds), "dir": _text(state_dir)}
        found, chosen = find_mesh(context, None if config is None else Path(config), options)
        return cls(chosen.name or found.member or OPERATOR, found, telemetry=telemetry)

    @property
    def graph(self) -> Graph:
        """The local graph; usable before and after the node is connected."""
        return self._graph

    @property
    def name(self) -> str:
        """The node's name."""
        return self._name

    @property
    def id(self) -> str:
        """Hex of the node's 8-byte tag, which stays over restarts."""
        return self._enrolment.identity.tag.hex()

    @property
    def incarnation(self) -> str:
        """Hex of this process's incarnation, new at every start."""
        return self._graph.incarnation.hex()

    @property
    def transport(self) -> Any:
        """The connection to the broker, for tools; routes go through `share` and `read`."""
        return self._running().transport

    @property
    def session(self) -> Session:
        """The running parts, for the tools of this package."""
        return self._running()

    def vitals(self) -> dict[str, Any] | None:
        """Every figure of this node, for metrics and health; None while it is not connected. Call it in the node's loop."""
        return vitals(self._session) if self._session is not None else None

    def members(self) -> list[Member]:
        """Everyone this node has heard of, by name."""
        return self._running().directory.members()

    def share(
        self,
        r: Route[Any],
        *,
        contract: str = "at_most_once",
        express: bool = False,
        fence: Fence | None = None,
        flow: FlowPolicy | None = None,
    ) -> Bridge:
        """Publish a route of this graph to the mesh, from now on; of a request route, take write requests as well.

        :param contract: what readers are promised; `at_most_once` is the one there is
        :param express: send each event at once instead of waiting up to 1 ms for a fuller frame
        :param fence: of a request route: only who brings a leader's token may write, and no former leader may
        :param flow: what happens when readers on other nodes that hold producers up (`block`) are behind: `propagate` (the
            default) lets events wait here, up to 65,536, and then the overflow rule holds: `drop_oldest` (the default) and
            its like lose with a counter, `block` lets `publish` wait, `reject_write` refuses it. `isolate` sends whatever
            readers take. With `block`, publish with `apublish` or from another thread: who sends is the node's loop
        :raises GrantDenied: if this identity holds no OWN grant on the route
        :raises KeyMissing: if the route's key has not arrived
        :raises WiringError: for a contract that is not available, a fence on a route that takes no requests, or a flow
            that a bridge cannot keep
        """
        self._check_contract(contract)
        return self._running().bridges.share(r, express, fence, flow)

    def read(self, r: Route[Any], *, contract: str | None = None, since: object = None) -> Bridge:
        """Bridge a route of another node into this graph: with PAYLOAD_OPEN whole, else its metadata only.

        :raises GrantDenied: naming action, route and what would allow it
        :raises WiringError: for a contract that is not available, or `since`, which needs a durable route
        """
        self._check_contract(contract or "at_most_once")
        if since is not None:
            raise WiringError("since= needs a durable route; this one is at_most_once", item=r.text)
        return self._running().bridges.read(r)

    def request(
        self,
        r: Route[T],
        value: T,
        *,
        timeout: float = 5.0,
        node: str | None = None,
        token: Token | None = None,
        key: str | None = None,
        time: int | None = None,
        correlation: str | None = None,
        parents: Iterable[Event[Any] | str] = (),
    ) -> Reply[WriteAnswer]:
        """Ask the node that shares the request route `r` to write `value`, and return what became of it.

        At most once: the value travels sealed to the owner alone, which checks the grant, the budget and its fence, and
        publishes it on its request route. Requests of this node for one route are taken in the order of the calls.

        :param timeout: seconds for all of it; the owner waits four fifths of them for a word of the device
        :param node: the owner's name, where several nodes share the route
        :param token: of a leadership, for a route that is shared with a fence
        :param key: partition key, as `time` (ns), `correlation` and `parents` of the event that it becomes
        :raises GrantDenied: if this node holds no WRITE_REQUEST on the route
        :raises TransportTimeout: if nobody shares it, or no answer came: then nobody knows whether it was taken
        :raises EncodeError, SchemaMismatch: if the value does not fit, here or there
        :raises TooLarge: for a value above 512 KiB
        :raises Fenced: if a newer leader was there
        :raises WouldBlock: if the owner has no credit for it; nothing was taken
        :raises FrameRejected: with reason `limit` beyond the grant's budget, else if the answer is not authentic
        :raises ConfigError: if several nodes share the route and none was named
        :raises WiringError: if `r` is no request route, or has no fence for a token, or `time` more than 64 bits
        """
        writer = self._running().writer
        return self._reply(
            writer.request(
                r,
                value,
                timeout_s=timeout,
                node=node,
                token=token,
                key=key,
                time=time,
                correlation=correlation,
                parents=parents,
            )
        )

    def record(self, r: Route[Any], path: str | Path) -> Reply[Recording]:
        """Keep the sealed frames of a route in a new file, from now on, until the recording is closed.

        What is written is what the broker carries: it tells nobody more than that, and is opened by `replay`.

        :raises GrantDenied: without META_READ on the route
        :raises ConfigError: if the file is there already, or cannot be written
        """
        return self._reply(begin_recording(self._running(), r, Path(path)))

    def replay(self, r: Route[Any], path: str | Path) -> Replayed:
        """Open a recording of a route: its events in the order of the file, and the refused frames by reason.

        The keys come with a grant of REPLAY_READ that names a range of policy epochs (`--epochs`): metadata with META_READ
        beside it, payloads with PAYLOAD_OPEN. What was sealed under epochs outside the range is refused as `epoch`.

        :raises GrantDenied: without REPLAY_READ on the route
        :raises ConfigError: if the file is no recording of the route
        """
        return replay_file(self._running(), r, Path(path))

    @staticmethod
    def _check_contract(contract: str) -> None:
        if contract != "at_most_once":
            what = "is not available yet" if contract in CONTRACTS else f"is none of {', '.join(CONTRACTS)}"
            raise WiringError(f"contract {contract!r} {what}", fix="use at_most_once", item=contract)

    @property
    def control_log(self) -> NodeLog:
        """The mesh's control log: small, linearizable, durable. For settings and agreements, not for data."""
        return NodeLog(lambda: self._running().control_log, self._reply)

    def election(self, name: str) -> Election:
        """An election of the mesh: candidates on any node, one leader at a time, a fencing token with each leadership.

        :param name: `a-z 0-9 . _ / -`, at most 128 characters
        :raises WiringError: if the name cannot be one
        """
        return Election(name, lambda: self._running().electorate, SystemClock(), self._reply)

    def query(
        self, command: str, *, node: str | None = None, timeout: float = 5.0, **args: Any
    ) -> Reply[dict[str, Any]]:
        """Ask one node by name, or with None all that are alive.

        :param timeout: seconds for each node
        :returns: the node's document; for all: `{"answers": {name: document}, "silent": [names]}`
        :raises ConfigError: if no such node is here
        :raises TransportTimeout: if the named node does not answer
        """
        return self._reply(self._query(command, node, timeout, args))

    def why(self, event_id: str) -> Reply[dict[str, Any]]:
        """The causes of an event across nodes: a tree of event, route, node, operator, taints, causes.

        :raises WiringError: if `event_id` is not an event id
        """
        return self._reply(self._why(event_id))

    def audit_flow(self, *, values: bool = False) -> Reply[dict[str, Any]]:
        """The accounting equation of every route at every reader: `routes[]` and `unexplained` (S43).

        :param values: with the latest value of each route this node may open, in a few characters, as `latest`
        """
        return self._reply(self._audit_flow(values))

    async def _why(self, event_id: str) -> dict[str, Any]:
        assert self._answers is not None
        found = await self._answers.walk(event_id)
        if found["known"]:
            return found
        everyone = await self._query("why", None, 5.0, {"event": event_id})
        for document in everyone["answers"].values():
            if document.get("known"):
                return dict(document)
        return found

    async def _audit_flow(self, values: bool) -> dict[str, Any]:
        everyone = await self._query("flow", None, 5.0, {"values": values})
        rows = [row for document in everyone["answers"].values() for row in document["routes"]]
        rows.sort(key=lambda row: (row["route"], row["reader"]))
        return {
            "routes": rows,
            "unexplained": sum(abs(row["unexplained"]) for row in rows),
            "silent": everyone["silent"],
        }

    async def _query(
        self, command: str, node: str | None, timeout_s: float, args: dict[str, Any]
    ) -> dict[str, Any]:
        session = self._running()
        if node == self._name and not self._quiet:
            return await session.responder.answer_self(command, args)
        await self._meet(session, node)
        if node is not None:
            identity = session.directory.by_name(node)
            if identity is None:
                names = ", ".join(sorted({m.name for m in session.directory.members()})) or "nobody"
                raise ConfigError(f"no node named {node!r} in this mesh", fix=f"here are: {names}", item=node)
            return await session.asker.ask(identity, command, args, timeout_s)
        tags = [
            tag
            for tag in session.directory.tags()
            if session.directory.alive(tag) and (self._quiet or tag != session.identity.tag)
        ]
        answers: dict[str, Any] = {}
        silent: list[str] = []

        async def ask(tag: bytes) -> None:
            identity = session.directory.lookup(tag)
            assert identity is not None
            try:
                answers[identity.name] = await session.asker.ask(identity, command, args, timeout_s)
            except MeshfoldError as error:
                silent.append(f"{identity.name}: {error}")

        await asyncio.gather(*(ask(tag) for tag in tags))
        return {"answers": dict(sorted(answers.items())), "silent": sorted(silent)}

    async def _meet(self, session: Session, node: str | None) -> None:
        """Right after the start, wait until everyone alive had the time for a heartbeat."""
        heard_all_ms = session.started_ms + int(2.5 * HEARTBEAT_S * 1000)
        while session.hlc.now_ms() < heard_all_ms:
            if node is not None and session.directory.by_name(node) is not None:
                return
            await asyncio.sleep(HEARTBEAT_S / 10)

    def _running(self) -> Session:
        if self._session is None:
            raise WiringError(
                f"node {self._name} is not connected",
                fix="enter it: `with Node.open(...) as node:`",
                item="node",
            )
        return self._session

    def _reply(self, work: Any) -> Reply[Any]:
        if self._loop is None:
            work.close()
            self._running()
        assert self._loop is not None
        return Reply(work, self._loop)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        session = Session(
            self._name, self._context, self._enrolment, self._graph, self._telemetry, quiet=self._quiet
        )
        self._session, self._answers = session, Answers(session)
        try:
            await session.start()
        except BaseException:
            self._session = None
            await session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def __enter__(self) -> Self:
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name=f"meshfold-{self._name}", daemon=True)
        self._thread.start()
        try:
            Reply(self.__aenter__(), loop).result(START_S)
        except BaseException:
            self._stop_loop(loop)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        loop = self._loop
        try:
            Reply(self.__aexit__(kind, error, trace), loop).result(STOP_S)
        finally:
            self._stop_loop(loop)

    def _stop_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join(STOP_S)
        loop.close()
