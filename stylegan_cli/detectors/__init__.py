"""Detectors, frozen networks that extract features for the metrics, and LPIPS, a distance between images."""

from __future__ import annotations

import os
from hashlib import sha256

import torch

from ..errors import SganError
from . import efficientnet, inception, vgg
from .frozen import Detector, load_weights, to_device
from .lpips import Lpips, LpipsNetwork, from_jax, from_lpips
from .reader import read_tensors
from .style import StyleNetwork
from .weights import find_weights

# Name -> the network, and the function that renames the tensors of a file to the names of its modules
DETECTORS = {
    "inception-2015": (inception.Inception, inception.from_nvidia),
    "vgg16": (vgg.Vgg16, vgg.from_nvidia),
    "efficientnet-lite0": (efficientnet.EfficientNetLite0, efficientnet.from_package),
}


def load_detector(
    name: str,  # key of DETECTORS
    device: torch.device | str = "cpu",
    file: str | os.PathLike | None = None,  # file of weights; None: see weights.find_weights
) -> Detector:
    """Load a detector. Raises SganError if its weights are not available, or belong to another network."""
    if name not in DETECTORS:
        raise SganError(f"There is no detector {name!r}.", hint="Choose from " + ", ".join(DETECTORS) + ".")
    build, rename = DETECTORS[name]
    weights = find_weights(name, file)
    with torch.device("meta"):  # only shapes: the values come from the file
        network = build()
    load_weights(network, rename(read_tensors(weights.path)), weights.path)
    return Detector(name, weights.fingerprint, weights.is_standard, to_device(network, device))


def load_lpips(
    net: str = "vgg",  # 'vgg': VGG16, as in PPL; 'alex': AlexNet, recommended by the authors of LPIPS as a metric
    device: torch.device | str = "cpu",
    file: str | os.PathLike | None = None,  # weights of the backbone; None: see weights.find_weights
) -> Lpips:
    """Load LPIPS. Raises SganError if its weights are not available, or belong to another network."""
    if net not in ("vgg", "alex"):
        raise SganError(f"There is no LPIPS network {net!r}.", hint="Choose vgg or alex.")
    weights = find_weights(f"lpips-{net}", file)
    is_standard, fingerprint = weights.is_standard, weights.fingerprint
    tensors = from_jax(vgg.from_nvidia(read_tensors(weights.path)))
    if "lin0" not in tensors:  # the file has only the backbone
        linear = find_weights(f"lpips-{net}-linear")
        is_standard, tensors = (
            is_standard and linear.is_standard,
            tensors | from_lpips(read_tensors(linear.path), linear.path),
        )
        if not is_standard:  # the distance depends on both files
            fingerprint = sha256(f"{weights.sha256} {linear.sha256}".encode()).hexdigest()[:8]
    with torch.device("meta"):
        network = LpipsNetwork(net)
    load_weights(network, tensors, weights.path)
    if any((lin < 0).any() for lin in network.buffers()):
        raise SganError(
            f"{weights.path} has a negative LPIPS weight; distances must not be negative.",
            hint="Use the published weights of LPIPS.",
        )
    return Lpips(net, fingerprint, is_standard, to_device(network, device))


def load_style_network(
    device: torch.device | str = "cpu",
    file: str | os.PathLike | None = None,  # weights of VGG16, as for LPIPS; None: see weights.find_weights
) -> StyleNetwork:
    """Load the network of style transfer. Raises SganError if its weights are not available, or belong to another
    one."""
    weights = find_weights("lpips-vgg", file)
    tensors = from_jax(vgg.from_nvidia(read_tensors(weights.path)))
    with torch.device("meta"):
        network = vgg.convolutions()
    own = {name.removeprefix("features."): t for name, t in tensors.items()}
    load_weights(network, own, weights.path)
    return StyleNetwork(to_device(network, device), weights.fingerprint)
