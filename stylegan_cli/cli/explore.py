"""sgan explore"""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import click

from .call import Call, keep_freed_memory
from .options import session_options


@click.command(short_help="Explore a model in the browser.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8765,
    help="Port to listen on. If it is in use, the next free one is.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="Address to listen on. With any other than the default, other machines can connect; the token in the printed "
    "address is then all that protects the explorer.",
)
@click.option("--open/--no-open", "open_", default=True, help="Open the page in the browser.")
@click.option("--outdir", default="./out/explore", metavar="FOLDER", help="Folder to write to.")
@session_options
def command(
    call: Call,
    port: int,
    host: str,
    open_: bool,
    outdir: str,
) -> None:
    """Explore a model in the browser.

    Shows an endless gallery of images, mixes their styles, moves them along directions, finds photos in the latent
    space, drags points of an image to other places, and renders videos; for a run folder, also how the model has
    developed. Everything that the page does can be repeated with the command that it shows. Prints the address of the
    page, which contains a random token: whoever has it can use the explorer. Ctrl-C ends it.

    Needs Starlette and uvicorn: pip install 'stylegan-cli[web]'.

    \b
    Examples:
      sgan explore
      sgan explore --model runs/00000-faces-auto
      sgan explore --no-open --port 9000
    """
    import starlette  # noqa: F401 (a missing extra is reported before the model is opened)
    import uvicorn  # noqa: F401

    from ..files import check_writable
    from ..runs.folders import PACKAGED_MODEL

    session = call.open()
    from ..explore.folder import Folder
    from ..explore.server import listen, serve
    from ..explore.views import Views

    folder = Path(outdir)
    run = Path(call.model) if call.model and Path(call.model).is_dir() else None
    if run is None and session.info.run and session.path.parent.joinpath("config.json").is_file():
        run = session.path.parent
    # Named by its file, as a run or the newest model may be another one tomorrow.
    model = [] if session.path == PACKAGED_MODEL else ["--model", str(session.path)]
    check_writable(folder)
    keep_freed_memory(threads=True)
    sock = listen(host, port)
    found = sock.getsockname()[1]
    if found != port:
        call.inform(f"Port {port} is in use; using {found}.")
    views = Views(session, Folder(folder), model, run)

    def ready(address: str) -> None:
        call.print_result({"model": session.path, "address": address}, address)
        if open_ and not open_browser(address):
            call.inform("No browser could be opened: open the address yourself.")
        call.inform("Press Ctrl-C to end.")

    with sock:
        serve(views, host, sock, ready)
    call.inform("Stopped.")


def open_browser(address: str) -> bool:
    """Whether a browser could be started. Without a screen it could only be one that takes over the terminal."""
    has_screen = sys.platform in ("darwin", "win32") or any(os.environ.get(x) for x in ("DISPLAY", "WAYLAND_DISPLAY"))
    return has_screen and webbrowser.open(address)
