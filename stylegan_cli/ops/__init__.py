"""The operations that dominate the running time of a StyleGAN, each with a reference; `use` chooses what runs."""

from .add_skip import add_skip
from .bias_act import bias_act
from .conv2d import conv2d_resample, equalized_conv2d
from .dispatch import has_float64, has_kernels, tensor_cores, to_float64, use
from .filtered_lrelu import filtered_lrelu
from .filters import lowpass_filter, separable_pairs
from .grid_sample import grid_sample
from .linear import scaled_linear
from .minibatch_std import append_minibatch_std
from .modulated_conv2d import modulated_conv2d
from .products import bfloat16_products, prefers_bfloat16, takes_bfloat16_products
from .scaled_weights import ScaledWeight, scaled_weights_of_layers
from .upfirdn2d import blur2d, downsample2d, fir_filter, upfirdn2d, upsample2d

__all__ = [
    "ScaledWeight",
    "add_skip",
    "append_minibatch_std",
    "bfloat16_products",
    "bias_act",
    "blur2d",
    "conv2d_resample",
    "downsample2d",
    "equalized_conv2d",
    "filtered_lrelu",
    "fir_filter",
    "grid_sample",
    "has_float64",
    "has_kernels",
    "lowpass_filter",
    "modulated_conv2d",
    "prefers_bfloat16",
    "scaled_linear",
    "scaled_weights_of_layers",
    "separable_pairs",
    "takes_bfloat16_products",
    "tensor_cores",
    "to_float64",
    "upfirdn2d",
    "upsample2d",
    "use",
]
