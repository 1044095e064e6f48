"""A MkDocs hook: what mkdocs-click 0.9 does not know of lazily loaded commands and of Click 8.4."""

import inspect
import re
import textwrap

import click
import mkdocs_click._docs

from stylegan_cli.cli import main

format_row = mkdocs_click._docs._format_table_option_row


def on_config(config, **_):
    main.help = as_markdown(main.help)
    name_commands(main)
    mkdocs_click._docs._format_table_option_row = row
    return config


def name_commands(group: click.Group) -> None:
    """Give each command the name that it is called by."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        command.name = name
        command.help = as_markdown(command.help)
        if isinstance(command, click.Group):
            name_commands(command)


def as_markdown(text: str | None) -> str:
    return "\n\n".join(map(block, inspect.cleandoc(text or "").split("\n\n")))


def block(paragraph: str) -> str:
    """A paragraph that Click does not wrap, marked by a line with a backspace, is code under a line of text."""
    if not paragraph.startswith("\b\n"):
        return paragraph
    title, _, code = paragraph.removeprefix("\b\n").partition("\n")
    return f"{title}\n\n```\n{textwrap.dedent(code)}\n```" if code else title


def row(option: click.Option) -> str:
    """A row of the table of options, with an empty cell where it has no default; names are not broken at hyphens."""
    has_default = isinstance(option.default, (str, int, float)) and not isinstance(option.default, bool)
    start, _, _ = format_row(option).removesuffix(" |").rpartition(" | ")
    names, _, rest = start.removeprefix("| ").partition(" | ")
    names = re.sub(r"`[^`]+`", lambda name: f'<span class="option">{name[0]}</span>', names)
    return f"| {names} | {rest} | `{option.default}` |" if has_default else f"| {names} | {rest} | |"
