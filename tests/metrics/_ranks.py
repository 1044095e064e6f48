"""Detectors without weights; as a script, for test_ranks.py, measures every metric with them on several ranks:

python _ranks.py DATA.zip OUT.json RANKS
"""

import json
import sys
from dataclasses import dataclass, field

import torch

from stylegan_cli import distributed
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.metrics import passes
from stylegan_cli.metrics.measure import measure
from stylegan_cli.metrics.registry import resolve
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config

SIZES = {
    "inception-2015": {"pool": 12, "logits": 7},
    "vgg16": {"fc2": 10},
    "efficientnet-lite0": {"pool": 9},
}
METRICS = ("fid", "kid", "pr", "dc", "is", "ppl", "fid50k")


@dataclass
class FakeDetector:
    """Each feature is a smooth function of the colors of one image."""

    name: str
    is_standard: bool = True
    fingerprint: str = "01234567"
    seen: list[int] = field(default_factory=list)  # number of images of each call

    def __call__(self, images):
        assert images.dtype == torch.uint8 and images.shape[1] == 3 and len(images)
        self.seen.append(len(images))
        x = torch.nn.functional.adaptive_avg_pool2d(images.double() / 64, 4).flatten(1)
        generator = torch.Generator().manual_seed(3)
        out = {}
        for key, size in SIZES[self.name].items():
            weight = torch.randn(size, x.shape[1], generator=generator, dtype=torch.float64)
            out[key] = (torch.einsum("nd,kd->nk", x, weight) / 4).sin().float()
        return out


@dataclass
class FakeLpips:
    """Squared distance of images reduced by half."""

    is_standard: bool = True
    fingerprint: str = "89abcdef"

    def __call__(self, a, b):
        assert a.is_floating_point() and a.shape == b.shape and a.shape[1] == 3
        return torch.nn.functional.avg_pool2d((a - b).double(), 2).square().mean((1, 2, 3)).float()


def tiny_generator(size=(16, 16), channels=3, c_dim=0):
    torch.manual_seed(5)
    config = StyleGAN2Config(*size, channels, 8, c_dim, 8, 2, channel_base=64, channel_max=8)
    G = build_generator(config).eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.3)
    return G


def synthesize_separately(G):
    """Make the model generate each image of a batch separately: on some processors rounding depends on the batch size,
    so that a byte of an image sometimes differs."""
    mapping, synthesis = G.mapping.forward, G.synthesis.forward
    G.mapping.forward = lambda z, c=None, *more: torch.cat([mapping(x, c, *more) for x in z.split(1)])
    G.synthesis.forward = lambda ws, noise: torch.cat(
        [synthesis(w, noise=[n[i : i + 1] for n in noise]) for i, w in enumerate(ws.split(1))]
    )
    return G


def work(path, out):
    passes.load_detector = lambda name, device, file=None: FakeDetector(name)
    passes.load_lpips = lambda net, device, file=None: FakeLpips()
    data = open_dataset(path, mirror=True)
    G = synthesize_separately(tiny_generator((16, 16)))
    results = measure(resolve(METRICS, num=30, batch=4), G, data, "cpu")
    values = [results.values, results.deviations]
    flat = torch.tensor([v for part in values for v in part.values()], dtype=torch.float64)
    same = distributed.same_on_all_ranks([flat])
    if distributed.rank() == 0:
        summary = {"values": values, "same": same, "world": distributed.world_size()}
        with open(out, "w") as f:
            json.dump(summary, f)


if __name__ == "__main__":
    distributed.launch(work, (sys.argv[1], sys.argv[2]), int(sys.argv[3]))
