"""Metrics: the Fréchet distance, Inception features with their moments, and FID from images to the number.

python benchmarks/bench_metrics.py --weights inception.pth
python benchmarks/bench_metrics.py --part frechet --rounds 3

'scipy' takes the root of the product with scipy.linalg.sqrtm, 'eigenvalues' uses those of the nonsymmetric product.
'torch-fidelity' is that package on the same images and weights, if it is installed. Without --weights they are random.
With OMP_NUM_THREADS=1 the clock is process time.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import click
import numpy as np
import torch
from _harness import Bench, benchmark
from torch import Tensor

from stylegan_cli.data.dataset import Dataset, open_dataset
from stylegan_cli.data.images import save_image
from stylegan_cli.detectors import inception, load_detector
from stylegan_cli.detectors.frozen import wanted_shapes
from stylegan_cli.metrics.frechet import frechet_distance
from stylegan_cli.metrics.measure import compare_images
from stylegan_cli.metrics.metric import Settings
from stylegan_cli.metrics.passes import Want, look
from stylegan_cli.metrics.registry import resolve

PARTS = ("frechet", "features", "fid")
FIDELITY = "torch-fidelity"


@click.command()
@click.option("--part", type=click.Choice(PARTS), multiple=True, default=PARTS, show_default=True)
@click.option("--dims", default=2048, show_default=True, help="Number of features for the Fréchet distance.")
@click.option("--num", default=256, show_default=True, help="Number of images in each dataset.")
@click.option("--size", default=64, show_default=True, help="Image size.")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Inception weights as used by torch-fidelity.",
)
@benchmark
@torch.no_grad()
def main(bench: Bench, part, dims: int, num: int, size: int, weights: Path | None) -> None:
    if "frechet" in part:
        time_frechet(bench, dims)
    if {"features", "fid"} & set(part):
        with tempfile.TemporaryDirectory() as folder:
            weights = weights or random_weights(Path(folder))
            a, b = (random_dataset(Path(folder) / name, num, size, seed) for seed, name in enumerate("ab"))
            if "features" in part:
                time_features(bench, a, weights)
            if "fid" in part:
                time_fid(bench, a, b, weights)


# ---------------------------------------------------------------------------------------------- Fréchet


def time_frechet(bench: Bench, dims: int) -> None:
    """Use covariances with a spectrum like that of features, and a known distance: the second distribution is the
    first one mapped by x -> A x + 1 with A symmetric and positive, so d² = D + tr (A - 1) C (A - 1)."""
    identity = torch.eye(dims, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64)).Q
    cov = q * torch.logspace(0, -5, dims, dtype=torch.float64) @ q.T
    p = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64)).Q
    A = p * torch.linspace(0.7, 1.4, dims, dtype=torch.float64) @ p.T
    other = A @ cov @ A
    moments = torch.zeros_like(cov[0]), (cov + cov.T) / 2, torch.ones_like(cov[0]), (other + other.T) / 2
    truth = dims + ((A - identity) @ cov @ (A - identity)).trace()
    bench.row(
        f"Fréchet distance, {dims} features",
        {name: lambda i, f=f: torch.tensor([f(*moments)], dtype=torch.float64) for name, f in distances().items()},
        exact=lambda: truth,
        plain=lambda: truth,
        dtype=torch.float64,
        tolerance=1e-9,
        op="frechet",
        size=dims,
    )


def distances() -> dict[str, Callable[..., float]]:
    """Implementations that differ in the trace of the matrix root."""
    functions = {"ours": frechet_distance}
    try:
        linalg = importlib.import_module("scipy.linalg")
        functions["scipy"] = functools.partial(distance_by_trace, lambda product: np.trace(linalg.sqrtm(product)).real)
    except ImportError:
        print("scipy cannot be imported and is skipped")
    functions["eigenvalues"] = functools.partial(
        distance_by_trace, lambda product: np.sqrt(np.linalg.eigvals(product).astype(complex)).real.sum()
    )
    return functions


def distance_by_trace(
    trace: Callable[[np.ndarray], float],  # trace of the root of a matrix
    mean_a: Tensor,
    cov_a: Tensor,
    mean_b: Tensor,
    cov_b: Tensor,
) -> float:
    constant = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()
    return float(constant) - 2 * float(trace(cov_a.numpy() @ cov_b.numpy()))


# ------------------------------------------------------------------------------------------ from images


def time_features(bench: Bench, data: Dataset, weights: Path) -> None:
    """Time from uint8 images in memory to mean and covariance, the main cost of an evaluation."""
    images = data.images(range(len(data)))
    want = Want("moments", "pool", len(data))

    def ours(i):
        detector = load_detector("inception-2015", bench.device, weights)
        settings = Settings(bench.device, batch=64 if bench.cuda else 8)
        moments = look(InMemory(images, bench.device), [want], detector, settings, "")[want]
        return moments["mean"], moments["cov"]

    runs = {"ours": ours}
    if fidelity := load_fidelity():
        runs[FIDELITY] = lambda i: fidelity_moments(fidelity, images, weights, bench.device)
    bench.row(
        f"Inception features and moments, {len(data)} images of {data.spec.height}",
        runs,
        exact=lambda: fidelity_moments(fidelity, images, weights, bench.device, "float64") if fidelity else ours(0),
        plain=lambda: runs.get(FIDELITY, ours)(0),
        dtype=torch.float32,
        tolerance=1e-4,
        op="features",
        size=data.spec.height,
    )


def time_fid(bench: Bench, a: Dataset, b: Dataset, weights: Path) -> None:
    """Time the whole computation, with an empty cache."""

    def ours(i):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SGAN_CACHE"] = folder
            metrics = compare_images(resolve(["fid"], detector_file=weights), a, b, bench.device)
        return torch.tensor(list(metrics.values.values()), dtype=torch.float64)

    runs = {"ours": ours}
    if fidelity := load_fidelity():
        runs[FIDELITY] = lambda i: fidelity_fid(fidelity, a, b, weights, bench.device)
    bench.row(
        f"FID of {len(a)} and {len(b)} images of {a.spec.height}",
        runs,
        exact=lambda: fidelity_fid(fidelity, a, b, weights, bench.device, "float64") if fidelity else ours(0),
        plain=lambda: runs.get(FIDELITY, ours)(0),
        dtype=torch.float32,
        tolerance=1e-4,
        op="fid",
        size=a.spec.height,
    )


class InMemory:
    """Images of a pass."""

    def __init__(self, images: Tensor, device: torch.device):
        self.images, self.device = images, device

    def __call__(self, index: Tensor) -> Tensor:
        return self.images[index].to(self.device)

    def check(self) -> None:
        pass


def random_dataset(
    folder: Path,
    num: int,
    size: int,
    seed: int,
) -> Dataset:
    """Coarse color patches with fine noise."""
    rng = np.random.RandomState(seed)
    for i in range(num):
        patches = rng.randint(0, 200, (3, 4, 4)).repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)[:, :size, :size]
        save_image((patches + rng.randint(0, 56, patches.shape)).astype(np.uint8), folder / f"{i}.png")
    return open_dataset(folder)


def random_weights(
    folder: Path,
) -> Path:
    """Random weights that keep the scale of a signal, in a file like torch-fidelity's."""
    with torch.device("meta"):
        shapes = wanted_shapes(inception.Inception())
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.randn(shape) * ((2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1)
        if name.endswith(("running_var", "bn.weight")):
            tensors[name] += 1
    tensors |= {n.replace("running_var", "num_batches_tracked"): torch.tensor(0) for n in shapes if "_var" in n}
    torch.save(tensors, folder / "inception.pth")
    return folder / "inception.pth"


# ------------------------------------------------------------------------------------------- torch-fidelity


def load_fidelity() -> ModuleType | None:
    """Import torch-fidelity, with a mock if torchvision is missing or broken: the parts that need it are not used."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            sys.modules[f"torchvision{name}"] = MagicMock()
    try:
        return importlib.import_module("torch_fidelity")
    except ImportError as e:
        print(f"torch-fidelity cannot be imported and is skipped: {e}")
        return None


def fidelity_moments(
    fidelity: ModuleType,
    images: Tensor,  # uint8 [N, 3, H, W]
    weights: Path,
    device: torch.device,
    dtype: str = "float32",
) -> tuple[Tensor, Tensor]:
    extractor = fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=weights, feature_extractor_internal_dtype=dtype
    ).to(device)
    features = torch.cat([extractor(batch.to(device))[0].cpu() for batch in images.split(64)])
    statistics = fidelity.metric_fid.fid_features_to_statistics(features)
    return torch.from_numpy(statistics["mu"]), torch.from_numpy(statistics["sigma"])


class FidelityDataset(torch.utils.data.Dataset):
    """A dataset in the form that torch-fidelity expects."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Tensor:
        return self.dataset.images([i])[0]


def fidelity_fid(
    fidelity: ModuleType, a: Dataset, b: Dataset, weights: Path, device: torch.device, dtype: str = "float32"
) -> Tensor:
    metrics = fidelity.calculate_metrics(
        input1=FidelityDataset(b),
        input2=FidelityDataset(a),
        fid=True,
        cuda=device.type == "cuda",
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no worker processes: the images are in memory
        feature_extractor_weights_path=str(weights),
        feature_extractor_internal_dtype=dtype,
    )
    return torch.tensor([metrics["frechet_inception_distance"]], dtype=torch.float64)


if __name__ == "__main__":
    main()
