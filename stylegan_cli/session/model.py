"""An open model, and the parts that all its results share."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import cache, ops
from ..data.images import encode_image, save_image, to_rgb
from ..errors import SganError
from ..files import write_atomic
from ..interop.opening import open_model
from ..models.discriminator import Discriminator
from ..models.frozen import frozen_synthesis, weight_versions
from ..models.generator import Generator
from ..ops import dispatch
from ..sampling.bound_files import Owner
from ..sampling.generate import SamplingOptions, generate_images, image_metadata, map_seeds
from ..sampling.labels import class_labels, label_metadata
from ..sampling.latent_files import Latents, collect_latents
from ..snapshot import Snapshot, SnapshotInfo, fingerprint
from ..threads import available_cores
from ..version import __version__
from .notebook import grid_png, image_html, table_html

T = TypeVar("T")


class Model:
    """A model in memory, ready to generate images."""

    def __init__(
        self,
        path: str | Path,  # a snapshot, or a checkpoint of another program
        device: torch.device | str = "cpu",
        kernels: str | None = None,  # implementation of the ops for this model; None: as chosen elsewhere
        command: Sequence[str] = (),  # command line, for the metadata of images
        any_model: bool = False,  # also accept latents, directions and tuned weights of other models
    ):
        """Open the model. Raises SganError if the file is not one, or the kernels are unknown or cannot run here."""
        dispatch.check(kernels, torch.device(device))
        self.kernels, self.command = kernels, list(command)
        self._file_state = _file_state(Path(path))
        self.snapshot: Snapshot = open_model(path, device)
        self.owner = Owner(self.info.run, self.info.origins, any_model)
        self._opened = weight_versions(self.G)
        self._synthesis = frozen_synthesis(self.G)  # kept, so that every request uses the same prepared weights
        self._cached: tuple[object, str] | None = None  # versions of the weights, and their fingerprint

    @property
    def G(self) -> Generator:
        """The generator. After its weights have been changed, results get their new fingerprint; in-place changes of
        a weight's `.data` are not detected, as in autograd."""
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
        """The fingerprint of the generator's current weights; that of an unchanged file is cached."""
        versions = weight_versions(self.G)
        if self._cached is None or self._cached[0] != versions:
            self._cached = versions, fingerprint(self.G) if versions != self._opened else self._file_fingerprint()
        return self._cached[1]

    def _file_fingerprint(self) -> str:
        if self._file_state is None or self._file_state != _file_state(self.path):  # the file was replaced
            return fingerprint(self.G)
        if entry := cache.load("fingerprints", self._file_state):
            return entry.about
        result = fingerprint(self.G)
        with contextlib.suppress(SganError):  # the cache cannot be written
            cache.store("fingerprints", self._file_state, {}, result)
        return result

    def use_kernels(self) -> contextlib.AbstractContextManager[Any]:
        """Run the ops with this model's choice of kernels."""
        return contextlib.nullcontext() if self.kernels is None else ops.use(self.kernels)

    def with_kernels(
        self,
        images: Iterable[T],
    ) -> Iterator[T]:
        """Yield the items, each computed with this model's choice of kernels, which the caller's code does not see."""
        images = iter(images)
        while True:
            with self.use_kernels():
                try:
                    image = next(images)
                except StopIteration:
                    return
            yield image

    def latents(
        self,
        items: Sequence[int | str],  # seeds and names of files of latents
        sampling: SamplingOptions,
        fallback: str | None = None,
    ) -> Latents:
        """Get latents for this model, see `collect_latents`."""
        return collect_latents(self.G, items, sampling, self.fingerprint, fallback)

    def metadata(
        self,
        sampling: SamplingOptions,
        **more: object,  # further settings; None is omitted
    ) -> dict[str, str]:
        """The metadata of an image, from which it can be reproduced."""
        notes = "; ".join(self.model_notes) or None
        sampling = dataclasses.replace(sampling, precision=sampling.precision_for(self.G))
        metadata = image_metadata(self.fingerprint, sampling, self.command, model_note=notes, **more)
        if sampling.class_index is None:
            return metadata
        labels = class_labels(sampling.class_index, [0], self.G.label_space)
        return metadata | label_metadata(None if labels is None else labels[0], self.G.label_space)

    def _repr_html_(self) -> str:
        """The model and a few of its images."""
        config = self.G.config
        size = f"{config.height} x {config.width} pixels (height x width)"
        facts = {"model": self.path.name, "family": config.title, "images": size, "kimg": f"{self.info.kimg:g}"}
        seeds = range(max(1, min(8, 2**19 // (config.height * config.width))))
        with self.use_kernels():
            sampling = SamplingOptions()
            ws = map_seeds(self.G, seeds, sampling)
            images = torch.stack(list(generate_images(self.G, lambda i, j: ws[i:j], seeds, sampling)))
        return table_html(facts | {"device": self.device}) + image_html(grid_png(images), "png")

    @property
    def model_notes(self) -> list[str]:
        """A sentence for each file of another model that was used."""
        return list(self.owner.notes.values())

    @property
    def file_settings(self) -> dict[str, Any]:
        """The settings of files of latents and directions of this model."""
        return {**self.owner.settings(self.path), "command": self.command}


@dataclass(frozen=True, eq=False)
class OutputImage:
    """One image with its metadata."""

    name: str  # of its file, without extension
    image: Tensor  # uint8 [C, H, W]
    metadata: dict[str, str]

    def save(
        self,
        folder: str | Path,
        format: str = "png",  # or 'jpg', 'webp'
    ) -> Path:
        """Write the image atomically."""
        path = Path(folder) / f"{self.name}.{format}"
        save_image(self.image, path, metadata=self.metadata)
        return path

    def _repr_png_(self) -> bytes:
        return encode_image(self.image, "png", self.metadata)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImagesResult:
    """The result of a request: images, and a sheet that shows them together."""

    outputs: list[OutputImage]
    sheet: OutputImage | None
    notes: list[str] = field(default_factory=list)  # useful information
    warnings: list[str] = field(default_factory=list)  # important information

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
    ) -> list[Path]:  # the sheet last
        """Write all images and the sheet."""
        sheet = [] if self.sheet is None else [self.sheet]
        return list(save_outputs((*self.outputs, *sheet), folder, format))

    def _repr_png_(self) -> bytes:
        return grid_png(self.images) if self.sheet is None else encode_image(self.sheet.image, "png")


def save_outputs(
    outputs: Iterable[OutputImage],
    folder: str | Path,
    format: str = "png",
) -> Iterator[Path]:
    """Encode and write images on other threads while the next ones are computed, and yield their paths.

    They are encoded in parallel and written in order. Few are waiting at a time; after Ctrl-C those are still written.
    After an error, none is. Raises as `save_image`.
    """
    threads, failed = available_cores(), []
    waiting: deque[Future[Path]] = deque()

    def write(encoded: Future[bytes], path: Path) -> Path:
        try:
            content = encoded.result()
            if not failed:
                write_atomic(path, content)
        except BaseException:
            failed.append(path)
            raise
        return path

    with ThreadPoolExecutor(threads) as encoders, ThreadPoolExecutor(1) as writer:
        for output in outputs:
            encoded = encoders.submit(encode_image, output.image, format, output.metadata)
            waiting.append(writer.submit(write, encoded, Path(folder) / f"{output.name}.{format}"))
            while len(waiting) > 2 * threads or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def upcast(
    kind: type[T],  # a dataclass
    request: Any,  # instance of a class derived from it
) -> T:
    """The fields of a request that belong to its base class, as an instance of that class."""
    return kind(**{name: getattr(request, name) for name in inspect.signature(kind).parameters})


def tuned_note(
    tuned: str | None,  # see `Latents.tuned`
) -> list[str]:
    """A note that all images come from a tuned generator, if so."""
    return [f"All images are generated with the tuned weights in {tuned}."] if tuned else []


def _file_state(path: Path) -> str | None:
    """A key for the current state of a file; None if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return cache.key(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino, __version__)
