"""`meshfold up`: the whole mesh on one machine."""

from meshfold.mesh.up.supervisor import Stopped, Supervisor
from meshfold.mesh.up.view import render, render_svg

__all__ = ("Stopped", "Supervisor", "render", "render_svg")
