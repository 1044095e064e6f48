"""Networks that tell persons apart, as a distance: 1 - cosine of the vectors that they assign to two faces."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...detectors.distances import CosineLoss
from ...detectors.face import SIZE, load_face_network, manifest_of
from ...detectors.frozen import full_precision, load_weights, to_device
from ...detectors.reader import read_tensors
from ...detectors.weights import find_weights
from .irse50 import ArcFace

FACE = "face"  # the network that is downloaded once
MIN_SIDE = 64  # pixels of the shorter side; a face in fewer has no identity
_SIDE = 256  # pixels of the aligned image in which the places of faces are given
_ARCFACE = (slice(35, 223), slice(32, 220), 112)  # rows and columns of the face, and its size for the network: pSp's
_DLIB = (slice(77, 235), slice(49, 207), SIZE)  # the same from the alignments of FFHQ and of face-api
_DLIB_UNIT = 0.12  # its mean distance between two persons, of 22; that of ArcFace is about 1
_HINT = (
    "Use --identity face, or a file with the weights of ArcFace with IR-SE50, as model_ir_se50.pth of pSp, or "
    "face_recognition_model.bin of face-api."
)


def load_identity(
    identity: str,  # 'face', or a file of weights
    device: torch.device | str = "cpu",
) -> CosineLoss:
    """Load a network for faces that are aligned as those of FFHQ, as a distance that is about 1 between two persons.
    Nothing in a file is executed.

    Raises SganError if the weights are not available, damaged, or those of another network.
    """
    weights = find_weights("face", None if identity == FACE else identity)
    path = weights.path
    if identity == FACE or path.suffix == ".bin":
        manifest = find_weights("face-manifest").path if identity == FACE else manifest_of(path)
        network, place, unit = to_device(load_face_network(path, manifest), device), _DLIB, _DLIB_UNIT
    else:
        with torch.device("meta"):
            network = ArcFace()
        load_weights(network, read_tensors(path), path, _HINT)
        network, place, unit = to_device(network, device), _ARCFACE, 1.0

    def vectors(images: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, D]
        with full_precision():
            return network(_face(images, *place))

    return CosineLoss(f"identity-{weights.fingerprint}", vectors, unit)


def _face(
    images: Tensor,  # [N, 3, H, W]; of a rectangle, the square in the middle
    rows: slice,  # of an image of 256 x 256 pixels
    columns: slice,
    size: int,
) -> Tensor:  # [N, 3, size, size]
    (height, width), side = images.shape[2:], min(images.shape[2:])
    top, left = (height - side) // 2, (width - side) // 2
    images = adaptive_avg_pool2d(images[:, :, top : top + side, left : left + side], _SIDE)
    return adaptive_avg_pool2d(images[:, :, rows, columns], size)
