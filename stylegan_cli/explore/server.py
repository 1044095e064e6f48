"""Listening, and ending in good order."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from collections.abc import Callable

import uvicorn

from ..errors import SganError
from .app import App
from .guard import Guard
from .views import Views

PORTS = 20  # that are tried, from the first
_GRACE = 2  # seconds that open connections get at the end


def listen(
    host: str,
    port: int,
) -> socket.socket:
    """A socket on the port, or on one of the next ones if it is in use. Raises SganError if all are, or the address is
    not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = min(port + PORTS - 1, 65535)
    for candidate in range(port, last + 1):
        # Named, since asyncio sends small packets at once (TCP_NODELAY) only where it knows that the protocol is TCP.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, candidate))
            sock.listen(128)
            return sock
        except OSError as e:
            sock.close()
            if isinstance(e, socket.gaierror) or e.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise SganError(f"Cannot listen on {host}: {e.strerror or e}.", hint="Use --host 127.0.0.1.") from e
            if isinstance(e, PermissionError):
                raise SganError(f"Port {candidate} is reserved.", hint="Use --port 8765.") from e
    raise SganError(f"Ports {port} to {last} are in use.", hint="Use --port with another number.")


def serve(
    views: Views,
    host: str,
    sock: socket.socket,
    ready: Callable[[str], None],  # called with the address of the page once it can be opened
) -> None:
    """Serve the explorer until Ctrl-C."""
    token, port = secrets.token_urlsafe(24), sock.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    app = App(views)
    config = uvicorn.Config(
        Guard(app.asgi(), token, port, host),
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=256,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(f"http://{shown}:{port}/?token={token}")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.cancel()
            await super().shutdown(sockets)

    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run([sock])
