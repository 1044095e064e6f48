"""The addresses of the explorer, and the functions behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import quote

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import MisuseError, SganError
from . import calls, works
from .facts import describe_model, list_snapshots
from .folder import MEDIA
from .guard import TooLargeError
from .jobs import MAX_JOBS, Job
from .turns import Turns
from .views import Origin, Shot, Views, to_rgba

T = TypeVar("T")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGE = "index.html"
MAX_WAITING = 64  # calls


class BusyError(Exception):
    """Too much is to be done."""


class App:
    """The application of one model. Every computation of an image takes a turn; long work passes it on in between."""

    def __init__(self, views: Views):
        self.views, self.turns = views, Turns()
        self.jobs: dict[str, Job] = {}  # running ones, by the page's names
        page = files("stylegan_cli.explore") / "page"
        self.page = {f.name: f.read_bytes() for f in page.iterdir() if f.name.endswith(tuple(_TYPES))}
        self.waiting = 0  # calls that have not been answered
        self.next = anyio.CapacityLimiter(2)  # one computes, the next one is ready; the others wait here
        self.threads, self.uploads = anyio.CapacityLimiter(2), anyio.Semaphore(1)

    def asgi(self) -> Starlette:
        views = self.views
        return Starlette(
            routes=[
                Route("/", self.send_page),
                Route("/page/{name}", self.send_page),
                Route("/api/model", self.answer(lambda: describe_model(views))),
                Route("/api/items", self.answer(lambda: {"items": works.list_items(views)})),
                Route("/api/favorites", self.favorites, methods=["GET", "POST"]),
                Route("/api/directions", self.answer(lambda: {"files": works.list_directions(views)})),
                Route("/api/snapshots", self.answer(lambda: list_snapshots(views))),
                Route("/api/files/{name:path}", self.send_file),
                Route("/api/images", self.show(calls.ImagesCall, views.images), methods=["POST"]),
                Route("/api/command", self.command, methods=["POST"]),
                Route("/api/mix", self.show(calls.MixCall, views.mix), methods=["POST"]),
                Route("/api/grid", self.show(calls.GridCall, views.grid), methods=["POST"]),
                Route("/api/edit", self.show(calls.EditCall, views.edit), methods=["POST"]),
                Route("/api/walk", self.show(calls.WalkCall, views.walk), methods=["POST"]),
                Route("/api/keep", self.keep, methods=["POST"]),
                Route("/api/photo", self.photo, methods=["POST"]),
                Route("/api/encode", self.encode, methods=["POST"]),
                Route("/api/find", self.start(calls.FindCall, works.find), methods=["POST"]),
                Route("/api/project", self.start(calls.ProjectCall, works.project), methods=["POST"]),
                Route("/api/drag", self.start(calls.DragCall, works.drag), methods=["POST"]),
                Route("/api/export", self.start(calls.ExportCall, works.export), methods=["POST"]),
                Route("/api/stop", self.stop, methods=["POST"]),
            ],
            exception_handlers={
                SganError: _refused,
                BusyError: lambda request, error: _error(503, "The explorer is busy.", "Try again in a moment."),
                TooLargeError: lambda request, error: _error(413, "The request is too large.", "Send less at a time."),
                ClientDisconnect: lambda request, error: _error(499, "The page has gone."),
                404: lambda request, error: _error(404, "There is nothing at this address."),
                405: lambda request, error: _error(405, "This address takes other requests."),
                500: lambda request, error: _error(500, "Unexpected error; see the terminal."),
            },
        )

    async def send_page(self, request: Request) -> Response:
        name = request.path_params.get("name", _PAGE)
        if name not in self.page:
            return _error(404, "There is nothing at this address.")
        kind = next(kind for suffix, kind in _TYPES.items() if name.endswith(suffix))
        return Response(self.page[name], media_type=kind)

    async def send_file(self, request: Request) -> Response:
        path = self.views.folder.find(request.path_params["name"], *MEDIA)
        return FileResponse(path, media_type=MEDIA[path.suffix], filename=path.name)

    def answer(self, function: Callable[[], dict[str, Any]]) -> Callable[[Request], Any]:
        """An address that answers with JSON."""

        async def endpoint(request: Request) -> Response:
            return JSONResponse(await self.compute(request, function))

        return endpoint

    def show(self, kind: type[T], function: Callable[[T], Shot]) -> Callable[[Request], Any]:
        """An address that answers with images."""

        async def endpoint(request: Request) -> Response:
            call = await _call(kind, request)
            shot, content = await self.compute(request, lambda: (shot := function(call), to_rgba(shot.images)))
            count, _, height, width = shot.images.shape
            headers = {"X-Count": count, "X-Height": height, "X-Width": width}
            headers |= {"X-Command": quote("\n".join(shot.commands))}
            headers |= {} if shot.frames is None else {"X-Frames": shot.frames}
            text = {name: str(value) for name, value in headers.items()}
            return Response(content, media_type="application/octet-stream", headers=text)

        return endpoint

    def start(self, kind: type[Any], work: Callable[[Views, Any, Job], dict[str, Any]]) -> Callable[[Request], Any]:
        """An address that answers with the events of long work, which ends with the connection."""

        async def endpoint(request: Request) -> Response:
            call = await _call(kind, request)
            if len(self.jobs) >= MAX_JOBS or call.job in self.jobs:
                raise BusyError
            loop, changed = asyncio.get_running_loop(), asyncio.Event()

            def notify() -> None:
                with contextlib.suppress(RuntimeError):  # the server has stopped
                    loop.call_soon_threadsafe(changed.set)

            job = self.jobs[call.job] = Job(self.turns, notify)
            run = loop.run_in_executor(None, job.run, lambda job: work(self.views, call, job))
            run.add_done_callback(lambda _: self.jobs.pop(call.job, None))
            events = _events(job, changed, lambda: self.jobs.pop(call.job, None))
            return StreamingResponse(events, media_type="application/x-ndjson")

        return endpoint

    async def command(self, request: Request) -> Response:
        call = await _call(calls.ImagesCall, request)
        return JSONResponse({"command": "\n".join(self.views.image_commands(call, call.items))})

    async def keep(self, request: Request) -> Response:
        body = await _json(request)
        kinds: dict[object, tuple[type[calls.Shown], Callable[[Any], Origin]]] = {
            "image": (calls.ImagesCall, self.views.origin_of_images),
            "mix": (calls.MixCall, self.views.origin_of_mix),
            "edit": (calls.EditCall, self.views.origin_of_edit),
        }
        kind = body.pop("kind", None) if isinstance(body, dict) else None
        if kind not in kinds:
            raise MisuseError("kind must be image, mix or edit.")
        call = calls.parse(kinds[kind][0], body)
        make = kinds[kind][1]
        return JSONResponse(await self.compute(request, lambda: works.keep(self.views, str(kind), call, make(call))))

    async def favorites(self, request: Request) -> Response:
        if request.method == "POST":
            works.save_favorites(self.views, await _call(calls.FavoritesCall, request))
        return JSONResponse({"items": works.load_favorites(self.views)})

    async def photo(self, request: Request) -> Response:
        async with self.uploads:  # one in memory at a time
            content = await request.body()
            photo = await anyio.to_thread.run_sync(works.read_photo, self.views, content)
        return JSONResponse(await self.compute(request, lambda: works.add_photo(self.views, *photo)))

    async def encode(self, request: Request) -> Response:
        call = await _call(calls.PhotoCall, request)
        return JSONResponse(await self.compute(request, lambda: works.encode(self.views, call)))

    async def stop(self, request: Request) -> Response:
        call = await _call(calls.StopCall, request)
        if job := self.jobs.get(call.job):
            job.stopped = True
        return JSONResponse({})

    async def compute(self, request: Request, function: Callable[[], T]) -> T:
        """Call a function in its turn, on another thread, unless the page has gone by then."""

        def call() -> T:
            with self.turns.take():
                return function()

        if self.waiting >= MAX_WAITING:
            raise BusyError
        self.waiting += 1
        try:
            async with self.next:
                if await request.is_disconnected():
                    raise ClientDisconnect
                return await anyio.to_thread.run_sync(call, limiter=self.threads)
        finally:
            self.waiting -= 1

    def cancel(self) -> None:
        """End all long work."""
        for job in list(self.jobs.values()):
            job.cancel()


async def _events(job: Job, changed: asyncio.Event, end: Callable[[], object]) -> AsyncIterator[bytes]:
    """One line of JSON for each event. When the connection ends, so does the job."""
    try:
        while True:
            await changed.wait()
            changed.clear()
            if finished := job.finished:
                end()
            if (event := job.take()) is not None:
                yield json.dumps(event).encode() + b"\n"
            if finished:
                return
    finally:
        job.cancel()
        end()


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise MisuseError("The body of a call must be JSON.") from None


async def _call(kind: type[T], request: Request) -> T:
    return calls.parse(kind, await _json(request))


def _refused(request: Request, error: Exception) -> Response:
    return _error(400, str(error), getattr(error, "hint", None))


def _error(status: int, error: str, hint: str | None = None) -> Response:
    return JSONResponse({"error": error, "hint": hint}, status)
