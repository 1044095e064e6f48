"""A MkDocs hook: what mkdocs-click needs to know of the commands before it renders them."""

import click

from stylegan_cli.cli import main


def on_config(config, **_):
    prepare(main)
    return config


def prepare(command: click.Command) -> None:
    """Give each command the name that it is called by, and each parameter without a default an empty one."""
    for parameter in command.params:
        if not isinstance(parameter.default, (str, int, float, list, tuple)) or isinstance(parameter.default, bool):
            parameter.default = ""
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            member = command.get_command(ctx, name)
            member.name = name
            prepare(member)
