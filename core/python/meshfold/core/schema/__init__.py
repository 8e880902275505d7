"""Schemas: what values a route carries, and how they become bytes. One file per family."""

from meshfold.core.schema.base import VALUE_BYTES_MAX, Schema

__all__ = ("VALUE_BYTES_MAX", "Schema")
