"""`meshfold init`, `invite`, `join`, `node run`: making a mesh, letting nodes in, running one."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.health import health
from meshfold.mesh.cli.interrupts import nothing_begun
from meshfold.mesh.cli.options import AsJson, Chosen
from meshfold.mesh.cli.support import emit, parse_duration, say
from meshfold.mesh.files import read_named, read_named_text

__all__ = ("app", "node_app")

app = typer.Typer()
node_app = typer.Typer(no_args_is_help=True, help="Run a node; list, retire and remove members.")
node_app.command("health")(health)
Folder = Annotated[Path, typer.Option("--dir", help="folder of its state, made if needed")]
Server = Annotated[str | None, typer.Option("--nats", help="the server's URL, such as nats://host:4222")]
PASSPHRASE_BYTES_MAX = 4096


def _lock(passphrase_file: Path | None, key_file: Path | None, *, new: bool) -> Any:
    """What the root is sealed under: a passphrase from a file or asked for, or a key file."""
    from meshfold.mesh.enrolment import RootLock

    if passphrase_file is not None and key_file is not None:
        raise ConfigError("give --passphrase-file or --key-file, and not both", item="--key-file")
    if key_file is not None:
        return RootLock.new_file(key_file) if new and not key_file.exists() else RootLock.file(key_file)
    if passphrase_file is not None:
        raw = read_named(passphrase_file, PASSPHRASE_BYTES_MAX, "--passphrase-file")
        return RootLock(passphrase=raw.strip(b"\r\n"))
    if not sys.stdin.isatty():
        raise ConfigError(
            "the root key has to be sealed under something",
            fix="name a --passphrase-file or a --key-file",
            item="--passphrase-file",
        )
    typed = typer.prompt("passphrase of the root key", hide_input=True, confirmation_prompt=new, err=True)
    return RootLock(passphrase=str(typed).encode())


PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="file with the passphrase of the root key")
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="32-byte key file instead of a passphrase; made if it is not there"),
]


@app.command()
def init(
    folder: Folder,
    mesh: Annotated[str, typer.Option("--mesh", help="name of the mesh")] = "mesh",
    voter: Annotated[
        list[str] | None,
        typer.Option("--voter", help="name of a node that hosts the control log; once, or 3, 5 or 7 times"),
    ] = None,
    nats: Annotated[
        str, typer.Option("--nats", help="where nodes find the server")
    ] = "nats://127.0.0.1:4222",
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    server_config: Annotated[
        Path | None, typer.Option("--server-config", help="where the server's configuration goes instead")
    ] = None,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="take the mesh that is there; renew its issuer if it is due")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a mesh: its sealed root, its issuer, its voters, and the configuration of a nats-server for it.

    The first voter runs from the folder. Each further one gets a folder of its own in it, to be moved to its machine.

    Example: meshfold init --dir ./mesh --key-file ./root.key --nats nats://broker:4222
    """
    from meshfold.mesh.enrolment.found import SERVER_CONF, found_mesh

    lock = _lock(passphrase_file, key_file, new=True)
    made = found_mesh(
        folder,
        lock,
        mesh=mesh,
        voters=voter or ["hub"],
        url=nats,
        server_config=server_config,
        if_missing=if_missing,
    )
    folder = made.context.state_dir
    document = {
        "mesh": mesh,
        "node": made.voters[0].name,
        "id": made.voters[0].tag.hex(),
        "voters": [{"name": one.name, "id": one.tag.hex()} for one in made.voters],
        "carry": [str(path) for path in made.carried],
        "fingerprint": made.fingerprint,
        "dir": str(folder),
        "server_config": str(server_config or folder / SERVER_CONF),
    }
    emit(
        document,
        as_json=as_json,
        lines=lambda found: [
            f"mesh {mesh} in {folder}; authority {found['fingerprint'][:16]}",
            f"start a server:  nats-server -c {found['server_config']}",
            f"start the voter: meshfold node run --dir {folder}",
            *(
                f"move {path} to the machine of that voter, and start it there: meshfold node run --dir FOLDER"
                for path in found["carry"]
            ),
            f"let a node in:   meshfold invite NAME --context {folder}/context.json",
        ],
    )


@app.command()
def renew(
    folder: Folder,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Give the issuer a new certificate of 90 days from the sealed root.

    Example: meshfold renew --dir ./mesh --key-file ./root.key
    """
    from meshfold.mesh.enrolment import AuthorityFolder

    authority = AuthorityFolder.open(folder / "authority")
    authority.renew(_lock(passphrase_file, key_file, new=False), time.time_ns() // 1_000_000)
    until_ms = authority.issuer.certificate.not_after_ms
    emit(
        {"not_after_ms": until_ms},
        as_json=as_json,
        lines=lambda found: [f"the issuer's certificate holds until {time.ctime(until_ms / 1000)}"],
    )


def _check_invited(name: str | None, uses: int, *, operator: bool) -> str:
    """The name, if a token for so many nodes can be made for it."""
    from meshfold.core import escape_token
    from meshfold.mesh.enrolment.found import NAME_CHARS_MAX
    from meshfold.security.join import FLEET_SUFFIX_CHARS

    longest = NAME_CHARS_MAX - (FLEET_SUFFIX_CHARS + 1 if uses > 1 else 0)
    if not name or escape_token(name) != name or len(name) > longest:
        raise ConfigError(
            f"{name!r} cannot be a node's name", fix=f"use a-z, 0-9 and -, at most {longest}", item="NAME"
        )
    if operator and uses > 1:
        raise ConfigError(
            "a token that makes several operators", fix="make one token for each", item="--uses"
        )
    return name


def _url_of(text: str) -> str:
    """Where the token leads, with a word of warning where that is every machine's own."""
    from meshfold.mesh.transport import check_urls

    urls = check_urls(text)
    if all(urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") for url in urls):
        say(
            f"note: this token leads to {text}, which is the joining machine itself; --nats names another server"
        )
    return ",".join(urls)


def _list_or_withdraw(invites: Any, withdraw: str | None, now_ms: int, *, as_json: bool) -> None:
    from meshfold.mesh.enrolment.invites import describe

    if withdraw is not None:
        gone = describe(invites.withdraw(withdraw), now_ms)
        emit(gone, as_json=as_json, lines=lambda found: [f"withdrawn: {found['name']}"])
        return
    emit(
        {"invites": [describe(one, now_ms) for one in invites.all()]},
        as_json=as_json,
        lines=lambda found: [
            f"{row['id'][:16]} {row['name']:<16} {row['state']}" for row in found["invites"]
        ],
    )


@app.command()
def invite(
    name: Annotated[str | None, typer.Argument(help="name the new node will have")] = None,
    for_: Annotated[str, typer.Option("--for", help="how long the token holds")] = "24h",
    operator: Annotated[
        bool, typer.Option("--operator", help="reading and administration of everything")
    ] = False,
    no_grants: Annotated[
        bool, typer.Option("--no-grants", help="an identity alone; grant it things later")
    ] = False,
    uses: Annotated[
        int, typer.Option("--uses", help="let in so many nodes, named NAME and a suffix of their own")
    ] = 1,
    nats: Server = None,
    out: Annotated[Path | None, typer.Option("--out", help="write the token to this file (0600)")] = None,
    list_: Annotated[bool, typer.Option("--list", help="list the tokens that were made")] = False,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", help="forget the token of this id, or of the beginning of one")
    ] = None,
    context: Chosen = None,
    as_json: AsJson = False,
) -> None:
    """Make a one-time token by which a node joins. Whoever holds it first can use it: hand it over safely.

    With --uses it lets in so many nodes, each under a name of its own: what a Deployment with replicas needs.

    Example: meshfold invite edge-1 --for 1h --out edge-1.token
    """
    from meshfold.mesh.cli.issuing import issuing_context
    from meshfold.mesh.enrolment import AuthorityFolder, capabilities_for
    from meshfold.mesh.enrolment.authority_folder import write_private
    from meshfold.mesh.enrolment.invites import Invites

    chosen = issuing_context(context)
    assert chosen.authority_dir is not None
    invites = Invites(AuthorityFolder.open(chosen.authority_dir))
    now_ms = time.time_ns() // 1_000_000
    if list_ or withdraw is not None:
        _list_or_withdraw(invites, withdraw, now_ms, as_json=as_json)
        return
    wanted = _check_invited(name, uses, operator=operator)
    token = invites.make(
        mesh=chosen.mesh,
        name=wanted,
        roles=("operator",) if operator else ("node",),
        capabilities=() if no_grants else capabilities_for(wanted, operator=operator),
        url=_url_of(nats or chosen.url),
        expires_ms=now_ms + int(parse_duration(for_, "--for") * 1000),
        site=chosen.site,
        uses=uses,
    )
    document = {
        "mesh": chosen.mesh,
        "node": name,
        "id": token.id.hex(),
        "expires_ms": token.expires_ms,
        "uses": uses,
    }
    if out is not None:
        try:
            write_private(out, token.encode().encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"cannot write {out}: {error.strerror}", item="--out") from error
        emit(document, as_json=as_json, lines=lambda found: [f"token of {name} in {out}"])
        return
    emit({**document, "token": token.encode()}, as_json=as_json, lines=lambda found: [found["token"]])


def _token_text(token_file: Path | None) -> str:
    """The token: from a file, the variable or stdin, never from the command line, which others can see."""
    from meshfold.security.join import TOKEN_TEXT_MAX

    if token_file is not None:
        return read_named_text(token_file, TOKEN_TEXT_MAX + 2, "--token-file")
    if os.environ.get("MESHFOLD_JOIN_TOKEN"):
        return os.environ["MESHFOLD_JOIN_TOKEN"]
    if sys.stdin.isatty():
        return str(typer.prompt("join token", hide_input=True, err=True))
    return sys.stdin.read(TOKEN_TEXT_MAX + 2)


@app.command()
def join(
    folder: Folder,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="file with the token")] = None,
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    nats: Server = None,
    creds: Annotated[Path | None, typer.Option("--creds", help="creds file for a server of your own")] = None,
    as_json: AsJson = False,
) -> None:
    """Join a mesh with a token from a file, MESHFOLD_JOIN_TOKEN or stdin. Asked again, it goes on where it stopped.

    Example: meshfold join --dir ./edge-1 --token-file edge-1.token
    """
    import asyncio

    from meshfold.mesh.config import foreign_login, load_settings, tls_of
    from meshfold.mesh.enrolment.joining import join as join_mesh

    if words:
        # Not repeated. What a shell ran is in its history and in the list of processes.
        raise ConfigError(
            "a token on the command line can be read by others",
            fix="give it by --token-file, MESHFOLD_JOIN_TOKEN or stdin; better ask for a new one",
            item="token",
        )
    settings = load_settings(options={"nats": nats, "creds": str(creds) if creds else None})
    login, tls = foreign_login(settings), tls_of(settings)
    if login is not None and tls is not None:
        login = login.over(tls)
    joined = asyncio.run(join_mesh(_token_text(token_file), folder, login=login, url=settings.nats, tls=tls))
    identity = joined.enrolment().identity
    emit(
        {"mesh": joined.file.mesh, "node": identity.name, "id": identity.tag.hex(), "dir": str(joined.path)},
        as_json=as_json,
        lines=lambda found: [
            f"{found['node']} joined {found['mesh']}; run it: meshfold node run --dir {folder}"
        ],
    )


@node_app.command("run")
def run(
    config: Annotated[Path | None, typer.Option("--config", help="a meshfold.toml")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="name of the node, where the authority is")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="folder of its state")] = None,
    nats: Server = None,
    creds: Annotated[Path | None, typer.Option("--creds", help="creds file for a server of your own")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="join with this token if the folder holds no identity")
    ] = None,
    app_name: Annotated[
        str | None, typer.Option("--app", help="sampler, reader or package.module:function")
    ] = None,
    read: Annotated[list[str] | None, typer.Option("--read", help="a route to bridge in")] = None,
    health_listen: Annotated[
        str | None,
        typer.Option("--health-listen", help="address of health and metrics, such as 127.0.0.1:8080"),
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning, error")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="text or json")] = None,
) -> None:
    """Run a node in the foreground until SIGTERM or Ctrl-C; then it drains.

    Example: meshfold node run --dir ./edge-1 --app sampler
    """
    with nothing_begun():
        from meshfold.mesh.cli.running import run_in_foreground

    options: dict[str, Any] = {
        "name": name,
        "dir": str(folder) if folder else None,
        "nats": nats,
        "creds": str(creds) if creds else None,
        "join_token_file": str(token_file) if token_file else None,
        "app": app_name,
        "read": read or None,
        "health_listen": health_listen,
        "log_level": log_level,
        "log_format": log_format,
    }
    run_in_foreground(config, options)
    say("stopped")
