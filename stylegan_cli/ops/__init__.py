"""The operations that dominate the running time of a StyleGAN, each with a reference; `use` chooses what runs."""

from .bias_act import bias_act
from .composite import feature_gradients_only
from .conv2d import conv2d_resample
from .dispatch import has_float64, to_float64, use
from .filtered_lrelu import filtered_lrelu
from .filters import lowpass_filter, separable_pairs
from .grid_sample import grid_sample
from .modulated_conv2d import modulated_conv2d
from .products import bfloat16_products, prefers_bfloat16, takes_bfloat16_products
from .upfirdn2d import blur2d, downsample2d, fir_filter, upfirdn2d, upsample2d

__all__ = [
    "bfloat16_products",
    "bias_act",
    "blur2d",
    "conv2d_resample",
    "downsample2d",
    "feature_gradients_only",
    "filtered_lrelu",
    "fir_filter",
    "grid_sample",
    "has_float64",
    "lowpass_filter",
    "modulated_conv2d",
    "prefers_bfloat16",
    "separable_pairs",
    "takes_bfloat16_products",
    "to_float64",
    "upfirdn2d",
    "upsample2d",
    "use",
]
