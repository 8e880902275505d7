"""`meshfold completion SHELL`: the script by which a shell completes commands and options."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
import typer.completion
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.support import put

__all__ = ("completion", "prepare")

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
VARIABLE = "_MESHFOLD_COMPLETE"
#: What the library offers there is not in its `__all__`.
shells: Any = typer.completion


def prepare() -> None:
    """Make the parser answer a shell that asks for completions, if that is why we were started."""
    if VARIABLE in os.environ:
        shells.completion_init()


def completion(shell: Annotated[str, typer.Argument(help=", ".join(SHELLS))]) -> None:
    """Print the completion script of a shell.

    Example: source <(meshfold completion bash)
    """
    if shell not in SHELLS:
        raise ConfigError(f"no completion for {shell!r}", fix=f"one of {', '.join(SHELLS)}", item="SHELL")
    script = shells.get_completion_script(prog_name="meshfold", complete_var=VARIABLE, shell=shell)
    put(script + "\n")
