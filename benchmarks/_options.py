"""Types of the scripts' options."""

from __future__ import annotations

from collections.abc import Callable

import click


class Numbers(click.ParamType):
    """A list of numbers such as 256,1024."""

    name = "numbers"

    def __init__(self, number: Callable[[str], float] = int):
        self.number = number

    def convert(self, value, param, ctx):
        try:
            return tuple(self.number(part) for part in value.split(",")) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"{value!r} is not a valid list of numbers. Use for example 256,1024.")
