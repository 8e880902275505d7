"""The local graph: routes, events and operators in one process. Imports no other room."""

from meshfold.core.address import Address

__all__ = ("Address",)
