"""Schemas: what values a route carries, and how they become bytes. One file per family."""

from meshfold.core.schema.base import VALUE_BYTES_MAX, Schema
from meshfold.core.schema.contract import rewrite_payloads

__all__ = ("VALUE_BYTES_MAX", "Schema", "rewrite_payloads")
