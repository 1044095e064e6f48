"""Encoding: latents of images, predicted in one go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.codec import CROPS, padding
from ..data.images import encode_image, to_uint8
from ..data.opening import open_source
from ..errors import SganError
from ..interop.encoders import has_encoder
from ..interop.encoders import open_encoder as open_foreign_encoder
from ..inversion.projector import ProjectedLatents
from ..inversion.results import SHEET, Projection, comparison_sheet, output_paths, psnr, save_projection
from ..inversion.targets import TargetReader, read_targets
from ..models.config import ImageConfig
from ..models.encoders.passes import encode
from ..models.frozen import frozen_synthesis
from ..progress import Progress, silent
from ..sampling import checks
from ..sampling.bound_files import check_model
from ..sampling.encoders import Encoder, find_encoder, how_to_make, load_encoder
from ..sampling.generate import SamplingOptions
from ..sampling.latent_files import save_latents, target_names
from .model import Model

_BATCH = 64  # images of 64 x 64 pixels at a time; fewer of larger ones


@dataclass(frozen=True)
class EncodeRequest:
    """The images to encode."""

    images: Sequence[str | Path] = ()  # files; or one folder or zip of images
    encoder: str | Path | None = None  # file or run folder; None: see `find_encoder`
    runs: str | Path = "./runs"  # where the newest one is looked for
    crop: str = "center"  # to the model's aspect ratio; 'pad': keep the whole image; or 'none'
    pad: str | None = None  # with 'pad': a color, or 'blur'; None: black
    batch: int | None = None  # images at a time; None: depends on their size

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            images=checks.list_of(checks.path(), "['face.png']"),
            encoder=checks.path(),
            runs=checks.path(),
            crop=checks.choice(*CROPS),
            pad=checks.string(),
            batch=checks.integer(1),
        )
        padding(self.crop, self.pad)
        if len(self.images) > 1 and any(is_collection(path) for path in self.images):
            raise SganError("A folder or zip has to be named alone.", hint="Name only it, or only images.")


@dataclass(frozen=True, eq=False)
class EncodeResult:
    """The latents of N images."""

    model: Model
    request: EncodeRequest
    encoder: Encoder
    names: list[str]  # [N] of the images, unique as file names; of those of a folder or zip, their names in it
    ws: Tensor  # [N, num_ws, w_dim]
    psnr: list[float]  # [N] of the reconstructions, in dB
    finding: Projection | None  # images and reconstructions; None: the images are those of a folder or zip
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def images(self) -> Tensor:  # uint8 [N, C, H, W]
        """The reconstructions. Those of a folder or zip are synthesized again by `generate` from the saved latents."""
        if self.finding is None:
            raise SganError("The images of a folder or zip are not kept.", hint="Save the latents, and generate.")
        with self.model.use_kernels():
            return self.finding.images

    def _repr_png_(self) -> bytes | None:
        if self.finding is None:
            return None
        with self.model.use_kernels():
            return encode_image(comparison_sheet(self.finding), "png")

    def save(
        self,
        folder: str | Path,
    ) -> list[Path]:
        """Write encoded.npz, enc.png and compare.png, or for a folder or zip only the latents; return their paths."""
        folder, targets = Path(folder), [str(path) for path in self.request.images]
        settings = {"encoder": self.encoder.path.name, "targets": targets, "command": self.model.command}
        owner = self.model.owner.settings(self.model.path)
        if self.finding is None:
            path = folder / "encoded.npz"
            own = {"names": self.names, "model": self.model.fingerprint, "settings": {**owner, **settings}}
            save_latents(path, self.ws, **own)
            return [path]
        metadata = self.model.metadata(SamplingOptions(), encoder=self.encoder.path.name)
        with self.model.use_kernels():
            return save_projection(
                folder, self.names, self.finding, None, self.model.fingerprint, owner, settings, metadata
            )


def is_collection(path: str | Path) -> bool:
    """Whether a path is a folder or a zip, rather than one image."""
    return os.path.isdir(path) or Path(path).suffix.lower() == ".zip"


def open_encoder(
    model: Model,
    encoder: str | Path | None,
    runs: str | Path,
    task: str | None = "invert",  # None: any of `sgan translate`
) -> Encoder:
    """Open an encoder of the model, see `find_encoder`. Raises SganError if it has another task."""
    if encoder is None and task == "invert" and (own := _in_checkpoint(model, model.path)):
        return own
    hint = how_to_make(model.G, model.path, task)
    path = find_encoder(encoder, runs, model.fingerprint, task, model.path, hint)
    if task == "invert" and (foreign := _in_checkpoint(model, path)):
        return foreign
    result = load_encoder(path, model.G, model.fingerprint)
    if result.task == "invert" if task is None else result.task != task:
        if result.task == "invert":
            raise SganError(f"{path} was not fitted for a task of translation.", hint="Use it with `sgan encode`.")
        hint = f"Use it with `sgan translate --task {result.task}`."
        raise SganError(f"{path} was fitted for the task {result.task}.", hint=hint)
    return result


def open_encoder_if_any(
    model: Model,
    encoder: str | Path | None,
    runs: str | Path,
) -> Encoder | None:
    """As `open_encoder`, but None if no encoder is named and there is none for the model."""
    if encoder is None and not has_encoder(model.path):
        try:
            encoder = find_encoder(None, runs, model.fingerprint, file=model.path)
        except SganError:
            return None
    return open_encoder(model, encoder, runs)


def _in_checkpoint(model: Model, path: Path) -> Encoder | None:
    """The encoder in a checkpoint of another program; None if the file is not one of those that have one."""
    if not has_encoder(path):
        return None
    opened = open_foreign_encoder(path, model.device)
    check_model(path, opened.model.fingerprint, model.fingerprint, {"model": str(path)})
    channels = model.G.config.channels
    if opened.E.input_channels != channels * (2 if opened.E.iterative else 1):
        raise SganError(
            f"The encoder in {path} takes sketches or class maps, not images.",
            hint="Use it from Python: stylegan_cli.interop.encoders.open_encoder",
        )
    return Encoder(opened.E, path, None, opened.notes)


def latents_of(
    model: Model,
    encoder: Encoder,
    inputs: Tensor,  # [N, inputs, H, W]
    features: list[list[Tensor]] | None = None,  # receives those for the encoder's skips, after each pass
) -> Tensor:  # [N, num_ws, w_dim]
    """Encode images, reduced or enlarged to what the encoder takes."""
    inputs = _resized(encoder, inputs)
    return encode(encoder.network, model.G, inputs, skips=encoder.skips, features=features)


@torch.no_grad()
def z_of(
    encoder: Encoder,  # with `predicts_z`
    inputs: Tensor,  # as for `latents_of`
) -> Tensor:  # [N, z_dim]
    """Encode images in Z with an encoder that predicts it."""
    return encoder.network.E(_resized(encoder, inputs))[:, 0]


def _resized(encoder: Encoder, inputs: Tensor) -> Tensor:  # [N, inputs, *input_size]
    size = encoder.network.input_size
    if inputs.shape[2:] == size:
        return inputs
    return F.interpolate(inputs, size, mode="bilinear", antialias=True, align_corners=False)


def encoding_files(
    request: EncodeRequest,
    folder: str | Path,
) -> list[Path]:
    """The files that `EncodeResult.save` will write."""
    if is_collection(request.images[0]):
        return [Path(folder, "encoded.npz")]
    pairs = output_paths(Path(folder), target_names(request.images), "encoding")
    return [*(path for pair in pairs for path in pair), Path(folder, SHEET)]


def encode_images(
    model: Model,
    request: EncodeRequest,
    progress: Progress = silent,
) -> EncodeResult:
    """Predict the latents of images. Raises SganError if there is no encoder for the model, or an image cannot be
    read; those of a folder or zip are omitted with a warning."""
    encoder = open_encoder(model, request.encoder, request.runs)
    if is_collection(request.images[0]):
        return _encode_collection(model, request, encoder, progress)
    targets = read_targets(request.images, model.info, request.crop, padding(request.crop, request.pad))
    targets = targets.to(model.device)
    step = request.batch or batch_of(model.G.config)
    ws = torch.cat([latents_of(model, encoder, part) for part in targets.split(step)])
    names = target_names(request.images)
    finding = _finding(model, names, targets, ws, encoder.network.passes)
    quality = psnr(finding).tolist()
    return EncodeResult(model, request, encoder, names, ws, quality, finding, list(encoder.notes))


def _encode_collection(model: Model, request: EncodeRequest, encoder: Encoder, progress: Progress) -> EncodeResult:
    """Encode a folder or zip in batches; only latents stay in memory."""
    source = open_source(request.images[0])
    reader = TargetReader(model.info, request.crop, padding(request.crop, request.pad))
    names, step = list(source.names), request.batch or batch_of(model.G.config)
    ws, quality, problems = [], [], {}
    progress("images", 0, len(names))
    for i in range(0, len(names), step):
        batch = names[i : i + step]
        targets, unreadable = reader.read_source(source, batch)
        problems |= unreadable
        if targets is not None:
            found = latents_of(model, encoder, targets.to(model.device))
            ws.append(found.cpu())
            quality += psnr(_finding(model, batch, targets.to(model.device), found, encoder.network.passes)).tolist()
        progress("images", min(i + step, len(names)), len(names))
    warnings = [f"Not encoded: {name}, which cannot be read: {why.rstrip('.')}." for name, why in problems.items()]
    if not ws:
        raise SganError(f"No image in {request.images[0]} can be read.", hint=warnings[0])
    names = [name for name in names if name not in problems]
    return EncodeResult(model, request, encoder, names, torch.cat(ws), quality, None, list(encoder.notes), warnings)


def _finding(model: Model, names: Sequence[str], targets: Tensor, ws: Tensor, passes: int) -> Projection:
    with torch.no_grad():
        images = frozen_synthesis(model.G)(ws)
    distance = (to_uint8(images).float() - to_uint8(targets).float()).square().mean((1, 2, 3)) / 127.5**2
    latents = ProjectedLatents(ws, None, distance, [ws], passes)
    return Projection(names, targets, latents, None, model.G, method="encoding")


def batch_of(
    images: ImageConfig,
) -> int:
    """Images of a folder or zip at a time."""
    return max(_BATCH * 64 * 64 // max(images.height * images.width, 64 * 64), 1)
