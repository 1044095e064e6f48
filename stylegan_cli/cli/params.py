"""Click types and options that several commands share. None of them imports PyTorch while the line is parsed."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import json
import math
import os
import re
import signal
import typing

import click

from ..errors import SganError

if typing.TYPE_CHECKING:
    import torch

    from ..progress import Progress
    from ..session import Session

# ---------------------------------------------------------------------------------------------- types


class Numbers(click.ParamType):
    """Whole numbers and ranges, '0,5,10-20', as a list[int] in the order given; or one of a few words, as it is."""

    def __init__(
        self,
        name: str,  # shown in the help text
        top: int,  # the largest number
        count: int = 1_000_000,  # the most numbers
        words: tuple[str, ...] = (),  # also accepted
        files: str | None = None,  # ending of files that may stand among the numbers, '.npz'
    ):
        self.name, self.top, self.count, self.words, self.files = name, top, count, words, files

    def convert(
        self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int] | list[int | str] | str:
        if isinstance(value, list) or value in self.words:
            return value
        numbers: list = []
        for part in value.split(","):
            if self.files and part.strip().lower().endswith(self.files):
                numbers.append(part.strip())
                continue
            first, last = self._bounds(part.strip(), param, ctx)
            if len(numbers) + last - first + 1 > self.count:
                self.fail(f"{value!r} is more than {self.count} numbers.", param, ctx)
            numbers += range(first, last + 1)
        return numbers

    def _bounds(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", part)
        if not match:
            also = f", or {', '.join(self.words)}" if self.words else f", or a {self.files} file" if self.files else ""
            self.fail(f"{part!r} is no number or range; write 0,5,10-20 for example{also}.", param, ctx)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            self.fail(f"the range {part!r} runs backwards; write {last}-{first}.", param, ctx)
        if last > self.top:
            self.fail(f"{last} is more than {self.top}, the largest that works.", param, ctx)
        return first, last


class Size(click.ParamType):
    """'256' or '256x384' (height x width, in pixels), as (height, width); or of another name, rows and columns."""

    def __init__(
        self,
        name: str = "size",  # shown in the help text
        example: str = "256, or 256x384 for height x width",
    ):
        self.name, self.example = name, example

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", value.strip())
        height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not height or not width:
            self.fail(f"{value!r} is no {self.name}; write {self.example}.", param, ctx)
        return height, width


class Number(click.ParamType):
    """A number; nan and inf are none."""

    def __init__(
        self,
        name: str = "number",  # shown in the help text
        above: float = -math.inf,
        what: str = "number",  # for the message
    ):
        self.name, self.above, self.what = name, above, what

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.above < number < math.inf:
            self.fail(f"{value!r} is no {self.what}.", param, ctx)
        return number


class ByLevel(click.ParamType):
    """Positive numbers of levels: '4:64,8:32' -> {4: 64, 8: 32}."""

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
            self.fail(f"{value!r} is no list such as 4:64,8:32.", param, ctx)
        return numbers


class Device(click.ParamType):
    """'auto', 'cpu', 'cuda' or 'cuda:N', as the string; `resolve_device` makes it a device."""

    name = "device"

    def convert(self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
            self.fail(f"{value!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...", param, ctx)
        return value


SEEDS = Numbers("seeds", top=2**32 - 1)
LATENTS = Numbers("latents", top=2**32 - 1, files=".npz")  # seeds, and files of latents: for `collect_latents`
STYLES = Numbers("styles", top=999, count=1000, words=("coarse", "middle", "fine"))  # indices of w, or a named span
SIZE = Size()
GRID = Size("grid", "3x2 for 3 rows of 2")
KIMG = Number("kimg", above=0, what="number of thousands of images above 0")
DEVICE = Device()


def resolve_device(
    name: str,  # what `Device` accepts
) -> torch.device:
    """The device of that name; 'auto' is CUDA where there is one. Raises SganError if it is not in this machine, or if
    the CUDA kernels are asked for and cannot run there."""
    import torch

    from ..ops import dispatch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device(("cuda" if count else "cpu") if name == "auto" else name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SganError(f"There is no device {name}: PyTorch sees {count} CUDA device(s).", hint="Use --device auto.")
    dispatch.check(None, device)
    return device


@dataclasses.dataclass(frozen=True)
class Call:
    """What every command that draws with a model is given, see `session_options`."""

    model: str | None
    runs: str
    device: str
    as_json: bool
    quiet: bool

    def open(self) -> Session:
        """The model that is meant; says which it is. Raises SganError if there is none or it cannot be read."""
        from ..session import Session, find_model

        path, which = find_model(self.model, self.runs)
        self.say(which)
        typed = click.get_current_context().find_root().obj or ["sgan"]  # word by word
        return Session(path, resolve_device(self.device), command=typed)

    def progress(self) -> contextlib.AbstractContextManager[Progress]:
        """Bars, unless there shall be none."""
        from .progress import bar

        return bar(self.quiet)

    def say(
        self,
        *sentences: str,  # good to know
    ) -> None:
        """On stderr."""
        if not self.quiet:
            warn(*sentences)

    def finish(
        self,
        result: dict[str, typing.Any],  # for --json; paths are written as text
        line: object,  # else
    ) -> None:
        """Print the result."""
        click.echo(json.dumps(result, default=str) if self.as_json else line)


def warn(*sentences: str) -> None:
    """On stderr, with --quiet too."""
    for sentence in sentences:
        click.echo(sentence, err=True)


@contextlib.contextmanager
def sigterm_as_interrupt() -> typing.Iterator[None]:
    """What Ctrl-C keeps, a polite kill keeps too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_memory() -> None:
    """Let glibc keep what it has: it would give each large activation back to the system, which then clears it anew for
    the next one; on a CPU that takes longer than the network."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


# -------------------------------------------------------------------------------------------- options


def _together(*options: typing.Callable) -> typing.Callable:
    """One decorator from several, shown in the help text in the order given."""

    def decorate(function: typing.Callable) -> typing.Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# Gives `model` (str or None) and `runs` (str), for `interop.conversion.find_model`.
model_option = _together(
    click.option(
        "--model",
        "--network",
        "model",
        metavar="PATH",
        help="A snapshot, a run folder, another program's checkpoint or its address. Left out: the newest of --runs.",
    ),
    click.option("--runs", metavar="FOLDER", default="./runs", help="Where the run folders are."),
)

# Gives `as_json` and `quiet`: results go to stdout, everything else to stderr.
output_options = _together(
    click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but the result."),
)

# Gives `device`, for `resolve_device`.
device_option = click.option("--device", type=DEVICE, default="auto", help="auto, cpu, cuda or cuda:N.")


@contextlib.contextmanager
def _default_kernels(value: str) -> typing.Iterator[None]:
    """What `ops.use` would choose, as the default of this process: those that it starts inherit it, and PyTorch need
    not be imported."""
    before = os.environ.get("SGAN_KERNELS")
    os.environ["SGAN_KERNELS"] = value
    try:
        yield
    finally:
        del os.environ["SGAN_KERNELS"]
        if before is not None:
            os.environ["SGAN_KERNELS"] = before


# Gives nothing: it chooses for all that the command calls. Refuses what a user may have put into the environment.
kernels_option = click.option(
    "--kernels",
    type=click.Choice(["auto", "cuda", "fused", "composite", "reference"]),
    default="auto",
    envvar="SGAN_KERNELS",
    show_envvar=True,
    expose_value=False,
    callback=lambda ctx, param, value: ctx.with_resource(_default_kernels(value)),
    help="auto: CUDA kernels where there are any; cuda, fused: those or an error; composite, reference: PyTorch alone.",
)


def session_options(command: typing.Callable) -> typing.Callable:
    """Gives `call`, a `Call`, in place of all that `model_option`, `device_option` and `output_options` give."""

    @functools.wraps(command)
    def run(**options: typing.Any) -> None:
        shared = {field.name: options.pop(field.name) for field in dataclasses.fields(Call)}
        command(call=Call(**shared), **options)

    return _together(model_option, device_option, kernels_option, output_options)(run)


# Gives `trunc`, `trunc_cutoff` and `class_index`.
truncation_options = _together(
    click.option("--trunc", type=Number(), default=1.0, help="Truncation psi: 1 is none, 0 the mean image."),
    click.option("--trunc-cutoff", type=click.IntRange(0), help="Truncate only the first so many styles."),
    click.option("--class", "class_index", type=int, help="Class of the images. Left out: drawn by each seed."),
)

# Gives `batch` and `precision`.
speed_options = _together(
    click.option("--batch", type=click.IntRange(1), help="Images at a time. Left out: by their size."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        help="Of the highest levels; half precision is faster where the processor has it.",
    ),
)

# Gives `outdir` and `format`.
file_options = _together(
    click.option("--outdir", default="./out", metavar="FOLDER", help="Where the images are written."),
    click.option("--format", type=click.Choice(["png", "jpg", "webp"]), default="png", help="Of the files."),
)

# Gives all of these, and `noise_mode`.
sampling_options = _together(
    truncation_options,
    click.option(
        "--noise-mode",
        type=click.Choice(["const", "random", "none"]),
        default="const",
        help="Of each layer: stored, of the seed, or none.",
    ),
    speed_options,
    file_options,
)
