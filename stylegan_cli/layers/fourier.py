"""Fourier features as the input of a generator (Karras et al. 2021, section 3.1, appendix F.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .initial import normal
from .linear import EqualLinear


class FourierInput(nn.Module):
    """x = W a sin(2 pi (f p + phi)) / sqrt(C) at every pixel p, with fixed frequencies f and phases phi, which a
    transform, and a latent, can rotate and move."""

    def __init__(
        self,
        channels: int,
        height: int,  # in pixels, with those beyond the edges of the image
        width: int,
        rate: int,  # samples per side of the nominal resolution
        cutoff: float,  # highest frequency, in cycles per side of the nominal resolution
        sides: tuple[float, float],  # width and height of the image in sides of the nominal resolution
        w_dim: int | None = None,  # None: there is no latent
        moves: bool = True,  # with a latent: whether it moves the waves; else only a transform does
    ):
        super().__init__()
        self.height, self.width, self.rate, self.cutoff = height, width, rate, cutoff
        self.sides, self.moves = sides, moves and w_dim is not None
        self.freqs: Tensor
        self.phases: Tensor
        self.register_buffer("freqs", _frequencies(channels, cutoff))
        self.register_buffer("phases", torch.empty(channels).uniform_(-0.5, 0.5))
        self.weight = nn.Parameter(normal(channels, channels))
        if w_dim is None:
            return
        self.affine = EqualLinear(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            assert self.affine.bias is not None
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(
        self,
        w: Tensor,  # [N, w_dim]; only N matters where no latent moves the waves
        transform: Tensor | None,  # [3, 3] or [N, 3, 3], inverse of the image's motion in image widths; None: identity
    ) -> Tensor:  # [N, C, height, width]
        m = self._motion(w)
        m = m if transform is None else m @ self._in_nominal_sides(transform.to(m))
        freqs = self.freqs @ m[:, :2, :2]  # [N, C, 2]
        phases = self.phases + m[:, :2, 2] @ self.freqs.t()  # [N, C]
        # Frequencies that a transform moves out of the band fade out.
        fade = 1 - (freqs.norm(dim=2) - self.cutoff) / max(self.rate / 2 - self.cutoff, 1e-6)
        amplitudes = fade.clamp(0, 1)  # [N, C]
        x, y = (self._positions(n, m) for n in (self.width, self.height))
        cycles = freqs[:, None, None, :, 0] * x[:, None] + freqs[:, None, None, :, 1] * y[:, None, None]
        waves = (2 * math.pi * (cycles + phases[:, None, None])).sin() * amplitudes[:, None, None]  # [N, H, W, C]
        mixed = waves @ (self.weight / math.sqrt(len(self.weight))).t()
        return mixed.permute(0, 3, 1, 2)

    def _motion(self, w: Tensor) -> Tensor:  # [N, 3, 3]
        """The rotation and translation of the latents: rotate(r) translate(-t)."""
        if not self.moves:
            return torch.eye(3, dtype=self.freqs.dtype, device=self.freqs.device).expand(w.shape[0], 3, 3)
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rows = (cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y, zero, zero, one)
        return torch.stack(rows, 1).reshape(-1, 3, 3)

    def _in_nominal_sides(self, transform: Tensor) -> Tensor:  # [3, 3] or [N, 3, 3]
        """The transform with a translation in sides of the nominal resolution instead of image widths and heights."""
        x, y, one = transform[..., 2].unbind(-1)
        moved = torch.stack([x * self.sides[0], y * self.sides[1], one], -1)
        return torch.cat([transform[..., :2], moved.unsqueeze(-1)], -1)

    def _positions(self, count: int, like: Tensor) -> Tensor:  # [count], in widths of the nominal image
        i = torch.arange(count, device=like.device, dtype=like.dtype)
        return (i + (0.5 - count / 2)) / self.rate


def _frequencies(channels: int, cutoff: float) -> Tensor:  # [C, 2]
    """Uniform over the disc of the band: the radius of a normal vector has the distribution 1 - exp(-r^2 / 2)."""
    direction = normal(channels, 2)
    if direction.is_meta:
        return direction
    radius = direction.norm(dim=1, keepdim=True)
    return direction / radius * (-radius.square() / 4).exp() * cutoff
