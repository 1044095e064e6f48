"""Which requests are answered: those of the page itself, with the token, and of a bounded size."""

from __future__ import annotations

import ipaddress
import json
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY, MAX_MASK, MAX_UPLOAD = 2**20, 2**23, 2**25  # bytes
LIMITS = {"/api/photo": MAX_UPLOAD, "/api/drag": MAX_MASK}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class TooLargeError(Exception):
    """A body exceeds its limit."""


class Guard:
    """ASGI middleware. Refuses requests that name another host (DNS rebinding), come from another page (cross-site
    requests) or lack the token, and stops reading a body at its limit."""

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        port: int,
        host: str = "127.0.0.1",  # that the server listens on
    ):
        self.app, self.token, self.port, self.host = app, token, port, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if problem := self._problem(scope["path"], headers):
            await self._refuse(send, *problem)
            return
        limit, size = LIMITS.get(scope["path"], MAX_BODY), 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise TooLargeError
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self.app(scope, receive_bounded, send_with_headers)

    def _problem(self, path: str, headers: dict[bytes, str]) -> tuple[int, str, str | None] | None:
        """Status, sentence and hint, if a request is refused."""
        if not self._is_own(headers.get(b"host", "")):
            return 421, "This address is not that of the explorer.", "Use the address that `sgan explore` printed."
        origin = headers.get(b"origin")
        if origin is not None and not (origin.startswith("http://") and self._is_own(origin[7:])):
            return 403, "Requests from other pages are refused.", None
        if headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin") and path.startswith("/api/"):
            return 403, "Requests from other pages are refused.", None
        if path.startswith("/api/") and not self._has_token(headers.get(b"authorization", "")):
            return 401, "The token is missing or wrong.", "Open the address that `sgan explore` printed."
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a host and port are this server's. A server that listens on all addresses accepts any of them by
        number, since a name could be one that leads here on purpose (DNS rebinding)."""
        name, _, port = host.rpartition(":") if self.port != 80 or host.endswith(":80") else (host, "", "80")
        if port != str(self.port):
            return False
        if name in ("127.0.0.1", "localhost", "[::1]", self.host, f"[{self.host}]"):
            return True
        return self.host in ("0.0.0.0", "::") and _is_address(name)

    def _has_token(self, authorization: str) -> bool:
        return secrets.compare_digest(authorization.encode(), f"Bearer {self.token}".encode())

    async def _refuse(self, send: Send, status: int, error: str, hint: str | None) -> None:
        body = json.dumps({"error": error, "hint": hint}).encode()
        headers = {**_HEADERS, "Content-Type": "application/json", "Content-Length": str(len(body))}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
