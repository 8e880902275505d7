"""The command line: one executable, `meshfold`."""

from meshfold.mesh.cli.app import main

__all__ = ("main",)
