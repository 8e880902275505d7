"""The broker this process can own, and the logins it takes."""

from meshfold.mesh.broker.jwt import (
    Papers,
    Permissions,
    account_update_subject,
    key_text,
    mint_account,
    mint_operator,
    mint_user,
)
from meshfold.mesh.broker.server import EmbeddedServer, find_server, guarded, server_version

__all__ = (
    "EmbeddedServer",
    "Papers",
    "Permissions",
    "account_update_subject",
    "find_server",
    "guarded",
    "key_text",
    "mint_account",
    "mint_operator",
    "mint_user",
    "server_version",
)
