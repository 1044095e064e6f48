"""The image classifier: trained on the attributes of a dataset, with AdamW and a one-cycle learning rate.

Training images are slightly blurred and noisy, like generated ones. It is trained on the CPU, so that its predictions
do not depend on the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, pad

from ... import cache
from ...data.dataset import Dataset
from ...data.labels import classes_by_value
from ...data.sampler import Sampler
from ...detectors.image_classifier import ImageClassifier, Recognition, prepare
from ...errors import SganError, suggest
from ...models.config import GeneratorConfig
from ...progress import Progress, silent, track
from ...sampling import counter
from ..engine import Engine
from ..optimizer import GuardedAdamW
from ..recipe import Batch, Phase, Recipe

_PROTOCOL = 1  # increment when the same images give another network
FINE = 32  # pixels; for larger images the first convolution also halves the size
_IMAGES = 10_000  # maximum number of images of a dataset to use
_BATCH, _STEPS, _EPOCHS = 64, 450, 4  # batch size; minimum number of steps and of epochs
_RATE, _DECAY = 3e-3, 0.01
_FEW = 10  # with fewer images per value, an attribute is a name or a number rather than a class


@dataclass(frozen=True)
class LabeledBatch(Batch):
    images: Tensor  # float [N, C, h, w] from `prepare`
    targets: Tensor  # [N, attributes] int64


class ClassifierRecipe(Recipe):
    """Trains a classifier. Every epoch shows all images in a new order."""

    def __init__(
        self,
        classifier: ImageClassifier,
        x: Tensor,  # uint8 [N, C, h, w]
        targets: Tensor,  # [N, attributes] int64
        seed: int,
        steps: int,
    ):
        super().__init__(_BATCH, _BATCH, x.device)
        self.classifier, self.x, self.targets, self.seed = classifier, x, targets, seed
        optimizer = GuardedAdamW(classifier.parameters(), _RATE, weight_decay=_DECAY)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
        self.sampler = EpochSampler(len(x), seed=seed)
        self.networks = {"classifier": classifier}
        self.phases = [Phase("classifier", classifier, optimizer, self._loss)]
        self.parts = {"rate": self.rate, "data": self.sampler}

    def next_batch(self) -> LabeledBatch:
        rows, index = self.sampler.next(_BATCH)
        return LabeledBatch(_degrade(prepare(self.x[rows]), self.seed, index), self.targets[rows])

    def after_step(self, shown: int) -> None:
        self.rate.step()

    def _loss(self, batch: LabeledBatch) -> Tensor:  # [] sum over images and attributes
        pairs = zip(self.classifier(batch.images), batch.targets.unbind(1), strict=True)
        return torch.stack([cross_entropy(logits, target, reduction="sum") for logits, target in pairs]).sum()


class EpochSampler(Sampler):
    """The order of N images: a new permutation every epoch."""

    def _order(self, epoch: int) -> np.ndarray:
        return counter.uniform(self.seed, f"classifier.round{epoch}", torch.arange(self.num)).argsort().numpy()


def train_classifier(
    dataset: Dataset,
    names: Sequence[str],  # attributes to learn
    *,
    indices: Sequence[int] | None = None,  # images of the dataset to use; None: all
    seed: int = 0,
    steps: int | None = None,  # number of steps of 64 images; None: at least 450, and four epochs
    progress: Progress = silent,
) -> ImageClassifier:
    """Train on a random nine tenths of the images; `recognition` is measured on the others."""
    index = torch.arange(len(dataset)) if indices is None else torch.tensor(list(indices))
    index = index[counter.uniform(seed, "classifier.split", index).argsort()[:_IMAGES]]
    x = read_images(dataset, index)
    classes = {name: classes_by_value(dataset.attributes[name]) for name in names}
    targets = [torch.from_numpy(labels.values)[index] for labels in classes.values()]
    num_test = max(len(x) // 10, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = {name: labels.names for name, labels in classes.items()}
        classifier = ImageClassifier(values, x.shape[1], fine=max(x.shape[2:]) <= FINE)
        fit_classifier(classifier, x[num_test:], [t[num_test:] for t in targets], seed, steps, progress)
    predictions = classifier.eval().requires_grad_(False).classify(x[:num_test]).values()
    for name, logits, target in zip(names, predictions, targets, strict=True):
        accuracy = (logits.argmax(1) == target[:num_test]).double().mean().item()
        classifier.recognition[name] = Recognition(accuracy, (target.bincount().max() / len(target)).item())
    return classifier


def read_images(
    dataset: Dataset,
    index: Tensor,  # [N] int64
) -> Tensor:  # uint8 [N, C, h, w]
    """Read images at the classifier's size."""
    return torch.cat([_to_uint8(prepare(dataset.images(part))) for part in index.split(256)])


def open_classifier(
    dataset: Dataset,
    generator: GeneratorConfig,  # of the model whose images are to be classified
    required: Sequence[str] | None = None,  # attributes that it must support; it learns all in any case
    steps: int | None = None,  # see `train_classifier`
    progress: Progress = silent,
) -> ImageClassifier:
    """Load the classifier of a dataset from the cache; else train it and store it there, if possible.

    Raises SganError if the images and the model differ in size or channels, or if there are no attributes to learn.
    """
    spec = dataset.spec
    form = (spec.channels, spec.height, spec.width)
    if form != (generator.channels, generator.height, generator.width):
        raise SganError(f"The images in {spec.path} differ from the model's in size or channels.")
    names = choose_attributes(dataset, required)
    depends = [_PROTOCOL, spec.content_hash, *form, spec.filter, names, steps, torch.get_num_threads()]
    key = cache.key(*depends)
    with cache.claim("classifiers", key):
        classifier = _load(key)
        if classifier is None:
            classifier = train_classifier(dataset, names, steps=steps, progress=progress)
            _store(key, classifier)
    return classifier


def choose_attributes(
    dataset: Dataset,
    required: Sequence[str] | None = None,  # attributes that must be among them
) -> list[str]:
    """Return the attributes that divide the images into classes. Raises SganError if there are none, or if a required
    one is missing."""
    counts = {name: len(set(values)) for name, values in dataset.attributes.items()}
    usable = [name for name, count in counts.items() if 1 < count <= len(dataset) / _FEW]
    if not usable:
        hint = "Use --data with attributes (`sgan data demo` makes some), or --csv with labels of seeds."
        raise SganError(f"No attribute of the images in {dataset.spec.path} divides them into classes.", hint=hint)
    for name in required or ():
        if name not in usable:
            hint = suggest(name, usable) or f"Choose from {', '.join(usable)}."
            raise SganError(f"The images in {dataset.spec.path} have no attribute {name!r} to learn.", hint=hint)
    return usable


def fit_classifier(
    classifier: ImageClassifier,
    x: Tensor,  # uint8 [N, C, h, w]
    targets: list[Tensor],  # one [N] int64 per attribute
    seed: int,
    steps: int | None,
    progress: Progress,
    recipe: type[ClassifierRecipe] = ClassifierRecipe,
) -> None:
    steps = steps or max(_STEPS, _EPOCHS * len(x) // _BATCH)
    engine = Engine(recipe(classifier, x, torch.stack(targets, 1), seed, steps))
    for _ in track(range(steps), "learning attributes", progress):
        engine.step()


def _degrade(
    x: Tensor,  # float [N, C, h, w]
    seed: int,
    index: Tensor,  # [N] int64, global index of each image
) -> Tensor:  # float [N, C, h, w]
    """Slightly blur most images and add noise to all: generated images are softer and noisier than real ones."""
    n = len(x)
    soft, blurred, level = counter.uniform(seed, "classifier.blur", index, (3, 1, 1, 1)).unbind(1)
    x = torch.lerp(x, avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 3, 1), soft * (blurred < 0.7))
    noise = counter.normal(seed, "classifier.noise", index, tuple(x.shape[1:]))
    return x + 0.15 * level.reshape(n, 1, 1, 1) * noise


def _to_uint8(x: Tensor) -> Tensor:  # float [N, C, h, w] in [-1, 1] -> uint8
    return ((x + 1) * 127.5).round().to(torch.uint8)


def _load(key: str) -> ImageClassifier | None:
    """Load a classifier from the cache; None if it is not there."""
    if (entry := cache.load("classifiers", key)) is None:
        return None
    attributes = {name: tuple(values) for name, values in entry.about["attributes"].items()}
    classifier = ImageClassifier(attributes, entry.about["channels"], entry.about["fine"])
    classifier.load_state_dict(entry.tensors)
    classifier.recognition = {name: Recognition(*r) for name, r in entry.about["recognition"].items()}
    return classifier.eval().requires_grad_(False)


def _store(key: str, classifier: ImageClassifier) -> None:
    first = classifier.body[0]
    about = {
        "attributes": classifier.attributes,
        "channels": first.in_channels,
        "fine": first.stride == (1, 1),
        "recognition": {name: [r.accuracy, r.majority] for name, r in classifier.recognition.items()},
    }
    with contextlib.suppress(SganError):  # a full or read-only disk: it is trained again next time
        cache.store("classifiers", key, classifier.state_dict(), about)
