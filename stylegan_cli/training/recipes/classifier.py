"""The classifier of images: AdamW with a rate that rises and falls once, on the attributes of a set.

It sees images a little blurred and noisy while it learns, as a model draws them. It is trained on the CPU, so that
what it says does not depend on the device.
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
from ...errors import SganError, nearest
from ...models.config import GeneratorConfig
from ...progress import Progress, silent, track
from ...sampling import counter
from ..engine import Engine
from ..optimizer import GuardedAdamW
from ..recipe import Batch, Phase, Recipe

_PROTOCOL = 1  # rises when the same images come to give another network
_FINE = 32  # pixels: in larger images the first convolution halves the size too
_IMAGES = 10_000  # of a set that are looked at
_BATCH, _STEPS, _EPOCHS = 64, 450, 4  # a large set is seen so often at least
_RATE, _DECAY = 3e-3, 0.01
_FEW = 10  # an attribute with fewer images for each value is a name or a number, no kind of image


@dataclass(frozen=True)
class LabeledBatch(Batch):
    images: Tensor  # float [N, C, h, w] as `prepare` makes them
    targets: Tensor  # [N, attributes] int64


class ClassifierRecipe(Recipe):
    """Every round shows all images, in another order."""

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
        self.order = Rounds(len(x), seed=seed)
        self.networks = {"classifier": classifier}
        self.phases = [Phase("classifier", classifier, optimizer, self._loss)]
        self.parts = {"rate": self.rate, "data": self.order}

    def next_batch(self) -> LabeledBatch:
        chosen, shown = self.order.next(_BATCH)
        return LabeledBatch(_as_drawn(prepare(self.x[chosen]), self.seed, shown), self.targets[chosen])

    def after_step(self, shown: int) -> None:
        self.rate.step()

    def _loss(self, batch: LabeledBatch) -> Tensor:  # [] sum over the images and the attributes
        heads = zip(self.classifier(batch.images), batch.targets.unbind(1), strict=True)
        return torch.stack([cross_entropy(logs, target, reduction="sum") for logs, target in heads]).sum()


class Rounds(Sampler):
    """Which of N images come when: each round all of them."""

    def _order(self, epoch: int) -> np.ndarray:
        return counter.uniform(self.seed, f"classifier.round{epoch}", torch.arange(self.num)).argsort().numpy()


def train_classifier(
    dataset: Dataset,
    names: Sequence[str],  # of attributes
    *,
    indices: Sequence[int] | None = None,  # of the set; None: all
    seed: int = 0,
    steps: int | None = None,  # of 64 images; None: 450, or four times through the set
    progress: Progress = silent,
) -> ImageClassifier:
    """Learn attributes from nine tenths of the images, at random; `recognition` is measured on the last tenth."""
    index = torch.arange(len(dataset)) if indices is None else torch.tensor(list(indices))
    index = index[counter.uniform(seed, "classifier.split", index).argsort()[:_IMAGES]]
    x = torch.cat([_bytes(prepare(dataset.images(part))) for part in index.split(256)])
    classes = {name: classes_by_value(dataset.attributes[name]) for name in names}
    targets = [torch.from_numpy(numbers)[index] for numbers, _ in classes.values()]
    held = max(len(x) // 10, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = {name: values for name, (_, values) in classes.items()}
        classifier = ImageClassifier(values, x.shape[1], fine=max(x.shape[2:]) <= _FINE)
        _fit(classifier, x[held:], [t[held:] for t in targets], seed, steps, progress)
    predictions = classifier.eval().requires_grad_(False).classify(x[:held]).values()
    for name, logs, target in zip(names, predictions, targets, strict=True):
        right = (logs.argmax(1) == target[:held]).double().mean().item()
        classifier.recognition[name] = Recognition(right, (target.bincount().max() / len(target)).item())
    return classifier


def open_classifier(
    dataset: Dataset,
    drawn: GeneratorConfig,  # of the model whose images it will see
    wanted: Sequence[str] | None = None,  # attributes that must be among those it tells; it learns all in any case
    steps: int | None = None,  # see `train_classifier`
    progress: Progress = silent,
) -> ImageClassifier:
    """From the folder of caches; else trained and kept there, where the folder can be written.

    Raises SganError if the images are of another form than the model's, or have no attributes to learn.
    """
    spec = dataset.spec
    form = (spec.channels, spec.height, spec.width)
    if form != (drawn.channels, drawn.height, drawn.width):
        raise SganError(f"The images in {spec.path} have another size or other channels than the model's.")
    names = choose_attributes(dataset, wanted)
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
    wanted: Sequence[str] | None = None,  # must be among them
) -> list[str]:
    """The attributes of a set that are kinds of images. Raises SganError if there are none, or not those wanted."""
    counts = {name: len(set(values)) for name, values in dataset.attributes.items()}
    kinds = [name for name, count in counts.items() if 1 < count <= len(dataset) / _FEW]
    if not kinds:
        hint = "Give --data with attributes (`sgan data demo` draws some), or --csv with labels of seeds."
        raise SganError(f"The images in {dataset.spec.path} have no attributes that sort them into kinds.", hint=hint)
    for name in wanted or ():
        if name not in kinds:
            hint = nearest(name, kinds) or f"Choose from {', '.join(kinds)}."
            raise SganError(f"The images in {dataset.spec.path} have no attribute {name!r} to learn.", hint=hint)
    return kinds


def _fit(
    classifier: ImageClassifier,
    x: Tensor,  # uint8 [N, C, h, w]
    targets: list[Tensor],  # [N] int64 for each attribute
    seed: int,
    steps: int | None,
    progress: Progress,
) -> None:
    steps = steps or max(_STEPS, _EPOCHS * len(x) // _BATCH)
    engine = Engine(ClassifierRecipe(classifier, x, torch.stack(targets, 1), seed, steps))
    for _ in track(range(steps), "learning attributes", progress):
        engine.step()


def _as_drawn(
    x: Tensor,  # float [N, C, h, w]
    seed: int,
    shown: Tensor,  # [N] running numbers
) -> Tensor:  # float [N, C, h, w]
    """A model's images are softer and less clean than those it learnt from: blur most a little, add noise to all."""
    n = len(x)
    soft, blurred, level = counter.uniform(seed, "classifier.blur", shown, (3, 1, 1, 1)).unbind(1)
    x = torch.lerp(x, avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 3, 1), soft * (blurred < 0.7))
    noise = counter.normal(seed, "classifier.noise", shown, tuple(x.shape[1:]))
    return x + 0.15 * level.reshape(n, 1, 1, 1) * noise


def _bytes(x: Tensor) -> Tensor:  # float [N, C, h, w] in [-1, 1] -> uint8
    return ((x + 1) * 127.5).round().to(torch.uint8)


def _load(key: str) -> ImageClassifier | None:
    """None if none is kept."""
    if (kept := cache.load("classifiers", key)) is None:
        return None
    attributes = {name: tuple(values) for name, values in kept.about["attributes"].items()}
    classifier = ImageClassifier(attributes, kept.about["channels"], kept.about["fine"])
    classifier.load_state_dict(kept.tensors)
    classifier.recognition = {name: Recognition(*r) for name, r in kept.about["recognition"].items()}
    return classifier.eval().requires_grad_(False)


def _store(key: str, classifier: ImageClassifier) -> None:
    first = classifier.body[0]
    about = {
        "attributes": classifier.attributes,
        "channels": first.in_channels,
        "fine": first.stride == (1, 1),
        "recognition": {name: [r.accuracy, r.majority] for name, r in classifier.recognition.items()},
    }
    with contextlib.suppress(SganError):  # no room, or nobody may write there: it is trained again next time
        cache.store("classifiers", key, classifier.state_dict(), about)
