"""An open model, and what everything that is made with it has in common."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import cache, ops
from ..data.images import save_image, to_rgb
from ..errors import SganError
from ..interop.opening import open_model
from ..models.discriminator import Discriminator
from ..models.generator import Generator
from ..ops import dispatch
from ..sampling.generate import SamplingOptions, image_metadata
from ..sampling.latent_files import Latents, collect_latents
from ..snapshot import Snapshot, SnapshotInfo, fingerprint
from ..version import __version__

T = TypeVar("T")


class Model:
    """A model in memory, ready to draw."""

    def __init__(
        self,
        path: str | Path,  # a snapshot, or another program's checkpoint
        device: torch.device | str = "cpu",
        kernels: str | None = None,  # implementation of the ops while this model draws; None: as it is chosen elsewhere
        command: Sequence[str] = (),  # the command line, word by word, for the records of images
    ):
        """Raises SganError if the file is no model, or the kernels are unknown or cannot run on the device."""
        dispatch.check(kernels, torch.device(device))
        self.kernels, self.command = kernels, list(command)
        self._identity = _identity(Path(path))
        self.snapshot: Snapshot = open_model(path, device)
        self._opened = _versions(self.G)
        self._known: tuple[object, str] | None = None  # a fingerprint, and the versions of the weights that have it

    @property
    def G(self) -> Generator:
        """The generator itself. Where its weights are changed, what is made from then on has their fingerprint in place
        of the file's; changes through a weight's `.data` go unnoticed, as they do to autograd."""
        return self.snapshot.G

    @property
    def D(self) -> Discriminator | None:
        return self.snapshot.D

    @property
    def info(self) -> SnapshotInfo:
        return self.snapshot.info

    @property
    def path(self) -> Path:
        return self.snapshot.path

    @property
    def device(self) -> torch.device:
        return self.G.device

    @property
    def fingerprint(self) -> str:
        """Of the generator's weights as they are; that of the file's is kept in the folder of caches as long as the
        file is the same."""
        versions = _versions(self.G)
        if self._known is None or self._known[0] != versions:
            self._known = versions, fingerprint(self.G) if versions != self._opened else self._file_fingerprint()
        return self._known[1]

    def _file_fingerprint(self) -> str:
        if self._identity is None or self._identity != _identity(self.path):  # replaced since it was opened
            return fingerprint(self.G)
        if kept := cache.load("fingerprints", self._identity):
            return kept.about
        found = fingerprint(self.G)
        with contextlib.suppress(SganError):  # a cache that cannot be written
            cache.store("fingerprints", self._identity, {}, found)
        return found

    def chosen_kernels(self) -> contextlib.AbstractContextManager[Any]:
        """Within it the ops run as this session chose."""
        return contextlib.nullcontext() if self.kernels is None else ops.use(self.kernels)

    def drawing(
        self,
        images: Iterable[T],
    ) -> Iterator[T]:
        """The same, each made with this session's kernels; who receives them goes on with his own."""
        images = iter(images)
        while True:
            with self.chosen_kernels():
                try:
                    image = next(images)
                except StopIteration:
                    return
            yield image

    def latents(
        self,
        items: Sequence[int | str],  # seeds, and names of .npz files
        sampling: SamplingOptions,
    ) -> Latents:
        """See `collect_latents`."""
        return collect_latents(self.G, items, sampling, self.fingerprint)

    def record(
        self,
        sampling: SamplingOptions,
        **more: object,  # what else made the image; None is left out
    ) -> dict[str, str]:
        """What stands in an image's metadata, so that it can be made again."""
        return image_metadata(self.fingerprint, sampling, self.command, **more)


@dataclass(frozen=True, eq=False)
class OutputImage:
    """One image, and how it was made."""

    name: str  # of its file, without the ending
    image: Tensor  # uint8 [C, H, W]
    record: dict[str, str]  # its metadata

    def save(
        self,
        folder: str | Path,
        format: str = "png",  # or 'jpg', 'webp'
    ) -> Path:
        """Write it, whole or not at all."""
        path = Path(folder) / f"{self.name}.{format}"
        save_image(self.image, path, metadata=self.record)
        return path


@dataclass(frozen=True, eq=False, kw_only=True)
class ImagesResult:
    """What a request led to: some images, and a sheet that shows them together."""

    outputs: list[OutputImage]
    sheet: OutputImage | None
    notes: list[str] = field(default_factory=list)  # what is good to know
    warnings: list[str] = field(default_factory=list)  # what one has to know

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W]
        images = [output.image for output in self.outputs]
        return torch.stack(
            images if len({len(image) for image in images}) == 1 else [to_rgb(image[None])[0] for image in images]
        )

    def save(
        self,
        folder: str | Path,
        format: str = "png",
    ) -> list[Path]:  # of the files, the sheet's last
        """Write all of them."""
        sheet = [] if self.sheet is None else [self.sheet]
        return [output.save(folder, format) for output in (*self.outputs, *sheet)]


def part(
    kind: type[T],  # a dataclass
    request: Any,  # of a class derived from it
) -> T:
    """The part of a request that has a name of its own."""
    return kind(**{name: getattr(request, name) for name in inspect.signature(kind).parameters})


def tuned_note(
    tuned: str | None,  # see `Latents.tuned`
) -> list[str]:
    """That all images are drawn by a tuned generator, those of seeds too."""
    return [f"All images are drawn with the tuned weights in {tuned}."] if tuned else []


def _versions(G: Generator) -> list[tuple[int, int]]:
    """What is another list once a weight has been changed in place or replaced."""
    weights = G.state_dict(keep_vars=True).values()
    return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]


def _identity(path: Path) -> str | None:
    """A name for a file as it is now; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return cache.key(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino, __version__)
