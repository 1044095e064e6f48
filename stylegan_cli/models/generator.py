"""The base class of all generators: from a latent z to w, and from w to an image. Other folders use only this."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..layers import EqualLinear, PlainLinear
from ..layers.statistics import collect_statistics, commit_statistics, discard_statistics
from .config import GeneratorConfig
from .label_space import LabelSpace
from .mapping import MappingNetwork

Noise = Literal["const", "random", "none"] | Sequence[Tensor]
FeatureFunction = Callable[[Tensor], Tensor | None]  # takes features [N, C, H, W]; those that it returns replace them


class _Found(Exception):  # noqa: N818 (not an error)
    """All features that `Synthesis.read_features` reads are known."""


@dataclass(frozen=True)
class LayerInfo:
    """A row of the layer table, which lists the layers that a latent controls in the order of computation."""

    name: str  # of the module in the generator, as in the state_dict
    kind: Literal["input", "conv", "torgb"]  # 'input': its latent moves the image, and has no styles
    w_index: int  # index of the w that controls it, below num_ws
    group: int  # style group, ascending from coarse to fine; latents of one group are mixed together
    height: int  # of its output
    width: int
    channels: int  # of its output
    noise: bool  # whether it takes a noise map [N or 1, 1, height, width]
    half: bool  # whether it runs in half precision when the caller selects half precision
    bandwidth: float | None = None  # highest frequency of its output in cycles per image; None: unlimited
    margin: int = 0  # pixels of its output beyond each edge of the image

    @property
    def path(self) -> str:
        """Name of the module in the synthesis network."""
        return self.name.removeprefix("synthesis.")


class Synthesis(nn.Module):
    """Generates images from latents. A family declares the layer table, creates its modules, and implements
    `synthesize`, which runs the layers of the table."""

    can_freeze = True  # whether each layer's latent acts by one affine map, see models/frozen.py
    is_chain = False  # whether each layer reads the result of the convolution before it, as it is
    takes_transform = False  # whether `transform` can move the input; set by the generator, from its configuration

    def __init__(
        self,
        layers: Sequence[LayerInfo],
        w_dim: int,
    ):
        super().__init__()
        self.layers, self.w_dim = tuple(layers), w_dim
        self.noise_layers = tuple(row for row in self.layers if row.noise)
        self.num_ws = max(row.w_index for row in self.layers) + 1

    def synthesize(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: dict[str, Tensor | None],  # [N or 1, 1, h, w] by the name of each layer that takes noise
        dtype: torch.dtype | None,  # half precision type for the rows with `half`; None: full precision
        transform: Tensor | None,  # [3, 3] or [N, 3, 3], see `forward`
    ) -> Tensor:  # [N, channels, height, width]
        raise NotImplementedError

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise = "const",  # or one [N or 1, 1, h, w] for each of `noise_layers`, in order
        dtype: torch.dtype | None = None,  # half precision type for the rows with `half`; None: full precision
        transform: Tensor | None = None,  # [3, 3] or [N, 3, 3] of the input: the inverse of the image's motion
        features: Mapping[str, FeatureFunction] | None = None,  # by the name of a layer in the layer table
    ) -> Tensor:  # [N, channels, height, width]
        """A transform applies to coordinates from the center of the image, x to the right and y down. Its linear part
        rotates and scales, its translation is in image widths and heights.

        `features` reads or changes the output of layers, with gradients, in the precision of each layer:

            maps = {}
            G.synthesis(ws, features={row.name: functools.partial(maps.__setitem__, row.name) for row in G.layers})
            G.synthesis(ws, features={"synthesis.b8.conv1": lambda x: x + change})

        Raises ValueError if ws, noise, transform or the name of a layer do not match the network."""
        self.check_input(ws, transform)
        with self._hooks(features) if features else contextlib.nullcontext():
            return self.synthesize(ws, self.noise_maps(noise, ws), dtype, transform)

    def read_features(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        names: Sequence[str],  # of layers in the layer table
        **options: Any,  # of `forward`
    ) -> dict[str, Tensor]:  # [N, C, h, w] by the name of the layer, in its precision
        """The outputs of layers, with gradients. Layers above the last of them are not computed. Raises as `forward`
        does."""
        found: dict[str, Tensor] = {}

        def read(name: str, x: Tensor) -> None:
            found[name] = x
            if len(found) == len(set(names)):
                raise _Found

        with contextlib.suppress(_Found):
            self(ws, features={name: functools.partial(read, name) for name in names}, **options)
        return found

    @contextlib.contextmanager
    def _hooks(self, features: Mapping[str, FeatureFunction]) -> Iterator[None]:
        """Call functions with the output of layers; other threads may use the network without them."""
        paths, thread = {row.name: row.path for row in self.layers}, threading.get_ident()
        if unknown := sorted(features.keys() - paths.keys()):
            raise ValueError(f"there is no layer {unknown[0]!r} in the layer table")

        def hook(function: FeatureFunction, layer: nn.Module, inputs: object, x: Tensor) -> Tensor | None:
            changed = function(x) if threading.get_ident() == thread else None
            return changed if changed is None else changed.to(x.dtype)

        with contextlib.ExitStack() as stack:
            for name, function in features.items():
                stack.enter_context(
                    self.get_submodule(paths[name]).register_forward_hook(functools.partial(hook, function))
                )
            yield

    def check_input(
        self,
        ws: Tensor,
        transform: Tensor | None,
    ) -> None:
        """Raise ValueError if ws or transform do not match the network, see `forward`."""
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must have shape [N, {self.num_ws}, {self.w_dim}], not {list(ws.shape)}")
        if transform is not None:
            self._check_transform(transform, len(ws))

    def _check_transform(self, transform: Tensor, count: int) -> None:
        if not self.takes_transform:
            raise ValueError("the input of this generator cannot be transformed")
        if tuple(transform.shape) not in ((3, 3), (count, 3, 3)):
            raise ValueError(f"transform must have shape [3, 3] or [{count}, 3, 3], not {list(transform.shape)}")
        if not is_similarity(transform):
            raise ValueError("transform must be a similarity: rotation, uniform scaling and translation")

    def style_weight(
        self,
        row: LayerInfo,
    ) -> Tensor:  # [styles, w_dim]
        """The effective weight of the affine map from w to a layer's styles: style = style_weight w + bias."""
        affine = self.get_submodule(f"{row.path}.affine")
        assert isinstance(affine, (EqualLinear, PlainLinear))
        return affine.weight * affine.weight_gain

    def stored_noise(
        self,
    ) -> list[Tensor]:  # [h, w] for each of `noise_layers`, in order
        """The noise maps of noise mode 'const'."""
        return [self.get_buffer(f"{row.path}.noise_const") for row in self.noise_layers]

    def noise_maps(self, noise: Noise, ws: Tensor) -> dict[str, Tensor | None]:  # [N or 1, 1, h, w] by name
        """The noise of each layer that takes noise. Raises ValueError if their number is wrong."""
        return dict(zip((row.name for row in self.noise_layers), self._noise_maps(noise, ws)))

    def _noise_maps(self, noise: Noise, ws: Tensor) -> list[Tensor | None]:
        rows = self.noise_layers
        if noise == "none":
            return [None] * len(rows)
        if noise == "random":
            return [ws.new_empty(ws.shape[0], 1, row.height, row.width).normal_() for row in rows]
        if noise == "const":
            return [stored[None, None] for stored in self.stored_noise()]
        if isinstance(noise, str) or len(noise) != len(rows):
            raise ValueError(f"noise must be 'const', 'random', 'none' or {len(rows)} tensors")
        return list(noise)


def is_similarity(
    transform: Tensor,  # [..., 3, 3]
) -> bool:
    """Whether a matrix rotates, scales all directions alike, and translates."""
    m = transform.detach().cpu().double()
    a, b, c, d = m[..., 0, 0], m[..., 0, 1], m[..., 1, 0], m[..., 1, 1]
    size = (a.square() + c.square()).sqrt()
    last_row = (m[..., 2, :] - torch.tensor([0.0, 0.0, 1.0], dtype=m.dtype)).abs().amax()
    error = torch.stack([(a - d).abs(), (b + c).abs()]).amax()
    return bool(m.isfinite().all() and size.amin() > 0 and last_row < 1e-6 and error < 1e-5 * size.amin())


class Generator(nn.Module):
    """Mapping and synthesis. G(z, c) is an image with values of about [-1, 1]."""

    def __init__(
        self,
        config: GeneratorConfig,
        synthesis: Synthesis,
        mapping: MappingNetwork,
    ):
        super().__init__()
        self.label_space = LabelSpace(config.c_dim)  # replaced by one with names if they are known
        self.config, self.synthesis, self.mapping = config, synthesis, mapping
        synthesis.takes_transform = config.takes_transform

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        return self.synthesis.layers

    @property
    def noise_layers(self) -> tuple[LayerInfo, ...]:
        return self.synthesis.noise_layers

    @property
    def num_ws(self) -> int:
        return self.synthesis.num_ws

    @property
    def device(self) -> torch.device:
        return self.mapping.w_avg.device

    def forward(
        self,
        z: Tensor,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: Noise = "const",
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # [N, channels, height, width]
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), noise=noise, dtype=dtype)

    def truncate(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        psi: float | Tensor,
        cutoff: int | None = None,  # number of ws to truncate, from the first; None: the network's default, or all
    ) -> Tensor:  # [N, num_ws, w_dim]
        """w_avg + psi (w - w_avg)"""
        return self.mapping.truncate(ws, psi, cutoff)

    def stored_noise(
        self,
    ) -> list[Tensor]:  # [h, w] for each of `noise_layers`, in order
        """The noise maps of noise mode 'const'."""
        return self.synthesis.stored_noise()

    def style_weight(
        self,
        row: LayerInfo,
    ) -> Tensor:  # [styles, w_dim]
        """The effective weight of the affine map from w to a layer's styles: style = style_weight w + bias."""
        return self.synthesis.style_weight(row)

    # ------------------------------------------------------------------------------ training statistics

    def collect_statistics(self) -> AbstractContextManager[None]:
        """See statistics.py."""
        return collect_statistics(self)

    def commit_statistics(
        self,
        count: int,  # number of images over all ranks
        reduce: Callable[[Tensor], Tensor],  # sums a tensor over all ranks
    ) -> None:
        """See statistics.py."""
        commit_statistics(self, count, reduce)

    def discard_statistics(self) -> None:
        """See statistics.py."""
        discard_statistics(self)
