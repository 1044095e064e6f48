"""R3GAN's networks in plain PyTorch with the names of its authors' program (Huang et al. 2024, figure 3).

The names are written out as that program has them, and the tables that the reader uses play no part. Weights are a
dictionary of tensors by name.
"""

import math

import torch
from torch.nn import functional as F

Z_DIM, GROUP = 8, 16  # numbers of z, channels in a group
WIDTHS = (24, 24, 16)  # of the generator's stages: 4 x 4, 8 x 8 and 16 x 16 pixels; the discriminator's in reverse

TAPS = (1.0, 3.0, 3.0, 1.0)  # the program's filter [1, 2, 1], repeated twice and added


def kernel():
    return torch.outer(torch.tensor(TAPS), torch.tensor(TAPS)) / 64


def block_shapes(path, width):
    """x + L3(act2(L2(act1(L1 x)))): twice as wide inside."""
    return {
        f"{path}.LinearLayer1.Layer.weight": (2 * width, width, 1, 1),
        f"{path}.LinearLayer2.Layer.weight": (2 * width, GROUP, 3, 3),
        f"{path}.LinearLayer3.Layer.weight": (width, 2 * width, 1, 1),
        f"{path}.NonLinearity1.Bias": (2 * width,),
        f"{path}.NonLinearity2.Bias": (2 * width,),
    }


def generator_shapes(c_dim):
    """A stage is a transition, which for the first one is a basis, and then blocks."""
    shapes = {
        "Model.MainLayers.0.Layers.0.Basis": (24, 4, 4),
        "Model.MainLayers.0.Layers.0.LinearLayer.weight": (24, 2 * Z_DIM if c_dim else Z_DIM),
        "Model.MainLayers.1.Layers.0.Resampler.Kernel": (4, 4),
        "Model.MainLayers.2.Layers.0.Resampler.Kernel": (4, 4),
        "Model.MainLayers.2.Layers.0.LinearLayer.Layer.weight": (16, 24, 1, 1),  # where the width changes
        "Model.AggregationLayer.Layer.weight": (3, 16, 1, 1),
    }
    for stage, width in enumerate(WIDTHS):
        for place in (1, 2):
            shapes |= block_shapes(f"Model.MainLayers.{stage}.Layers.{place}", width)
    return shapes | ({"Model.EmbeddingLayer.weight": (Z_DIM, c_dim)} if c_dim else {})


def discriminator_shapes(c_dim):
    """A stage is blocks, and then a transition, which for the last one is a basis."""
    shapes = {
        "Model.ExtractionLayer.Layer.weight": (16, 3, 1, 1),
        "Model.MainLayers.0.Layers.2.Resampler.Kernel": (4, 4),
        "Model.MainLayers.0.Layers.2.LinearLayer.Layer.weight": (24, 16, 1, 1),
        "Model.MainLayers.1.Layers.2.Resampler.Kernel": (4, 4),
        "Model.MainLayers.2.Layers.2.Basis.weight": (24, 1, 4, 4),
        "Model.MainLayers.2.Layers.2.LinearLayer.weight": (24 if c_dim else 1, 24),
    }
    for stage, width in enumerate(WIDTHS[::-1]):
        for place in (0, 1):
            shapes |= block_shapes(f"Model.MainLayers.{stage}.Layers.{place}", width)
    return shapes | ({"Model.EmbeddingLayer.weight": (24, c_dim)} if c_dim else {})


def weights(shapes, seed):
    """Random ones, by which features neither vanish nor explode; the filters are buffers, and always the same."""
    generator = torch.Generator().manual_seed(seed)

    def random(name, shape):
        if name.endswith("Kernel"):
            return kernel()
        fan_in = math.prod(shape[1:]) if len(shape) in (2, 4) else 1
        return torch.randn(shape, generator=generator) / math.sqrt(fan_in)

    return {name: random(name, shape) for name, shape in shapes.items()}


def block(s, path, x):
    y = F.conv2d(x, s[f"{path}.LinearLayer1.Layer.weight"]) + s[f"{path}.NonLinearity1.Bias"][:, None, None]
    y = F.leaky_relu(y, 0.2)
    w = s[f"{path}.LinearLayer2.Layer.weight"]
    y = F.conv2d(y, w, padding=1, groups=len(w) // GROUP) + s[f"{path}.NonLinearity2.Bias"][:, None, None]
    return x + F.conv2d(F.leaky_relu(y, 0.2), s[f"{path}.LinearLayer3.Layer.weight"])


def resample(s, path, x, up):
    """Twice the size by zeros and the filter, behind a 1x1 convolution; or half the size, before one."""
    f = s[f"{path}.Resampler.Kernel"][None, None]
    linear = s.get(f"{path}.LinearLayer.Layer.weight")
    if up:
        x = x if linear is None else F.conv2d(x, linear)
        return F.conv_transpose2d(x, 4 * f.expand(x.shape[1], -1, -1, -1), stride=2, padding=1, groups=x.shape[1])
    x = F.conv2d(x, f.expand(x.shape[1], -1, -1, -1), stride=2, padding=1, groups=x.shape[1])
    return x if linear is None else F.conv2d(x, linear)


def generate(s, z, c=None):  # [N, Z_DIM], [N, c_dim] -> [N, 3, 16, 16]
    w = z if c is None else torch.cat([z, c @ s["Model.EmbeddingLayer.weight"].T], 1)
    scale = w @ s["Model.MainLayers.0.Layers.0.LinearLayer.weight"].T
    x = s["Model.MainLayers.0.Layers.0.Basis"] * scale[:, :, None, None]
    for stage in range(3):
        if stage:
            x = resample(s, f"Model.MainLayers.{stage}.Layers.0", x, up=True)
        for place in (1, 2):
            x = block(s, f"Model.MainLayers.{stage}.Layers.{place}", x)
    return F.conv2d(x, s["Model.AggregationLayer.Layer.weight"])


def judge(s, image, c=None):  # [N, 3, 16, 16], [N, c_dim] -> [N]
    x = F.conv2d(image, s["Model.ExtractionLayer.Layer.weight"])
    for stage in range(3):
        for place in (0, 1):
            x = block(s, f"Model.MainLayers.{stage}.Layers.{place}", x)
        if stage < 2:
            x = resample(s, f"Model.MainLayers.{stage}.Layers.2", x, up=False)
    h = (x * s["Model.MainLayers.2.Layers.2.Basis.weight"][:, 0]).sum((2, 3))
    y = h @ s["Model.MainLayers.2.Layers.2.LinearLayer.weight"].T
    return y[:, 0] if c is None else (y * (c @ s["Model.EmbeddingLayer.weight"].T)).sum(1)
