"""Pickles of the TensorFlow programs: StyleGAN2 (version 4) and StyleGAN2-ADA (version 5); `tensorflow1` has the first.

Three networks: G, D, and Gs, the moving average of G. The architecture is read off the variables' names.
"""

from __future__ import annotations

import re
from typing import Any

from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.stylegan2.checkpoints import tensorflow_discriminator, tensorflow_generator
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import Part, PickleError, read_pickle
from . import tensorflow1
from .foreign import Foreign, FormatError, Loadable, Made, channel_widths, ours, shape_of
from .tensorflow_network import Arguments, Network, count_of, known, levels_of, mapping_of

_SECOND = 4  # the version that StyleGAN2 writes
_MODERN = 5  # that of StyleGAN2-ADA; some defaults changed with it


def read_tensorflow(file: Part) -> Foreign:
    """Raises PickleError and FormatError."""
    tree = read_pickle(file, known, parts=True)
    if type(tree) not in (tuple, list) or len(tree) != 3 or not all(isinstance(part, Network) for part in tree):
        raise PickleError("it holds not the three networks G, D and Gs")
    _, D, G = tree
    weights = G.variables("mapping", "synthesis")
    first = G.version < _SECOND or any("/StyleMod/" in name for name in weights)
    generator, tensors = (tensorflow1.generator_of if first else generator_of)(G, weights)
    notes = ["The weights of G itself, which its moving average Gs was made of, are left out."]
    try:
        discriminator, d_tensors = (tensorflow1.discriminator_of if first else discriminator_of)(D, generator)
    except FormatError as e:  # the generator is worth having without
        discriminator, d_tensors = None, {}
        notes.append(f"The discriminator is left out: {e}.")
    if any("ToRGB_lod1/" in name for name in weights):
        notes.append("The outputs at lower resolutions, which only a growing network needs, are left out.")
    if "synthesis/noise0" not in weights:
        notes.append("Its network has no noise: ours has noise of strength zero.")
    if first and f"synthesis/{2 * generator.height}x{2 * generator.height}/Conv1/bias" in weights:
        notes.append(f"The levels above {generator.height}, to which it had not grown yet, are left out.")
    name = "StyleGAN" if first else "StyleGAN2-ADA" if G.version >= _MODERN else "StyleGAN2"
    return Foreign(f"{name} TensorFlow pickle", generator, tensors, discriminator, d_tensors, notes=tuple(notes))


def generator_of(
    G: Network,
    weights: dict[str, Loadable],
) -> tuple[StyleGAN2Config, dict[str, Loadable]]:
    told, levels = Arguments(G), levels_of(weights, r"synthesis/(\d+)x\1/Conv1/bias")
    told.must(nonlinearity="lrelu")
    lod = weights.get("synthesis/lod", weights.get("lod"))
    if lod is not None and lod.size == () and float(lod.load()) != 0:
        raise FormatError("its network was still growing when it was written, and ours does not grow")
    top = max(levels)
    to_rgb = "ToRGB_lod0" if "synthesis/ToRGB_lod0/bias" in weights else f"{top}x{top}/ToRGB"
    config = StyleGAN2Config(
        top,
        top,
        channels=shape_of(weights, f"synthesis/{to_rgb}/bias", 1)[0],
        architecture=_architecture(weights, f"synthesis/{top}x{top}/Skip/weight", "synthesis/4x4/ToRGB/weight"),
        **mapping_of(weights, told),
        **_of_convolutions(told),
        **channel_widths({r: shape_of(weights, f"synthesis/{_first(r)}/bias", 1)[0] for r in (4, *levels)}),
    )
    if "synthesis/noise0" not in weights:
        weights = weights | _no_noise(levels)
    return config, ours(tensorflow_generator(config, levels, to_rgb), weights, _is_of_growing)


def discriminator_of(
    D: Network,
    generator: GeneratorConfig,  # of the same file
) -> tuple[DiscriminatorConfig, dict[str, Loadable]]:
    weights, told = D.variables(), Arguments(D)
    levels = levels_of(weights, r"(\d+)x\1/Conv0/bias")
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
        raise FormatError(f"it gives {scores} numbers for an image")
    mapping_lr = told.number("mapping_lrmul", 0.1)
    if mapping_lr is None:
        raise PickleError("its mapping_lrmul is no number that makes sense")
    config = DiscriminatorConfig(
        top,
        top,
        channels=shape_of(weights, f"{from_rgb}/weight", 4)[2],
        c_dim=generator.c_dim,
        labels=labels if generator.c_dim else "projection",
        mapping_layers=count_of(weights, r"Mapping\d+/bias") if generator.c_dim and labels == "projection" else 8,
        mapping_lr=mapping_lr,
        architecture=_architecture(weights, f"{top}x{top}/Skip/weight", "4x4/FromRGB/weight"),
        mbstd_group=told.whole("mbstd_group_size", None if D.version >= _MODERN else 4) or None,
        mbstd_channels=seen - lowest,
        **_of_convolutions(told),
        **channel_widths(
            {r: shape_of(weights, f"{'4x4/Conv' if r == 4 else f'{r}x{r}/Conv0'}/bias", 1)[0] for r in (4, *levels)}
        ),
    )
    return config, ours(tensorflow_discriminator(config, levels, from_rgb), weights, _is_of_growing)


def _of_convolutions(told: Arguments) -> dict[str, Any]:
    return {
        "fir": told.taps("resample_kernel", [1, 3, 3, 1], none=(1.0, 1.0)),
        "half_levels": told.whole("num_fp16_res", 0),
        "conv_clamp": told.number("conv_clamp", None),
    }


def _first(level: int) -> str:
    return "4x4/Conv" if level == 4 else f"{level}x{level}/Conv1"


def _architecture(weights: dict[str, Loadable], skip_layer: str, lowest_image: str) -> str:
    if skip_layer in weights:
        return "resnet"
    return "skip" if lowest_image in weights else "orig"


def _is_of_growing(name: str) -> bool:
    return re.fullmatch(r"(synthesis/)?(lod|(ToRGB|FromRGB)_lod\d+/.*)", name) is not None


def _no_noise(levels: list[int]) -> dict[str, Loadable]:
    found: dict[str, Loadable] = {"synthesis/noise0": Made((1, 1, 4, 4)), "synthesis/4x4/Conv/noise_strength": Made(())}
    for k, level in enumerate(levels):
        for i, name in enumerate(("Conv0_up", "Conv1"), 2 * k + 1):
            found[f"synthesis/noise{i}"] = Made((1, 1, level, level))
            found[f"synthesis/{level}x{level}/{name}/noise_strength"] = Made(())
    return found
