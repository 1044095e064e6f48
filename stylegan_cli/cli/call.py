"""What commands do besides parsing: open the model, choose the device and the output file, print."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import typing
from collections.abc import Iterator
from pathlib import Path

import click

from ..errors import SganError, plural, printable

if typing.TYPE_CHECKING:
    import torch

    from ..progress import Progress
    from ..session import Session


def resolve_device(
    name: str,  # what `Device` accepts
) -> torch.device:
    """The named device; 'auto' is CUDA if available, else the CPU. Raises SganError if this machine does not
    have the device, or if the CUDA kernels are required and cannot run on it."""
    import torch

    from ..ops import dispatch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device(("cuda" if count else "cpu") if name == "auto" else name)
    if device.type == "cuda" and (device.index or 0) >= count:
        finds = plural(count, "CUDA device") if count else "no CUDA device"
        raise SganError(f"Device {name!r} is not available: PyTorch finds {finds}.", hint="Use --device auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SganError(f"Device {name!r} is not available: PyTorch finds no Apple GPU.", hint="Use --device auto.")
    dispatch.check(None, device)
    return device


@dataclasses.dataclass(frozen=True)
class Call:
    """The options that all commands with a model share, see `session_options`."""

    model: str | None
    runs: str
    device: str
    any_model: bool
    as_json: bool
    quiet: bool

    def open(self) -> Session:
        """Open the model, and say which one it is. Raises SganError if there is none or it cannot be read."""
        with no_garbage():
            from ..session import Session, find_model

        keep_freed_memory()
        path, description = find_model(self.model, self.runs)
        self.inform(description)
        context = click.get_current_context()
        arguments = context.find_root().obj or ["sgan"]
        session = Session(path, resolve_device(self.device), command=arguments, any_model=self.any_model)
        context.call_on_close(lambda: warn(*session.model_notes))
        return session

    def progress(self) -> contextlib.AbstractContextManager[Progress]:
        """Progress bars, none with --quiet."""
        from .progress import bar

        return bar(self.quiet)

    def inform(self, *sentences: str) -> None:
        """Print sentences to stderr, unless --quiet."""
        if not self.quiet:
            warn(*sentences)

    def print_result(
        self,
        result: dict[str, typing.Any],  # printed with --json; paths as strings
        line: object,  # printed without --json
    ) -> None:
        """Print the result to stdout."""
        click.echo(json.dumps(result, default=str) if self.as_json else line)


def warn(*sentences: str) -> None:
    """Print sentences to stderr, with --quiet too."""
    for sentence in sentences:
        click.echo(printable(sentence), err=True)


def output_file(
    out: str | None,  # --out
    outdir: str | None,  # --outdir
    name: str,  # of the file without --out
    folder: str | os.PathLike = "./out",  # of the file without --outdir
) -> str:
    """The file to write. Raises UsageError if --out names a folder other than --outdir."""
    if out is None:
        return str(Path(outdir or folder, name))
    if outdir is None:
        return out
    if not os.path.dirname(out):
        return str(Path(outdir, out))
    if os.path.realpath(os.path.dirname(out)) != os.path.realpath(outdir):
        raise click.UsageError(f"--out {out} is not in --outdir {outdir}. Use only one of the two options.")
    return out


def refuse_to_overwrite(
    inputs: typing.Iterable[str | None],
    outputs: typing.Iterable[Path],
) -> None:
    """Check the output paths. Raises SganError if an output would replace an input."""
    output_paths = {path.resolve() for path in outputs}
    if replaced := [path for path in inputs if path and Path(path).resolve() in output_paths]:
        raise SganError(f"{replaced[0]} would be overwritten by its own result.", hint="Use another --outdir.")


@contextlib.contextmanager
def output_folder(
    folder: Path,
) -> Iterator[None]:
    """Check that the folder can be written to. If it is new and the block writes nothing, it is removed again.

    Raises SganError if it cannot be written to.
    """
    from ..files import check_writable

    is_new = not folder.exists()
    check_writable(folder)
    try:
        yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it has files
                folder.rmdir()


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Collect no garbage while modules are imported: Python would look through all of PyTorch's objects several times,
    a tenth of the program's start, and find none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def keep_freed_memory(
    threads: bool = False,  # whether several threads compute: they then share what is kept
) -> None:
    """Let glibc reuse freed memory instead of returning it to the system, which would have to clear it again for each
    large activation; on a CPU that takes longer than the network itself."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if threads:
            libc.mallopt(-8, 1)  # M_ARENA_MAX
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        from ..models import frozen

        frozen.FEATURES = frozen.FEATURES_IN_KEPT_MEMORY
