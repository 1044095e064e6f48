"""Weight names of the R3GAN authors' program, whose stages are numbered in the order of computation."""

from __future__ import annotations

from ..checkpoints import Names

_BLOCK = {
    "conv0.weight": "LinearLayer1.Layer.weight",
    "conv1.weight": "LinearLayer2.Layer.weight",
    "conv2.weight": "LinearLayer3.Layer.weight",
    "bias0": "NonLinearity1.Bias",
    "bias1": "NonLinearity2.Bias",
}


def generator_names(
    channels: list[int],  # of each stage, lowest first
    blocks: int,  # of each stage
    conditional: bool,
) -> Names:
    names: Names = {
        "synthesis.b4.basis.maps": ("Model.MainLayers.0.Layers.0.Basis", None),
        "synthesis.b4.basis.affine.weight": ("Model.MainLayers.0.Layers.0.LinearLayer.weight", None),
        "synthesis.torgb.weight": ("Model.AggregationLayer.Layer.weight", None),
    }
    if conditional:
        names["mapping.embed.weight"] = ("Model.EmbeddingLayer.weight", None)
    for k, count in enumerate(channels):
        ours, source = f"synthesis.b{4 << k}", f"Model.MainLayers.{k}.Layers"
        names |= _blocks(ours, source, range(1, blocks + 1))
        if k and channels[k - 1] != count:
            names[f"{ours}.resample.conv.weight"] = (f"{source}.0.LinearLayer.Layer.weight", None)
    return names


def discriminator_names(
    channels: list[int],  # of each stage, highest first
    blocks: int,  # of each stage
    conditional: bool,
) -> Names:
    last = len(channels) - 1
    end = f"Model.MainLayers.{last}.Layers.{blocks}"
    names: Names = {
        "fromrgb.weight": ("Model.ExtractionLayer.Layer.weight", None),
        "head.maps": (f"{end}.Basis.weight", None),
        "head.linear.weight": (f"{end}.LinearLayer.weight", None),
    }
    if conditional:
        names["embed.weight"] = ("Model.EmbeddingLayer.weight", None)
    for k, count in enumerate(channels):
        ours, source = f"b{4 << (last - k)}", f"Model.MainLayers.{k}.Layers"
        names |= _blocks(ours, source, range(blocks))
        if k < last and channels[k + 1] != count:
            names[f"{ours}.resample.conv.weight"] = (f"{source}.{blocks}.LinearLayer.Layer.weight", None)
    return names


def _blocks(ours: str, source: str, places: range) -> Names:
    return {
        f"{ours}.blocks.{i}.{name}": (f"{source}.{place}.{part}", None)
        for i, place in enumerate(places)
        for name, part in _BLOCK.items()
    }
