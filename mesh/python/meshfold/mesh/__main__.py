"""`python -m meshfold.mesh` is the same as `meshfold`."""

from meshfold.mesh.cli import main

__all__ = ()

main()
