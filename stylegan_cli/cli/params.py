"""Click parameter types. None of them imports PyTorch: the command line is parsed without it."""

from __future__ import annotations

import math
import re
import typing

import click


class Numbers(click.ParamType):
    """Integers and ranges, '0,5,10-20', as a list[int] in the order given; or one of a few words, unchanged."""

    def __init__(
        self,
        name: str,  # shown in the help text
        noun: str,  # singular, for messages: 'seed'
        largest: int,  # largest number allowed
        max_count: int = 1_000_000,  # numbers in a list
        words: tuple[str, ...] = (),  # accepted in place of numbers
        suffixes: tuple[str, ...] = (),  # of files that are accepted among the numbers, '.npz'
        advice: str = "",  # a further sentence of the error
    ):
        self.name, self.noun, self.largest, self.max_count = name, noun, largest, max_count
        self.words, self.suffixes, self.advice = words, suffixes, advice

    def convert(
        self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int] | list[int | str] | str:
        if isinstance(value, list) or value in self.words:
            return value
        numbers: list = []
        for part in value.split(","):
            if part.strip().lower().endswith(self.suffixes):
                numbers.append(part.strip())
                continue
            first, last = self._bounds(part.strip(), param, ctx)
            if len(numbers) + last - first + 1 > self.max_count:
                self.fail(f"{value!r} has too many numbers. Use at most {self.max_count}.", param, ctx)
            numbers += range(first, last + 1)
        return numbers

    def _bounds(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", part)
        if not match:
            words = f"{', '.join(self.words)}, or " if self.words else ""
            files = f", or files of latents ({', '.join(self.suffixes)})" if self.suffixes else ""
            usage = f"Use {words}numbers and ranges such as 0,5,10-20{files}.{self.advice}"
            self.fail(f"{part!r} is not a valid {self.noun} list. {usage}", param, ctx)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            self.fail(f"The range {part!r} is descending. Use {last}-{first}.", param, ctx)
        if last > self.largest:
            self.fail(f"The {self.noun} {last} is too large. Use at most {self.largest}.", param, ctx)
        return first, last


class Size(click.ParamType):
    """Two positive integers, '256x384', or one for both, '256': height and width in pixels, or rows and columns."""

    def __init__(
        self,
        name: str = "size",  # shown in the help text and in messages
        usage: str = "Use a number of pixels such as 256, or HEIGHTxWIDTH such as 256x384.",
    ):
        self.name, self.usage = name, usage

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", value.strip())
        height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not height or not width:
            self.fail(f"{value!r} is not a valid {self.name}. {self.usage}", param, ctx)
        return height, width


class Number(click.ParamType):
    """A finite number."""

    def __init__(
        self,
        name: str = "number",  # shown in the help text
        above: float = -math.inf,  # exclusive lower bound
        noun: str = "number",  # for messages
        usage: str = "Use a finite number such as 0.7.",
    ):
        self.name, self.above, self.noun, self.usage = name, above, noun, usage

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.above < number < math.inf:
            self.fail(f"{value!r} is not a valid {self.noun}. {self.usage}", param, ctx)
        return number


class Vector(click.ParamType):
    """Two finite numbers, '0.1,-0.2', as a tuple."""

    name = "x,y"

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not a pair of numbers. Use X,Y such as 0.25,0 or -0.1,0.2.", param, ctx)
        return numbers


class FiniteRange(click.FloatRange):
    """A finite number in a range: Click's own also accepts nan and inf."""

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a valid number. Use a finite number such as 0.7.", param, ctx)
        return number


class ByLevel(click.ParamType):
    """A positive number for each level: '4:64,8:32' -> {4: 64, 8: 32}."""

    name = "level:number"

    def __init__(self, kind: type[int] | type[float]):
        self.kind = kind

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> dict:
        if isinstance(value, dict):
            return value
        try:
            pairs = [part.split(":") for part in value.split(",")]
            numbers = {int(level): self.kind(number) for level, number in pairs}
            numbers = numbers if len(numbers) == len(pairs) else {0: math.nan}
        except ValueError:
            numbers = {0: math.nan}
        if not all(math.isfinite(number) and number > 0 for number in numbers.values()):
            usage = "Use LEVEL:NUMBER pairs with positive numbers, such as 4:64,8:32."
            self.fail(f"{value!r} is not a valid list of levels. {usage}", param, ctx)
        return numbers


class Device(click.ParamType):
    """'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', unchanged; `resolve_device` turns it into a torch.device."""

    name = "device"

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", value):
            usage = "Use auto, cpu, cuda, cuda:N such as cuda:1, or mps."
            self.fail(f"{value!r} is not a valid device. {usage}", param, ctx)
        return value


class Aliases(click.Choice):
    """A choice that also accepts other spellings, which the help does not show."""

    def __init__(
        self,
        choices: typing.Sequence[str],
        **aliases: str,  # other spelling -> choice
    ):
        super().__init__(choices)
        self.aliases = aliases

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(self.aliases.get(value, value), param, ctx)


SEEDS = Numbers("seeds", "seed", largest=2**32 - 1, advice=" Files of latents go to --from-w.")
_FILES = (".npz", ".npy", ".pt", ".pth", ".pkl")
LATENTS = Numbers("latents", "seed", largest=2**32 - 1, suffixes=_FILES)  # seeds and files of latents
STYLES = Numbers("styles", "style", largest=999, max_count=1000, words=("coarse", "middle", "fine"))  # or indices of w
SIZE = Size()
GRID = Size("grid", "Use ROWSxCOLUMNS such as 3x2.")
KIMG = Number("kimg", above=0, noun="number of kimg", usage="Use a number above 0, in thousands of images.")
DEVICE = Device()
