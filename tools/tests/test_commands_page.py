"""The page of commands says what the commands' help says."""

from __future__ import annotations

import commands
import typer
from meshfold.mesh.cli.app import app


def test_the_page_is_what_the_help_of_the_commands_says() -> None:
    assert commands.PAGE.read_text() == commands.page(), "stale: run tools/commands.py"


def test_every_command_and_option_stands_on_the_page() -> None:
    text = commands.PAGE.read_text()
    for words, command in commands.commands(typer.main.get_command(app)):
        assert f"\n## {words}\n" in text
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert f"`{parameter.opts[0]}" in text, f"{words} {parameter.opts[0]}"
