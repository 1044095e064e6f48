"""What the page shows: images of items, mixed, edited, and on the way from one to the next."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import MisuseError, SganError
from ..inversion.directions import Directions, load_directions
from ..runs.folders import snapshots
from ..sampling.bound_files import check_model, owned_by
from ..sampling.generate import SamplingOptions, generate_images
from ..sampling.interpolate import Frames, frame_times, linear, spherical, spline
from ..sampling.latent_files import Latents, load_latent_file
from ..sampling.mixing import mix_styles
from ..session import Session
from .calls import EditCall, GridCall, ImagesCall, Item, MixCall, Move, Shown, WalkCall
from .commands import Commands, format_indices
from .folder import Folder

MAX_PIXELS = 2**24  # of all images of one call
T = TypeVar("T")
_RECENT = 32  # latents and directions that are kept
_SNAPSHOTS = 2  # of a run, besides the model itself, that stay in memory


@dataclass(frozen=True)
class Shot:
    """Images, and the commands that make the same."""

    images: Tensor  # uint8 [N, C, H, W]
    commands: list[str]
    frames: int | None = None  # of the whole walk


@dataclass(frozen=True)
class Origin:
    """Latents to show, without a synthesis so far."""

    sources: Latents  # whose noise and generator the images have
    ws: Tensor  # [N, num_ws, w_dim]
    noise_from: list[int]  # [N] indices into `sources`
    commands: list[str]


class Views:
    """A model, or the snapshots of a run, and an output folder. Not for several threads at a time, see `turns`."""

    def __init__(
        self,
        session: Session,
        folder: Folder,
        model: Sequence[str] = (),  # words that choose the model on the command line
        run: Path | None = None,  # folder of the run that the model is the newest snapshot of
    ):
        self.session, self.folder, self.run = session, folder, run
        self.commands = Commands(model, folder.path)
        self._opened: dict[str, Session] = {}
        self._recent: dict[Hashable, Any] = {}

    # ------------------------------------------------------------------------------------------ calls

    def images(self, call: ImagesCall) -> Shot:
        """One image of each item."""
        return self.render(call, self.origin_of_images(call))

    def mix(self, call: MixCall) -> Shot:
        return self.render(call, self.origin_of_mix(call))

    def edit(self, call: EditCall) -> Shot:
        return self.render(call, self.origin_of_edit(call))

    def grid(self, call: GridCall) -> Shot:
        """R row images, K column images, and R x K mixed ones."""
        session = self.model(call)
        layers = self.check_layers(session, call.layers)
        sources = self.latents(session, [*call.rows, *call.cols], call)
        R, K = len(call.rows), len(call.cols)
        mixed = mix_styles(sources.ws[:R], sources.ws[R:], layers, call.blend)
        noise_from = [*range(R + K), *(r for r in range(R) for _ in range(K))]
        before, (rows, cols), sampling = self._prepared([call.rows, call.cols], call)
        options = {"rows": rows, "cols": cols, "styles": format_indices(layers), "blend": _unless(call.blend, 1.0)}
        command = self.command(call, "mix", sampling, **options)
        ws = torch.cat([sources.ws, mixed.flatten(0, 1)])
        return self.render(call, Origin(sources, ws, noise_from, [*before, command]))

    def walk(self, call: WalkCall) -> Shot:
        """One frame of the way through the key images."""
        session = self.model(call)
        if len(call.keys) < 2:
            raise MisuseError("One key image is not enough.", hint="Add another one.")
        sources = self.latents(session, call.keys, call)
        times = frame_times(len(call.keys), call.frames, call.loop)
        if call.kind == "slerp":
            if any(isinstance(key, str) for key in call.keys):
                raise MisuseError("Great circles need seeds, not files of latents.", hint="Choose spline or linear.")
            with self._context(session):
                path = spherical(session.G, [int(key) for key in call.keys], call.sampling)
        else:
            path = spline(sources.ws, call.loop) if call.kind == "spline" else linear(sources.ws)
        index = min(call.index, len(times) - 1)
        part = slice(index, index + 1)
        with self._context(session):
            ws = Frames([path], times)[part]
            maps = sources.noise and [Frames([linear(m)], times)[part] for m in sources.noise]
        shown = dataclasses.replace(sources, noise=maps, seeds=[index])
        shot = self.render(call, Origin(shown, ws, [0], self.walk_commands(call)))
        return dataclasses.replace(shot, frames=len(times))

    def walk_commands(
        self,
        call: WalkCall,
        fps: int = 30,
        out: Path | None = None,  # None: the default
    ) -> list[str]:
        before, (keys,), sampling = self._prepared([call.keys], call)
        options = {"seeds": keys, "kind": call.kind, "frames": call.frames, "fps": fps, "out": out}
        return [*before, self.command(call, "interpolate", sampling, **options, once=not call.loop)]

    # ------------------------------------------------------------------------------- latents of a view

    def origin_of_images(self, call: ImagesCall) -> Origin:
        session = self.model(call)
        sources = self.latents(session, call.items, call)
        return Origin(sources, sources.ws, list(range(len(sources))), self.image_commands(call, call.items))

    def origin_of_mix(self, call: MixCall) -> Origin:
        """The base's latents, and those of each donor in its layers."""
        session = self.model(call)
        sources = self.latents(session, [call.base, *(donor.item for donor in call.donors)], call)
        ws = sources.ws[:1]
        for i, donor in enumerate(call.donors):
            layers = self.check_layers(session, donor.layers)
            ws = mix_styles(ws, sources.ws[i + 1 : i + 2], layers, call.blend)[0]
        return Origin(sources, ws, [0], self._mix_commands(call))

    def origin_of_edit(self, call: EditCall) -> Origin:
        session = self.model(call)
        sources = self.latents(session, [call.item], call)
        layers, ws = call.layers and self.check_layers(session, call.layers), sources.ws
        for move in call.edits:
            directions = self.directions(session, move.file)
            if move.index >= len(directions):
                raise MisuseError(f"There is no direction {move.index} in {move.file}.")
            ws = directions.move(ws.cpu(), move.index, move.strength, layers).to(ws)
        return Origin(sources, ws, [0], self._edit_commands(call))

    # ------------------------------------------------------------------------------------------ parts

    def model(self, call: Shown) -> Session:
        """The session of the snapshot that a call names."""
        if call.snapshot is None:
            return self.session
        known = {path.name: path for path in snapshots(self.run)} if self.run else {}
        if call.snapshot not in known:
            raise SganError(f"There is no snapshot {call.snapshot[:100]!r}.", hint="Choose one that is listed.")
        path = known[call.snapshot]
        if path == self.session.path:
            return self.session
        session = self._opened.pop(call.snapshot, None)
        if session is None:
            session = Session(path, self.session.device, self.session.kernels, self.session.command)
        self._opened[call.snapshot] = session  # the most recent last
        while len(self._opened) > _SNAPSHOTS:
            del self._opened[next(iter(self._opened))]
        return session

    def latents(self, session: Session, items: Sequence[Item], call: Shown) -> Latents:
        """The latents of items, one of each. Truncation changes seeds only: what a file holds is shown as it is."""
        sampling = self.sampling_of(items, call)
        files = [item if isinstance(item, int) else str(self.folder.find(item, ".npz")) for item in items]
        versions = tuple(file if isinstance(file, int) else _version(Path(file)) for file in files)
        key = (session.fingerprint, versions, sampling)
        return self._kept(key, lambda: self._collect(session, items, files, sampling))

    def _collect(
        self, session: Session, items: Sequence[Item], files: list[int | str], sampling: SamplingOptions
    ) -> Latents:
        with self._context(session):
            found = session.latents(files, dataclasses.replace(sampling, trunc=1.0, trunc_cutoff=None))
            ws = found.ws.clone()
            first = [found.items.index(i) for i in range(len(items))]  # a file may hold several
            chosen = [i for i, item in zip(first, items, strict=True) if isinstance(item, int)]
            if chosen and sampling.trunc != 1:
                ws[chosen] = found.G.truncate(ws[chosen], sampling.trunc, sampling.trunc_cutoff)
        names, seeds = [found.names[i] for i in first], [found.seeds[i] for i in first]
        return dataclasses.replace(
            found, ws=ws[first], names=names, seeds=seeds, items=list(range(len(items))), noise=found.noise_of(first)
        )

    def sampling_of(self, items: Sequence[Item], call: Shown) -> SamplingOptions:
        """The options for items: those of a call, or without what has no effect on files."""
        return call.sampling if any(isinstance(item, int) for item in items) else final_sampling(call.sampling)

    def render(self, call: Shown, origin: Origin) -> Shot:
        """Synthesize images, reduced to what the page shows."""
        session, sources = self.model(call), origin.sources
        config = session.G.config
        factor = self.factor(session, call.size)
        if len(origin.ws) * config.height * config.width > MAX_PIXELS * factor**2:
            raise MisuseError(f"{len(origin.ws)} images of this size are too many at a time.", hint="Ask for fewer.")
        seeds = [sources.seeds[i] for i in origin.noise_from]
        noise = sources.noise_of(origin.noise_from)
        with self._context(session):
            images = generate_images(sources.G, lambda i, j: origin.ws[i:j], seeds, call.sampling, noise=noise)
            return Shot(torch.stack([reduced(image, factor) for image in images]), origin.commands)

    def factor(self, session: Session, size: int | None) -> int:
        """By how much images are reduced for a longest side of `size`, which they then still have."""
        config = session.G.config
        return max(1, max(config.height, config.width) // size) if size else 1

    def is_own(self, name: str) -> bool:
        """Whether a file of latents belongs to the model or its run."""
        try:
            with self._context(self.session):
                file = load_latent_file(self.folder.find(name, ".npz"))
                if file.model is not None:
                    check_model(file.path, file.model, self.session.fingerprint, file.settings)
        except SganError:
            return False
        return True

    def directions(self, session: Session, name: str) -> Directions:
        path = self.folder.find(name, ".npz")

        def load() -> Directions:
            with self._context(session):
                return load_directions(path, session.G, session.fingerprint)

        return self._kept((_version(path), session.fingerprint), load)

    def _kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made for this key before, or is made now: a moving slider needs the same things for each frame."""
        if key not in self._recent:
            made = make()
            if getattr(made, "tuned", None):  # a generator of its own, which is large
                return made
            self._recent[key] = made
            while len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
        return self._recent[key]

    def check_layers(self, session: Session, layers: list[int]) -> list[int]:
        if wrong := [i for i in layers if i >= session.G.num_ws]:
            raise MisuseError(f"There is no layer {wrong[0]}: the last one is {session.G.num_ws - 1}.")
        return sorted(set(layers))

    @contextlib.contextmanager
    def _context(self, session: Session) -> Iterator[None]:
        with session.use_kernels(), owned_by(session.owner):
            yield

    # --------------------------------------------------------------------------------------- commands

    def command(self, call: Shown, name: str, sampling: SamplingOptions | None, **options: object) -> str:
        """A command line, for the snapshot that the call names."""
        commands = self.commands
        if call.snapshot is not None and self.run is not None:
            commands = dataclasses.replace(commands, model=["--model", str(self.run / call.snapshot)])
        return commands.line(name, sampling, **options)

    def _prepared(
        self, lists: Sequence[Sequence[Item]], call: Shown
    ) -> tuple[list[str], list[str], SamplingOptions]:  # commands, lists of items, sampling options of the last one
        """Lists of items for one command. On a command line --trunc changes files as well, so where both occur, the
        truncated latents of seeds become files first."""
        flat = [item for items in lists for item in items]
        files = any(isinstance(item, str) for item in flat)
        if not files or call.trunc == 1:
            return [], [self.commands.items(items) for items in lists], self.sampling_of(flat, call)
        seeds = [item for item in dict.fromkeys(flat) if isinstance(item, int)]
        folders = {seed: final_folder(seed, call) for seed in seeds}
        before = [
            self.command(
                call, "generate", call.sampling, seeds=str(seed), save_w=True, outdir=self.folder.path / folders[seed]
            )
            for seed in seeds
        ]
        named = [[f"{folders[i]}/w.npz" if isinstance(i, int) else i for i in items] for items in lists]
        return before, [self.commands.items(items) for items in named], final_sampling(call.sampling)

    def image_commands(self, call: Shown, items: Sequence[Item]) -> list[str]:
        seeds, files = [i for i in items if isinstance(i, int)], [i for i in items if isinstance(i, str)]
        commands = [self.command(call, "generate", call.sampling, seeds=self.commands.items(seeds))] if seeds else []
        final = final_sampling(call.sampling)
        return commands + [self.command(call, "generate", final, from_w=self.folder.path / name) for name in files]

    def _mix_commands(self, call: MixCall) -> list[str]:
        """One `sgan mix` for each donor, which continues with the latents of the one before."""
        if not call.donors:
            return self.image_commands(call, [call.base])
        before, items, sampling = self._prepared([[call.base], *([donor.item] for donor in call.donors)], call)
        row, lines = items[0], before
        whole = dataclasses.replace(sampling, trunc=1.0, trunc_cutoff=None)
        for i, donor in enumerate(call.donors):
            last = i == len(call.donors) - 1
            options = {"styles": format_indices(sorted(set(donor.layers))), "blend": _unless(call.blend, 1.0)}
            options |= {"save_w": not last}
            lines.append(self.command(call, "mix", sampling if last else whole, rows=row, cols=items[i + 1], **options))
            row = "out/w.npz"
        return lines

    def _edit_commands(self, call: EditCall) -> list[str]:
        """One `sgan edit apply` for each file of directions."""
        moves = [move for move in call.edits if move.strength]
        if not moves:
            return self.image_commands(call, [call.item])
        sampling = self.sampling_of([call.item], call)
        source, lines = self.commands.items([call.item]), []
        for name, group in _grouped(moves, lambda move: move.file):
            options = {
                "directions": self.folder.path / name,
                "direction": tuple(move.index for move in group),
                "strength": tuple(float(move.strength) for move in group),
                "layers": None if call.layers is None else format_indices(sorted(set(call.layers))),
            }
            lines.append(self.command(call, "edit apply", sampling, seeds=source, **options))
            source, sampling = "out/edited.npz", final_sampling(call.sampling)
        return lines


def final_folder(seed: int, call: Shown) -> str:
    """The folder in the output folder for the truncated latents of a seed; the page does not list it."""
    cutoff = "" if call.trunc_cutoff is None else f"-{call.trunc_cutoff}"
    return f".seeds/{seed}-{call.trunc:g}{cutoff}"


def final_sampling(sampling: SamplingOptions) -> SamplingOptions:
    """The options for latents that are final."""
    return dataclasses.replace(sampling, trunc=1.0, trunc_cutoff=None, class_index=None)


def reduced(
    image: Tensor,  # uint8 [C, H, W]
    factor: int,
) -> Tensor:  # uint8 [C, H // factor, W // factor]
    """Means of factor x factor pixels."""
    if factor == 1:
        return image
    return torch.nn.functional.avg_pool2d(image[None].float(), factor)[0].round().to(torch.uint8)


def to_rgba(
    images: Tensor,  # uint8 [N, 1, 3 or 4, H, W]
) -> bytes:  # N * H * W * 4
    """What a canvas takes."""
    n, channels, height, width = images.shape
    if channels < 4:
        alpha = torch.full((n, 1, height, width), 255, dtype=torch.uint8)
        images = torch.cat([images.expand(-1, 3, -1, -1) if channels == 1 else images, alpha], 1)
    return images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()


def _version(path: Path) -> tuple[str, int, int]:
    """Differs after a file has been replaced."""
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size


def _grouped(moves: Sequence[Move], key: Callable[[Move], str]) -> list[tuple[str, list[Move]]]:
    groups: dict[str, list[Move]] = {}
    for move in moves:
        groups.setdefault(key(move), []).append(move)
    return list(groups.items())


def _unless(value: float, default: float) -> float | None:
    return None if value == default else value
