"""What `doctor` checks of a running mesh: server, fences, clocks, keys, routes in plaintext."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshfold.core.errors import GrantDenied, MeshfoldError
from meshfold.mesh.cli.groups import groups_of
from meshfold.mesh.subjects import GROUP

__all__ = (
    "Found",
    "check",
    "clock_check",
    "fence_check",
    "issuer_check",
    "login_check",
    "look",
    "member_checks",
    "plaintext_check",
    "server_check",
    "voters_check",
)

#: Nodes refuse frames of a clock further away than that.
SKEW_MS_MAX: Final = 60_000
#: Logins with many permissions need long lines at connect; messages of half a MiB need room.
PAYLOAD_BYTES_MIN: Final = 1_048_576


def check(name: str, ok: bool, detail: str, fix: str = "") -> dict[str, Any]:
    """One row: what to do is said where the check fails."""
    return {"name": name, "ok": ok, "detail": detail, "fix": "" if ok else fix}


@dataclass(frozen=True, slots=True)
class Found:
    """What a node of the mesh saw of it."""

    server: Mapping[str, Any]
    max_payload_bytes: int
    #: whether the server refused a subscription that no grant allows
    fenced: bool
    answers: Mapping[str, Any]
    #: wall clock here, ms, before and after the nodes were asked
    asked_ms: tuple[int, int]
    routes: tuple[Mapping[str, Any], ...]
    authority_dir: Path | None
    #: what makes the login of this machine less safe than it could be
    login_faults: tuple[str, ...] = ()


async def look(node: Any) -> Found:
    """Look at the mesh from a node."""
    session = node.session
    begun_ms = time.time_ns() // 1_000_000
    answers = dict(await node.query("status"))
    ended_ms = time.time_ns() // 1_000_000
    catalog = await node.query("catalog")
    rows = {row["address"]: row for doc in catalog["answers"].values() for row in doc["routes"]}
    return Found(
        server=session.transport.server,
        max_payload_bytes=session.transport.max_payload_bytes,
        fenced=await _fenced(session),
        answers=answers,
        asked_ms=(begun_ms, ended_ms),
        routes=tuple(rows[address] for address in sorted(rows)),
        authority_dir=session.context.authority_dir,
        login_faults=tuple(session.transport.login_faults),
    )


async def _fenced(session: Any) -> bool:
    """Whether the server keeps a node from a subject that no grant names: another's inbox."""
    subject = f"{session.subjects.inbox(bytes(8))}.>"
    try:
        probe = await session.transport.subscribe(subject, lambda message: None)
    except GrantDenied:
        return True
    await probe.close()
    return False


def server_check(found: Found) -> dict[str, Any]:
    """The server the mesh runs over, as it describes itself."""
    said = found.server
    detail = f"nats-server {said.get('version')} {said.get('server_name')}, messages to {found.max_payload_bytes} bytes"
    if said.get("cluster"):
        detail += f", cluster {said['cluster']}"
    return check(
        "broker",
        found.max_payload_bytes >= PAYLOAD_BYTES_MIN,
        detail,
        f"set max_payload to {PAYLOAD_BYTES_MIN} or more",
    )


def fence_check(found: Found) -> dict[str, Any]:
    """Whether the server's permissions stand in front of the mesh's own checks. Without them nothing is readable, either."""
    if found.fenced:
        return check(
            "fences", True, "the server's permissions follow the grants, and every frame is sealed and signed"
        )
    return check(
        "fences",
        True,
        "the inner fence alone holds: the server lets every login subscribe to everything. Frames stay sealed and"
        " signed; subjects, sizes and timing are open to whoever may connect. A server with the configuration that"
        " `meshfold init` writes has both fences",
    )


def login_check(found: Found) -> dict[str, Any]:
    """Whether the login at the server can be used by its holder alone, and ends."""
    return check(
        "login",
        not found.login_faults,
        f"the login at the server {' and '.join(found.login_faults)}"
        if found.login_faults
        else "the login at the server is its holder's alone, and ends",
        "mint a user JWT with an expiry, and not as a bearer token",
    )


def clock_check(found: Found) -> dict[str, Any]:
    """How far the nodes' clocks are from this machine's, as far as the time of asking lets it be known."""
    begun_ms, ended_ms = found.asked_ms
    worst, where = 0, ""
    for name, document in found.answers["answers"].items():
        now_ms = int(document["now_ms"])
        skew_ms = max(begun_ms - now_ms, now_ms - ended_ms, 0)
        if skew_ms >= worst:
            worst, where = skew_ms, name
    return check(
        "clocks",
        worst <= SKEW_MS_MAX,
        f"at most {worst} ms apart" + (f", {where}" if worst else ""),
        f"set the clock of {where}: frames of a clock more than {SKEW_MS_MAX // 1000} s away are refused",
    )


def plaintext_check(found: Found) -> dict[str, Any]:
    """Names the routes that were declared plaintext: that is allowed, and to be known."""
    plain = [str(row["route"]) for row in found.routes if row["secrecy"] == "none"]
    return check("plaintext", True, ", ".join(plain) or "no route")


def issuer_check(authority_dir: Path | None, now_ms: int) -> dict[str, Any] | None:
    """How long the issuer may go on, where this machine holds it."""
    if authority_dir is None:
        return None
    from meshfold.mesh.enrolment import AuthorityFolder

    fix = f"meshfold renew --dir {authority_dir.parent}"
    try:
        authority = AuthorityFolder.open(authority_dir)
    except MeshfoldError as error:
        return check("keys", False, error.what, error.fix)
    days = (authority.issuer.certificate.not_after_ms - now_ms) // 86_400_000
    return check("keys", not authority.due(now_ms), f"the issuer's certificate holds for {days} days", fix)


def voters_check(found: Found) -> dict[str, Any]:
    """Whether the voters that the control log needs are here, and one of them leads."""
    groups, wrong = groups_of(found.answers["answers"])
    control = next(group for group in groups if group["group"] == GROUP)
    voters = control.get("voters", [])
    return check(
        "voters",
        not wrong,
        "; ".join(wrong) or f"{control['leader']} leads {', '.join(voters)} in term {control['term']}",
        "start the voters that are away: a majority has to run",
    )


def member_checks(found: Found) -> list[dict[str, Any]]:
    """Who answers, and what the nodes themselves report."""
    answers = found.answers
    problems = [problem for document in answers["answers"].values() for problem in document["problems"]]
    return [
        check(
            "mesh",
            not answers["silent"] and bool(answers["answers"]),
            f"{len(answers['answers'])} nodes answer",
            "; ".join(answers["silent"]) or "start one: meshfold node run",
        ),
        check("members", not problems, "; ".join(problems) or "all alive", "restart what is silent"),
    ]
