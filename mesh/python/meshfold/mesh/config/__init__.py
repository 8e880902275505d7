"""Settings of a node and the operator's own NATS logins."""

from meshfold.mesh.config.nats_login import foreign_login, nats_context, tls_of
from meshfold.mesh.config.settings import FILE_NAME, NodeSettings, Settings, json_schema, load_settings

__all__ = (
    "FILE_NAME",
    "NodeSettings",
    "Settings",
    "foreign_login",
    "json_schema",
    "load_settings",
    "nats_context",
    "tls_of",
)
