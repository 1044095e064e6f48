"""The recipe of attribute critics: the image classifier, trained to tell images with one value of an attribute from all
others, also from what is not an image at all.

Examples without the attribute are the other images of the dataset, early generated images of a run, and images that
noise or blur have made unrecognizable. A critic that never saw such images is easily fooled by a generator; so is one
whose judgment a small change of the pixels can turn around, so its gradient is penalized.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...data.codec import to_array
from ...data.dataset import Dataset
from ...data.images import to_uint8
from ...detectors.image_classifier import prepare, reduce
from ...errors import SganError, suggest
from ...progress import Progress, silent
from ...runs.records import number, read_config
from ...sampling import counter
from ...sampling.critics import Critic, CriticInfo, fit_images, make_classifier
from .classifier import FINE, ClassifierRecipe, LabeledBatch, fit_classifier, read_images

MIN_SKILL = 0.2  # a critic with less is refused
_IMAGES = 10_000  # maximum number of images of a dataset to use
_FEWEST = 10  # images with, and without the value, that are needed
_EARLY = 0.1  # fraction of a run in which its images count as unformed
_BROKEN = 4  # of this number of images, one is also shown as noise or blur
_HELD_OUT = 3  # images with, and without the value, at least
_RARE = 3  # rare images with the value are repeated: for each, there are about this many others
_SMOOTHNESS = 10.0  # weight of the gradient penalty, for 3 x 32 x 32 values
_GRID = re.compile(r"fakes-([0-9]+(?:\.[0-9]+)?)\.png")


class CriticRecipe(ClassifierRecipe):
    """Adds a penalty on the squared gradient of the logit with respect to the image."""

    def _loss(self, batch: LabeledBatch) -> Tensor:  # [] sum over images
        images, (targets,) = batch.images.requires_grad_(True), batch.targets.unbind(1)
        (log_probabilities,) = self.classifier(images)
        logits = log_probabilities[:, 1] - log_probabilities[:, 0]
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        weight = _SMOOTHNESS * images[0].numel() / 3072  # a change of an image is larger with more pixels
        return F.cross_entropy(log_probabilities, targets, reduction="sum") + weight / 2 * gradient.square().sum()


def fit_critic(
    dataset: Dataset,
    attribute: str,
    value: str,
    junk: Path | None = None,  # run folder whose early images are examples without the attribute
    *,
    seed: int = 0,
    steps: int | None = None,  # see `train_classifier`
    progress: Progress = silent,
) -> Critic:
    """Train on nine tenths of the images with the value, and of those without; skill is measured on the others. Raises
    SganError if the dataset has no such attribute or value, too few images of it, or if it cannot be recognized."""
    check_value(dataset, attribute, value)
    train, test = _split(torch.tensor([x == value for x in dataset.attributes[attribute]]), seed)
    without, with_it = (read_images(dataset, index) for index in train)
    early = early_images(junk, without.shape[1:])[: len(without)] if junk else without[:0]
    early = early[counter.uniform(seed, "critic.junk", torch.arange(len(early))).argsort()]
    early_tests = len(early) // 8
    repeats = max(len(without) // (_BROKEN * max(len(early), 1)), 1)  # a run has few early images
    broken = _break(torch.cat([without, with_it])[::_BROKEN], seed)
    others = torch.cat([without, early[early_tests:].repeat(repeats, 1, 1, 1), broken])
    with_it = with_it.repeat(max(round(len(others) / (_RARE * len(with_it))), 1), 1, 1, 1)
    fine = max(others.shape[2:]) <= FINE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = make_classifier(attribute, value, others.shape[1], fine)
        targets = torch.tensor([0] * len(others) + [1] * len(with_it))
        fit_classifier(classifier, torch.cat([others, with_it]), [targets], seed, steps, progress, CriticRecipe)
    classifier.eval().requires_grad_(False)
    channels, height, width = others.shape[1:]
    info = CriticInfo(attribute, value, channels, height, width, fine, accuracy=0, low=0, high=1)
    critic = Critic(info, classifier)
    low, high = (_logits(critic, read_images(dataset, index)) for index in test)
    info = dataclasses.replace(
        info,
        accuracy=((low < 0).double().mean().item() + (high > 0).double().mean().item()) / 2,
        low=low.mean().item(),
        high=high.mean().item(),
        held_out=len(low) + len(high),
        junk=str(junk or ""),
        junk_rejected=_rejected(critic, early[:early_tests]),
        data=dataset.spec,
    )
    if info.skill < MIN_SKILL or not info.low < info.high:
        raise SganError(
            f"{info.name} cannot be recognized: {info.accuracy:.0%} of held-out images are judged correctly, where 50% "
            "would be by chance.",
            hint="Choose an attribute that can be seen in the images, or use more of them.",
        )
    return Critic(info, classifier)


def _split(
    has: Tensor,  # bool [N] whether an image has the value
    seed: int,
) -> tuple[list[Tensor], list[Tensor]]:  # to train on, held out: indices of images without, and with the value
    """Hold out a tenth of both kinds. Of many images, the rarer kind is kept where possible."""
    order = counter.uniform(seed, "critic.split", torch.arange(len(has))).argsort()
    kinds = [order[~has[order]], order[has[order]]]
    kinds = [kind[: max(_IMAGES // 2, _IMAGES - len(other))] for kind, other in zip(kinds, kinds[::-1], strict=True)]
    tests = [max(len(kind) // 10, _HELD_OUT) for kind in kinds]
    return [k[n:] for k, n in zip(kinds, tests, strict=True)], [k[:n] for k, n in zip(kinds, tests, strict=True)]


def check_value(dataset: Dataset, attribute: str, value: str) -> None:
    """Raise SganError if too few images of a dataset have this value of an attribute, or lack it."""
    path, values = dataset.spec.path, dataset.attributes.get(attribute)
    if not dataset.attributes:
        hint = "`sgan data demo` makes a dataset with attributes."
        raise SganError(f"The images in {path} have no attributes to learn.", hint=hint)
    if values is None:
        known = sorted(dataset.attributes)
        hint = suggest(attribute, known) or f"Choose from {', '.join(known[:20])}."
        raise SganError(f"The images in {path} have no attribute {attribute!r}.", hint=hint)
    if value not in values:
        known = sorted(set(values))
        hint = suggest(value, known) or f"Choose from {', '.join(known[:20])}."
        raise SganError(f"No image in {path} has {attribute}={value}.", hint=hint)
    count = sum(x == value for x in values)
    if min(count, len(values) - count) < _FEWEST:
        raise SganError(
            f"{count} of {len(values)} images in {path} have {attribute}={value}: a critic needs at least {_FEWEST} "
            "with it and as many without."
        )


def early_images(
    run: Path,  # run folder of `sgan train`
    form: tuple[int, ...],  # (C, h, w) of the critic's images
) -> Tensor:  # uint8 [N, C, h, w]
    """Cut the grids of the first tenth of a run, at least two if there are, into single images. Raises SganError if
    there are none, or if they differ from the critic's images in channels or proportions."""
    if not run.is_dir():
        raise SganError(f"{run} is not a run folder.", hint="Use a folder of `sgan train` for --junk.")
    grids = sorted((float(m[1]), p) for p in run.iterdir() if (m := _GRID.fullmatch(p.name)))
    if not grids:
        raise SganError(f"{run} has no grids of generated images, fakes-*.png.", hint="Use a folder of `sgan train`.")
    config = read_config(run)
    if config.get("resume"):
        hint = "Use the run that the first model was trained in."
        raise SganError(f"{run} started from trained weights: its first images are not unformed.", hint=hint)
    data = config.get("data", {})
    height, width, channels = (number(data.get(name)) for name in ("height", "width", "channels"))
    if not height or not width or channels != form[0] or height * form[2] != width * form[1]:
        raise SganError(f"The images of {run} differ from the dataset's in channels or proportions.")
    scale = max(1, 64 // int(width))
    early = [path for kimg, path in grids if kimg <= _EARLY * grids[-1][0]]
    early = early if len(early) > 1 else [path for _, path in grids[:2]]
    parts = [_cut(path, int(height) * scale, int(width) * scale, scale) for path in early]
    x = fit_images(torch.cat(parts).float() / 127.5 - 1, *form[1:])
    return to_uint8(x)


def _cut(path: Path, height: int, width: int, scale: int) -> Tensor:  # uint8 [N, C, height / scale, width / scale]
    """The images of a grid without gaps. Raises SganError if it is not one."""
    try:
        with Image.open(path) as image:
            grid = torch.tensor(to_array(image))
    except (OSError, ValueError) as e:
        raise SganError(f"Cannot read {path}: {e}.") from e
    c, rows, columns = len(grid), grid.shape[1] // height, grid.shape[2] // width
    if grid.shape[1:] != (rows * height, columns * width) or not rows * columns:
        raise SganError(f"{path} is not a grid of images of its run.")
    cells = grid[:, ::scale, ::scale].reshape(c, rows, height // scale, columns, width // scale)
    return cells.permute(1, 3, 0, 2, 4).flatten(0, 1)


def _break(
    x: Tensor,  # uint8 [N, C, h, w]
    seed: int,
) -> Tensor:  # uint8 [N, C, h, w]
    """Images of which nothing can be recognized: blurred to about 4 pixels, or hidden by noise, or both."""
    index = torch.arange(len(x))
    blur, strength = counter.uniform(seed, "critic.broken", index, (2, 1, 1, 1)).unbind(1)
    images = reduce(x.float() / 127.5 - 1)
    small = F.adaptive_avg_pool2d(images, (min(4, x.shape[2]), min(4, x.shape[3])))
    blurred = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
    noise = counter.normal(seed, "critic.noise", index, tuple(images.shape[1:]))
    hidden = torch.where(blur < 0.6, blurred, 0.1 * images)
    return to_uint8(hidden + torch.where(blur < 0.3, 0.0, 0.3 + 0.7 * strength) * noise)


def _logits(critic: Critic, x: Tensor) -> Tensor:  # uint8 [N, C, h, w] -> [N]
    with torch.no_grad():
        return torch.cat([critic(prepare(part)) for part in x.split(256)])


def _rejected(critic: Critic, x: Tensor) -> float | None:
    """The fraction of images that are seen as without the attribute; None without images."""
    return (_logits(critic, x) < 0).double().mean().item() if len(x) else None
