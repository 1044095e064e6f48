"""Pickles of the TensorFlow programs: StyleGAN2 (version 4) and StyleGAN2-ADA (version 5).

Three networks (G, D, and Gs, the moving average of G), each a dictionary with its source, which stays unread, its
arguments, its parts and its variables. Dense weights are [in, out], those of convolutions [k, k, in, out]; the
architecture is read off the variables' names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..config import DiscriminatorConfig, GeneratorConfig
from ..pickled import Part, PickleError, read_pickle
from .foreign import Foreign, FormatError, Loadable, Made, Names, channel_widths, ours, shape_of
from .tensors import Array, plain_name

_MODERN = 5  # the version that StyleGAN2-ADA writes; some defaults changed with it
_LEVELS = 10  # above the lowest, at most


class Network:
    """A network as its state; its source is not looked at."""

    def __init__(self, *_: Any):
        self.state: dict = {"variables": []}

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict) or not isinstance(state.get("variables"), list):
            raise PickleError("a network of it has another form than TensorFlow's StyleGANs")
        self.state = state

    @property
    def version(self) -> int:
        found = self.state.get("version")
        return found if type(found) is int else 0

    @property
    def arguments(self) -> dict[str, Any]:
        found = self.state.get("static_kwargs")
        return found if isinstance(found, dict) else {}

    def variables(self, *parts: str) -> dict[str, Loadable]:
        """By their names, those of its parts too."""
        pairs = [pair for pair in self.state["variables"] if type(pair) in (tuple, list) and len(pair) == 2]
        found = {name: _loadable(value) for name, value in pairs if type(name) is str}
        components = self.state.get("components")
        for part in parts if isinstance(components, dict) else ():
            if isinstance(components.get(part), Network):
                found |= {f"{part}/{name}": value for name, value in components[part].variables().items()}
        return {name: value for name, value in found.items() if value is not None}


def known(module: str, name: str) -> Any:
    """What a name in such a pickle means. Raises FormatError for those of a format that is known and not read."""
    if (module, name) == ("dnnlib.tflib.network", "Network"):
        return Network
    if (module, name) == ("tfutil", "Network"):
        raise FormatError("it is a progressive GAN of 2017, which there is no model for")
    return plain_name(module, name)


def read_tensorflow(file: Part) -> Foreign:
    """Raises PickleError and FormatError."""
    tree = read_pickle(file, known, parts=True)
    if type(tree) not in (tuple, list) or len(tree) != 3 or not all(isinstance(part, Network) for part in tree):
        raise PickleError("it holds not the three networks G, D and Gs")
    _, D, G = tree
    weights = G.variables("mapping", "synthesis")
    if G.version < 4 or any("/StyleMod/" in name for name in weights):
        raise FormatError("it is a StyleGAN of 2018, which there is no model for yet")
    generator, tensors = generator_of(G, weights)
    notes = ["The weights of G itself, which its moving average Gs was made of, are left out."]
    try:
        discriminator, d_tensors = discriminator_of(D, generator)
    except FormatError as e:  # the generator is worth having without
        discriminator, d_tensors = None, {}
        notes.append(f"The discriminator is left out: {e}.")
    if any("ToRGB_lod1/" in name for name in weights):
        notes.append("The outputs at lower resolutions, which only a growing network needs, are left out.")
    if "synthesis/noise0" not in weights:
        notes.append("Its network has no noise: ours has noise of strength zero.")
    name = "StyleGAN2-ADA TensorFlow pickle" if G.version >= _MODERN else "StyleGAN2 TensorFlow pickle"
    return Foreign(name, generator, tensors, discriminator, d_tensors, notes=tuple(notes))


def generator_of(
    G: Network,
    weights: dict[str, Loadable],
) -> tuple[GeneratorConfig, dict[str, Loadable]]:
    told, levels = Arguments(G), _levels(weights, r"synthesis/(\d+)x\1/Conv1/bias")
    told.must(mapping_nonlinearity="lrelu", nonlinearity="lrelu", normalize_latents=True)
    lod = weights.get("synthesis/lod", weights.get("lod"))
    if lod is not None and lod.size == () and float(lod.load()) != 0:
        raise FormatError("its network was still growing when it was written, and ours do not grow")
    top, label = max(levels), next((n for n in ("LabelEmbed", "LabelConcat") if f"mapping/{n}/weight" in weights), None)
    to_rgb = "ToRGB_lod0" if "synthesis/ToRGB_lod0/bias" in weights else f"{top}x{top}/ToRGB"
    c_dim, embedded = shape_of(weights, f"mapping/{label}/weight", 2) if label else (0, 0)
    config = GeneratorConfig(
        top,
        top,
        channels=shape_of(weights, f"synthesis/{to_rgb}/bias", 1)[0],
        z_dim=shape_of(weights, "mapping/Dense0/weight", 2)[0] - embedded,
        c_dim=c_dim,
        w_dim=shape_of(weights, "dlatent_avg", 1)[0],
        mapping_layers=_count(weights, r"mapping/Dense\d+/bias"),
        mapping_lr=told.number("mapping_lrmul", 0.01),
        labels="concat" if label == "LabelConcat" else "embed",
        architecture=_architecture(weights, f"synthesis/{top}x{top}/Skip/weight", "synthesis/4x4/ToRGB/weight"),
        w_avg_beta=told.number("dlatent_avg_beta", 0.995, none=1.0),
        **told.of_convolutions(),
        **channel_widths({r: shape_of(weights, f"synthesis/{_first(r)}/bias", 1)[0] for r in (4, *levels)}),
    )
    widths = {shape_of(weights, f"mapping/Dense{i}/bias", 1)[0] for i in range(config.mapping_layers)}
    if widths != {config.w_dim} or (label == "LabelEmbed" and embedded != config.w_dim):
        raise FormatError("its mapping network has layers of several widths, which ours has not")
    if "synthesis/noise0" not in weights:
        weights = weights | _no_noise(levels)
    return config, ours(_generator_names(config, levels, to_rgb), weights, _is_of_growing)


def discriminator_of(
    D: Network,
    generator: GeneratorConfig,  # of the same file
) -> tuple[DiscriminatorConfig, dict[str, Loadable]]:
    weights, told = D.variables(), Arguments(D)
    levels = _levels(weights, r"(\d+)x\1/Conv0/bias")
    told.must(nonlinearity="lrelu")
    top, labels = max(levels), "projection" if "LabelEmbed/weight" in weights else "dot"
    from_rgb = "FromRGB_lod0" if "FromRGB_lod0/bias" in weights else f"{top}x{top}/FromRGB"
    _, _, seen, lowest = shape_of(weights, "4x4/Conv/weight", 4)
    features, scores = shape_of(weights, "Output/weight", 2)
    if (
        {features, *shape_of(weights, "LabelEmbed/bias", 1)} != {lowest}
        if labels == "projection"
        else features != lowest
    ):
        raise FormatError("its last layers have several widths, which ours have not")
    if scores != (generator.c_dim or 1) and labels == "dot":
        raise FormatError(f"it gives {scores} numbers for a picture")
    config = DiscriminatorConfig(
        top,
        top,
        channels=shape_of(weights, f"{from_rgb}/weight", 4)[2],
        c_dim=generator.c_dim,
        labels=labels if generator.c_dim else "projection",
        mapping_layers=_count(weights, r"Mapping\d+/bias") if generator.c_dim and labels == "projection" else 8,
        mapping_lr=told.number("mapping_lrmul", 0.1),
        architecture=_architecture(weights, f"{top}x{top}/Skip/weight", "4x4/FromRGB/weight"),
        mbstd_group=told.whole("mbstd_group_size", None if D.version >= _MODERN else 4) or None,
        mbstd_channels=seen - lowest,
        **told.of_convolutions(),
        **channel_widths(
            {r: shape_of(weights, f"{'4x4/Conv' if r == 4 else f'{r}x{r}/Conv0'}/bias", 1)[0] for r in (4, *levels)}
        ),
    )
    return config, ours(_discriminator_names(config, levels, from_rgb), weights, _is_of_growing)


class Arguments:
    """What a network was built with, where its variables don't tell."""

    def __init__(self, network: Network):
        self.values = network.arguments

    def must(self, **wanted: Any) -> None:
        for name, value in wanted.items():
            found = self.values.get(name, value)
            if type(found) is not type(value) or found != value:
                said = found[:40] if type(found) is str else "another"
                raise FormatError(f"its {name} is {said}, which ours has not")

    def number(self, name: str, otherwise: float | None, none: float | None = None) -> float | None:
        """`none` is what None means."""
        value = self.values.get(name, otherwise)
        value = none if value is None else value
        if value is not None and (type(value) not in (int, float) or not 0 <= value < 1e6):
            raise PickleError(f"its {name} is no number that makes sense")
        return None if value is None else float(value)

    def whole(self, name: str, otherwise: int | None) -> int | None:
        value = self.number(name, otherwise)
        return None if value is None else int(value)

    def of_convolutions(self) -> dict[str, Any]:
        taps = self.values.get("resample_kernel", [1, 3, 3, 1])
        taps = [1, 1] if taps is None else taps
        if type(taps) not in (list, tuple) or not all(type(t) in (int, float) for t in taps):
            raise PickleError("its resample_kernel is no filter that makes sense")
        return {
            "fir": tuple(float(t) for t in taps),
            "half_levels": self.whole("num_fp16_res", 0),
            "conv_clamp": self.number("conv_clamp", None),
        }


def _generator_names(config: GeneratorConfig, levels: list[int], to_rgb: str) -> Names:
    names: Names = {"mapping.w_avg": ("dlatent_avg", None), "synthesis.b4.const": ("synthesis/4x4/Const/const", _only)}
    if config.labels == "concat":  # as many ones as classes, without the scale that ours divides by
        names["mapping.embed.weight"] = ("mapping/LabelConcat/weight", lambda w: w.t() * math.sqrt(len(w)))
    elif config.c_dim:
        names |= _dense("mapping.embed", "mapping/LabelEmbed")
    for i in range(config.mapping_layers):
        names |= _dense(f"mapping.fc{i}", f"mapping/Dense{i}")
    names |= _styled("b4.conv1", "4x4/Conv", 0)
    for k, level in enumerate(levels):
        names |= _styled(f"b{level}.conv0", f"{level}x{level}/Conv0_up", 2 * k + 1, _flipped)
        names |= _styled(f"b{level}.conv1", f"{level}x{level}/Conv1", 2 * k + 2)
        if config.architecture == "resnet":
            names[f"synthesis.b{level}.skip.weight"] = (f"synthesis/{level}x{level}/Skip/weight", _kernel)
    for level in (4, *levels) if config.architecture == "skip" else ():
        names |= _modulated(f"b{level}.torgb", f"{level}x{level}/ToRGB")
    return names | _modulated(f"b{max(levels)}.torgb", to_rgb)


def _discriminator_names(config: DiscriminatorConfig, levels: list[int], from_rgb: str) -> Names:
    names: Names = _dense("b4.fc", "4x4/Dense0") | _dense("b4.out", "Output") | _convolution("b4.conv", "4x4/Conv")
    for level in (4, *levels) if config.architecture == "skip" else ():
        names |= _convolution(f"b{level}.fromrgb", f"{level}x{level}/FromRGB")
    names |= _convolution(f"b{max(levels)}.fromrgb", from_rgb)
    for level in levels:
        names |= _convolution(f"b{level}.conv0", f"{level}x{level}/Conv0")
        names |= _convolution(f"b{level}.conv1", f"{level}x{level}/Conv1_down")
        if config.architecture == "resnet":
            names[f"b{level}.skip.weight"] = (f"{level}x{level}/Skip/weight", _kernel)
    if config.c_dim and config.labels == "projection":
        names |= _dense("mapping.embed", "LabelEmbed")
        for i in range(config.mapping_layers):
            names |= _dense(f"mapping.fc{i}", f"Mapping{i}")
    return names


def _styled(our: str, their: str, noise: int, kernel: Callable[[Tensor], Tensor] | None = None) -> Names:
    return _modulated(our, their, kernel) | {
        f"synthesis.{our}.noise_strength": (f"synthesis/{their}/noise_strength", None),
        f"synthesis.{our}.noise_const": (f"synthesis/noise{noise}", lambda noise: noise[0, 0]),
    }


def _modulated(our: str, their: str, kernel: Callable[[Tensor], Tensor] | None = None) -> Names:
    return {
        f"synthesis.{our}.weight": (f"synthesis/{their}/weight", kernel or _kernel),
        f"synthesis.{our}.bias": (f"synthesis/{their}/bias", None),
        f"synthesis.{our}.affine.weight": (f"synthesis/{their}/mod_weight", _transposed),
        f"synthesis.{our}.affine.bias": (f"synthesis/{their}/mod_bias", lambda bias: bias + 1),
    }


def _convolution(our: str, their: str) -> Names:
    return {f"{our}.weight": (f"{their}/weight", _kernel), f"{our}.bias": (f"{their}/bias", None)}


def _dense(our: str, their: str) -> Names:
    return {f"{our}.weight": (f"{their}/weight", _transposed), f"{our}.bias": (f"{their}/bias", None)}


def _kernel(w: Tensor) -> Tensor:  # [k, k, in, out] -> [out, in, k, k]
    return w.permute(3, 2, 0, 1)


def _flipped(w: Tensor) -> Tensor:  # [k, k, in, out] -> [out, in, k, k]
    """Where they upsample they correlate, and ours convolves."""
    return _kernel(w.flip([0, 1]))


def _transposed(w: Tensor) -> Tensor:  # [in, out] -> [out, in]
    return w.permute(1, 0)


def _only(x: Tensor) -> Tensor:  # [1, ...] -> [...]
    return x.squeeze(0)


def _first(level: int) -> str:
    return "4x4/Conv" if level == 4 else f"{level}x{level}/Conv1"


def _architecture(weights: dict[str, Loadable], skip_layer: str, lowest_picture: str) -> str:
    if skip_layer in weights:
        return "resnet"
    return "skip" if lowest_picture in weights else "orig"


def _is_of_growing(name: str) -> bool:
    return re.fullmatch(r"(synthesis/)?(lod|(ToRGB|FromRGB)_lod\d+/.*)", name) is not None


def _no_noise(levels: list[int]) -> dict[str, Loadable]:
    found: dict[str, Loadable] = {"synthesis/noise0": Made((1, 1, 4, 4)), "synthesis/4x4/Conv/noise_strength": Made(())}
    for k, level in enumerate(levels):
        for i, name in enumerate(("Conv0_up", "Conv1"), 2 * k + 1):
            found[f"synthesis/noise{i}"] = Made((1, 1, level, level))
            found[f"synthesis/{level}x{level}/{name}/noise_strength"] = Made(())
    return found


def _levels(weights: dict[str, Loadable], pattern: str) -> list[int]:
    """8, 16 ... up to the picture's."""
    found = sorted(int(m[1]) for name in weights if (m := re.fullmatch(pattern, name)) and len(m[1]) < 6)
    found = [level for level in found if level > 4]
    if not found or len(found) > _LEVELS or found != [8 << k for k in range(len(found))]:
        raise PickleError("its networks have no levels 8x8, 16x16 ...")
    return found


def _count(weights: dict[str, Loadable], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in weights)


def _loadable(value: Any) -> Loadable | None:
    if type(value) in (int, float):
        return Made((), lambda size: torch.full(size, float(value)))
    return value if isinstance(value, Array) else None
