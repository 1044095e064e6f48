"""Self-attention over the pixels of features (Zhang et al. 2019, "Self-Attention Generative Adversarial Networks",
equations 1 to 3).

beta_ji = softmax_i(f(x_i)^T g(x_j)),   o_j = v(sum_i beta_ji h(x_i)),   y = gamma o + x
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .spectral import SpectralConv2d


class SelfAttention(nn.Module):
    def __init__(
        self,
        channels: int,
        pooled: bool = False,  # as in BigGAN: each 2 x 2 pixels have one key and value, and values have C / 2 channels
        spectral: bool = True,  # whether the convolutions have spectral normalization
    ):
        super().__init__()
        keys = max(channels // 8, 1)
        values = max(channels // 2, 1) if pooled else keys
        self.pooled = pooled
        self.query = SpectralConv2d(channels, keys, 1, bias=False, spectral=spectral)  # g
        self.key = SpectralConv2d(channels, keys, 1, bias=False, spectral=spectral)  # f
        self.value = SpectralConv2d(channels, values, 1, bias=False, spectral=spectral)  # h
        self.out = SpectralConv2d(values, channels, 1, bias=False, spectral=spectral)  # v
        self.gamma = nn.Parameter(torch.zeros([]))

    def forward(
        self,
        x: Tensor,  # [N, C, H, W]
    ) -> Tensor:  # [N, C, H, W]
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.pooled:
            key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
        weights = torch.softmax(query.flatten(2).mT @ key.flatten(2), 2)  # [N, H W, keys]
        found = value.flatten(2) @ weights.mT  # [N, values, H W]
        return x + self.gamma.to(x.dtype) * self.out(found.unflatten(2, x.shape[2:]))
