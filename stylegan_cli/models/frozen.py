"""Synthesis with weights that do not change: what depends only on them is computed once.

A frozen network is the family's own, with other modules in its layer table: layers with a method `frozen` are replaced
by its result, all others by copies that share their weights. A frozen layer takes its style instead of w: the styles of
all layers are one batched matrix product, their demodulation factors another. On a GPU, a synthesis whose shapes have
occurred before is one CUDA graph.
"""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ..layers import EqualLinear
from ..layers.modulated import FrozenConv2d
from ..layers.statistics import RunningMean
from ..ops.dispatch import current_implementation, has_kernels
from ..ops.modulated_conv2d import demodulation, prepare_style
from .frozen_kernels import KernelStyles
from .generator import Generator, Noise, Synthesis

WARM_UP = 3  # eager runs before a graph is captured: cuDNN selects algorithms, kernels load
# Numbers of one layer that a thread of a CPU computes at a time. The C library returns the memory of large features to
# the system after each layer, which clears it for the next; where it does not, larger batches use the weights better.
FEATURES, FEATURES_IN_KEPT_MEMORY = 2**22, 2**25
GRAPHS = 4  # of one network; each owns the memory of its activations


_in_use: weakref.WeakKeyDictionary[Synthesis, weakref.ref[FrozenSynthesis]] = weakref.WeakKeyDictionary()


def frozen_synthesis(
    G: Generator,
) -> FrozenSynthesis:
    """A faster `G.synthesis` for many images; the one in use, if there is one. Whoever keeps it keeps its memory."""
    known = _in_use.get(G.synthesis)
    result = known and known()
    if result is None:
        result = FrozenSynthesis(G.synthesis)
        _in_use[G.synthesis] = weakref.ref(result)
    result.check_data()
    return result


def weight_versions(
    network: nn.Module,
) -> list[tuple[int, int]]:
    """A list that differs after a weight has been changed in place or replaced."""
    weights = network.state_dict(keep_vars=True).values()
    return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]


class FrozenSynthesis:
    """Calls like those of the synthesis network, without gradients.

    A call after a weight has been changed in place, replaced or moved uses the new weights. Only changes of a weight's
    `.data` are invisible to a call, as to autograd; `frozen_synthesis` notices those too, unless they only reorder
    values. The network itself is called where gradients are required, statistics collected, features read or changed,
    hooks registered or a `forward` replaced, where the types or devices of weights and latents differ, and where
    weights are inference tensors, whose changes nobody can see.
    """

    def __init__(self, synthesis: Synthesis):
        self.synthesis = synthesis
        self._versions: list[tuple[int, int]] | None = None
        self._weights: list[Tensor] = []  # kept, so that no other weights get their addresses
        self._checksum: Tensor | None = None
        self._networks: dict[torch.dtype | None, _Frozen] = {}

    def __call__(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        *options: Any,
        **named_options: Any,
    ) -> Tensor:  # [N, channels, height, width]
        """See `Synthesis.forward`."""
        call = self._call if not named_options.get("features") and self._can_freeze(ws) else self.synthesis
        return call(ws, *options, **named_options)

    def _call(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise = "const",
        dtype: torch.dtype | None = None,
        transform: Tensor | None = None,
        features: None = None,
    ) -> Tensor:  # [N, channels, height, width]
        self.synthesis.check_input(ws, transform)
        with torch.inference_mode(False), torch.no_grad():  # what is kept must be usable outside inference mode
            versions = weight_versions(self.synthesis)
            if versions != self._versions:
                self._networks = {}
                self._versions, self._checksum = versions, _checksum(self.synthesis)
                self._weights = list(self.synthesis.state_dict().values())
            if dtype not in self._networks:
                self._networks[dtype] = _Frozen(self.synthesis, dtype)
            return self._networks[dtype](ws, noise, transform)

    def check_data(self) -> None:
        """Notice changes that the versions of the weights do not show."""
        if self._checksum is not None and not torch.equal(self._checksum, _checksum(self.synthesis)):
            self._versions = None

    def _can_freeze(self, ws: Tensor) -> bool:
        if not isinstance(self.synthesis, Synthesis):  # a stand-in
            return False
        weights = [*self.synthesis.parameters(), *self.synthesis.buffers()]
        gradients = torch.is_grad_enabled() and any(t.requires_grad for t in (ws, *weights))
        modules = list(self.synthesis.modules())
        watched = any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in modules)
        collects = any(isinstance(m, RunningMean) and m.collecting for m in modules)
        blind = any(t.is_inference() for t in weights)
        if not self.synthesis.can_freeze:
            return False
        same = all(t.dtype == ws.dtype and t.device == ws.device for t in self.synthesis.parameters())
        return same and not (gradients or watched or collects or blind) and current_implementation() != "reference"


@torch.no_grad()
def _checksum(network: nn.Module) -> Tensor:  # [weights] int64
    """The sum of the bits of each weight. On the meta device there are none."""
    types = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    weights = [w for w in network.state_dict().values() if not w.is_meta]
    if not weights:
        return torch.zeros(0, dtype=torch.int64)
    return torch.stack([w.view(types[w.element_size()]).sum(dtype=torch.int64) for w in weights]).cpu()


class _Styles:
    """Stands for ws in `Synthesis.synthesize`: ws[:, w_index], or ws.unbind(1)[w_index], is what the frozen layer
    takes."""

    def __init__(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        rows: dict[int, Any],  # by the index of the row
    ):
        self.shape, self.dtype, self.device, self._rows = ws.shape, ws.dtype, ws.device, rows

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: tuple[slice, int]) -> Any:
        return self._rows[index[1]]

    def unbind(self, dim: int) -> dict[int, Any]:
        return self._rows


class _Frozen:
    """A frozen network."""

    def __init__(
        self,
        synthesis: Synthesis,
        dtype: torch.dtype | None,  # half precision type for the rows with `half`; None: full precision
    ):
        self.dtype, full, table = dtype, next(synthesis.parameters()).dtype, synthesis.layers
        layers = [synthesis.get_submodule(row.path) for row in table]
        dtypes = [dtype if dtype is not None and row.half else full for row in table]
        frozen = list(map(_frozen_layer, layers, dtypes))
        self.network = _copy(synthesis, dict(zip(layers, frozen, strict=True)))
        # Each row has an index of its own: what it takes is no longer a w that it shares with others.
        self.network.layers = tuple(dataclasses.replace(row, w_index=i) for i, row in enumerate(table))
        convolutions = {i: layer for i, layer in enumerate(frozen) if isinstance(layer, FrozenConv2d)}
        # The rows whose factors are computed together come first, those in half precision last among them.
        self.order = sorted(range(len(table)), key=lambda i: (i not in convolutions, dtypes[i] != full))
        affines = [(cast(EqualLinear, layers[i].affine), getattr(frozen[i], "style_gain", 1.0)) for i in self.order]
        self.affine = _Affines(affines)
        self.w_indices = torch.tensor([table[i].w_index for i in self.order], device=self.affine.weight.device)
        self.factors = _Factors([convolutions[i] for i in self.order[: len(convolutions)]]) if convolutions else None
        self.on_kernels = KernelStyles.of(synthesis, frozen, self.order)
        self.strengths = {table[i].name: layer.noise_strength for i, layer in convolutions.items()}
        self.features = max(row.height * row.width * row.channels for row in table)  # of an image, at most
        self.graphs: dict[Any, _Graph] = {}

    def __call__(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        maps = self.network.noise_maps(noise, ws)
        transform = transform if transform is None else transform.to(ws)  # a graph cannot copy it from the CPU
        if noise != "const":  # which has the strengths already
            maps = {name: _scaled(x, self.strengths.get(name)) for name, x in maps.items()}
        if ws.device.type == "cpu":
            return self._run_in_parts(ws, maps, transform)
        if ws.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return self._run(ws, maps, transform)
        changing = {} if isinstance(noise, str) and noise != "random" else maps
        inputs = {"ws": ws, "transform": transform, **changing}
        key = _settings(), noise if not changing else "", _shapes(inputs)
        graph = self.graphs.pop(key, None) or _Graph(self._run, maps)
        self.graphs[key] = graph  # the most recent last
        while len(self.graphs) > GRAPHS:
            del self.graphs[next(iter(self.graphs))]
        return graph(inputs)

    def _run_in_parts(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        maps: dict[str, Tensor | None],  # [N or 1, 1, h, w] by the name of each layer that takes noise
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        """On a CPU, see `FEATURES`."""
        count = max(FEATURES * torch.get_num_threads() // self.features, 1)
        images = []
        for i in range(0, max(len(ws), 1), count):
            part = slice(i, i + count)
            noise = {name: x if x is None or len(x) == 1 else x[part] for name, x in maps.items()}
            moved = transform if transform is None or transform.ndim == 2 else transform[part]
            images.append(self._run(ws[part], noise, moved))
        return images[0] if len(images) == 1 else torch.cat(images)

    def _run(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        maps: dict[str, Tensor | None],  # [N or 1, 1, h, w] by the name of each layer that takes noise
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        styles = self.affine(ws[:, self.w_indices].transpose(0, 1))
        if self.on_kernels and has_kernels(ws.device):
            return self._synthesize(ws, self.on_kernels(styles), maps, transform)
        rows: list[Any] = [style[:, :size] for style, size in zip(styles, self.affine.sizes, strict=True)]
        if self.factors:
            rows[: len(self.factors.layers)] = self.factors(styles)
        return self._synthesize(ws, dict(zip(self.order, rows, strict=True)), maps, transform)

    def _synthesize(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        rows: dict[int, Any],  # what each layer takes, by the index of its row
        maps: dict[str, Tensor | None],
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        return self.network.synthesize(cast(Tensor, _Styles(ws, rows)), maps, self.dtype, transform)


class _Affines:
    """The affine maps of all layers as one batched product, padded with zeros to the most features."""

    @torch.no_grad()
    def __init__(
        self,
        maps: list[tuple[EqualLinear, float]],  # and factors on their results
    ):
        first = maps[0][0].weight
        self.sizes = [len(affine.weight) for affine, _ in maps]
        self.weight = first.new_zeros(len(maps), max(self.sizes), first.shape[1])  # [L, S, w_dim]
        self.bias = first.new_zeros(len(maps), 1, max(self.sizes))  # [L, 1, S]
        for i, ((affine, gain), size) in enumerate(zip(maps, self.sizes, strict=True)):
            self.weight[i, :size] = affine.weight * (affine.weight_gain * gain)
            if affine.bias is not None:
                self.bias[i, 0, :size] = affine.bias * (affine.lr_multiplier * gain)

    def __call__(
        self,
        w: Tensor,  # [L, N, w_dim]
    ) -> Tensor:  # [L, N, S]
        return torch.baddbmm(self.bias, w, self.weight.mT)  # in this layout, MKL adds up in several sums


class _Factors:
    """The prepared styles and demodulation factors of all layers with demodulation, as one batched product."""

    def __init__(
        self,
        layers: list[FrozenConv2d],  # M
    ):
        self.layers, self.indices = layers, {}
        self.outputs, self.inputs = (tuple(sizes) for sizes in zip(*(layer.squares.shape for layer in layers)))
        self.squares = layers[0].squares.new_zeros(len(layers), max(self.outputs), max(self.inputs))
        for i, layer in enumerate(layers):
            self.squares[i, : self.outputs[i], : self.inputs[i]] = layer.squares

    def __call__(
        self,
        styles: Tensor,  # [L, N, S], M of them first
    ) -> list[tuple[Tensor, Tensor]]:  # style [N, I] and factors [N, O] of each
        lowest, n = self.layers[-1].dtype, styles.shape[1]
        # Normalized styles do not harm full precision: the factors cancel what is common to all.
        style = prepare_style(styles[: len(self.layers), :, : self.squares.shape[2]], lowest)
        factors = self._without_padding(demodulation(style, self.squares), self.outputs)
        style, full = self._without_padding(style, self.inputs), sum(layer.dtype != lowest for layer in self.layers)
        counts = [n * i for i in self.inputs]
        k, half = sum(counts[:full]), lowest if current_implementation() != "fused" else style.dtype  # of its operands
        parts = [*style[:k].split(counts[:full]), *style[k:].to(half).split(counts[full:])]
        factors = factors.split([n * o for o in self.outputs])
        pairs = zip(parts, self.inputs, factors, self.outputs, strict=True)
        return [(s.view(n, i), d.view(n, o)) for s, i, d, o in pairs]

    def _without_padding(
        self,
        x: Tensor,  # [M, N, S]
        sizes: tuple[int, ...],  # [M]
    ) -> Tensor:  # [N * sum of the sizes], layer by layer
        """Kernels take the numbers of a layer without gaps; this moves those of all layers at once."""
        n, width = x.shape[1:]
        if (n, sizes) not in self.indices:
            starts = torch.arange(n)[:, None] * width
            blocks = [i * n * width + starts + torch.arange(size) for i, size in enumerate(sizes)]
            self.indices[n, sizes] = torch.cat([block.flatten() for block in blocks]).to(x.device)
        return x.reshape(-1)[self.indices[n, sizes]]


class _Graph:
    """A synthesis of fixed shapes: run eagerly at first, then captured and replayed."""

    def __init__(
        self,
        run: Callable[[Tensor, dict[str, Tensor | None], Tensor | None], Tensor],
        maps: dict[str, Tensor | None],  # those that do not change
    ):
        self.run, self.maps, self.runs = run, maps, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream()  # of the eager runs and the capture: memory is cached by stream

    def __call__(
        self,
        inputs: dict[str, Tensor | None],  # ws, transform, and the noise that changes, by layer
    ) -> Tensor:
        if self.graph is None:
            self.runs += 1
            if self.runs <= WARM_UP:
                return self._eager(inputs)
            self.inputs = {name: None if x is None else x.clone() for name, x in inputs.items()}
            graph = torch.cuda.CUDAGraph()
            # A capture that fails, where memory runs out, leaves its stream current.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
            ):
                self.output = self._call(self.inputs)
            self.graph = graph
        for name, x in inputs.items():
            if x is not None:
                self.inputs[name].copy_(x)  # pyright: ignore[reportOptionalMemberAccess]
        self.graph.replay()
        return self.output.clone()

    def _call(self, inputs: dict[str, Tensor | None]) -> Tensor:
        maps = {name: inputs.get(name, x) for name, x in self.maps.items()}
        return self.run(cast(Tensor, inputs["ws"]), maps, inputs["transform"])

    def _eager(self, inputs: dict[str, Tensor | None]) -> Tensor:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = self._call(inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        result.record_stream(torch.cuda.current_stream())
        return result


def _settings() -> tuple[Any, ...]:
    """Those that a graph keeps from its capture: `ops.use` and `ops.tensor_cores`."""
    return current_implementation(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _shapes(inputs: dict[str, Tensor | None]) -> tuple[Any, ...]:
    return tuple(None if x is None else (x.shape, x.dtype) for x in inputs.values())


def _scaled(x: Tensor | None, strength: Tensor | None) -> Tensor | None:
    return x if x is None or strength is None else x * strength


def _frozen_layer(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A layer that takes what replaces w, see `_Frozen`."""
    if hasattr(layer, "frozen"):
        return layer.frozen(dtype)  # pyright: ignore[reportCallIssue]
    return _copy(layer, {layer.affine: nn.Identity()})  # pyright: ignore[reportArgumentType]


N = TypeVar("N", bound=nn.Module)


def _copy(network: N, others: dict[nn.Module, nn.Module]) -> N:
    """A copy of the modules, which share their weights with the original, with others in place of some."""
    result = copy.copy(network)
    result._modules = {
        name: others[child] if child in others else child and _copy(child, others)
        for name, child in network._modules.items()
    }
    return result
