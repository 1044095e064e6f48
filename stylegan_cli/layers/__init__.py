"""Layers that the networks share."""

from .adain import adain
from .attention import SelfAttention
from .batch_norm import BatchNorm, ConditionalBatchNorm, measure_standing_statistics
from .conv import EqualConv2d, scaled_weights
from .fourier import FourierInput
from .layout import to_memory_format
from .linear import EqualLinear
from .modulated import ModulatedConv2d, ToRGB, batched_styles
from .norm_conv import NormConv2d
from .normalize import normalize_2nd_moment
from .plain import PlainConv2d, PlainLinear
from .spectral import SpectralConv2d, SpectralLinear, iterate_power
