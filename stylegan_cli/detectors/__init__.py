"""Frozen networks that look at images: features for the metrics, a distance for the metrics and for projection."""

from __future__ import annotations

import os
from hashlib import sha256

import torch

from ..errors import SganError
from . import efficientnet, inception, vgg
from .frozen import Detector, fill, to_device
from .lpips import Lpips, LpipsNetwork, from_jax, from_lpips
from .reader import read_tensors
from .weights import find_weights

# Name -> the network, and what gives the tensors of a file the names of its modules
DETECTORS = {
    "inception-2015": (inception.Inception, inception.from_nvidia),
    "vgg16": (vgg.Vgg16, vgg.from_nvidia),
    "efficientnet-lite0": (efficientnet.EfficientNetLite0, efficientnet.from_package),
}


def load_detector(
    name: str,  # of DETECTORS
    device: torch.device | str = "cpu",
    file: str | os.PathLike | None = None,  # weights by hand; None: see weights.find_weights
) -> Detector:
    """A detector, ready to use. Raises SganError if its weights cannot be had, or are another network's."""
    if name not in DETECTORS:
        raise SganError(f"There is no detector {name}; there are {', '.join(DETECTORS)}.")
    build, rename = DETECTORS[name]
    found = find_weights(name, file)
    with torch.device("meta"):  # only shapes: the numbers come from the file
        network = build()
    fill(network, rename(read_tensors(found.path)), found.path)
    return Detector(name, found.fingerprint, found.known, to_device(network, device))


def load_lpips(
    net: str = "vgg",  # 'vgg': VGG16, as PPL has it; 'alex': AlexNet, the one that LPIPS recommends as a metric
    device: torch.device | str = "cpu",
    file: str | os.PathLike | None = None,  # of the convolutions, by hand; None: see weights.find_weights
) -> Lpips:
    """The distance, ready to use. Raises SganError if its weights cannot be had, or are another network's."""
    if net not in ("vgg", "alex"):
        raise SganError(f"There is no LPIPS with the network {net}; there are vgg and alex.")
    found = find_weights(f"lpips-{net}", file)
    known, fingerprint = found.known, found.fingerprint
    tensors = from_jax(vgg.from_nvidia(read_tensors(found.path)))
    if "lin0" not in tensors:  # the file is of the convolutions alone
        linear = find_weights(f"lpips-{net}-linear")
        known, tensors = known and linear.known, tensors | from_lpips(read_tensors(linear.path), linear.path)
        if not known:  # either file changes the distance
            fingerprint = sha256(f"{found.sha256} {linear.sha256}".encode()).hexdigest()[:8]
    with torch.device("meta"):
        network = LpipsNetwork(net)
    fill(network, tensors, found.path)
    if any((lin < 0).any() for lin in network.buffers()):
        raise SganError(f"{found.path} gives a channel a negative weight: that is no distance.")
    return Lpips(net, fingerprint, known, to_device(network, device))
