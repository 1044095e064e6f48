"""A small network that tells a picture's attributes, trained on the attributes of a set.

One body, one head for each attribute. It sees pictures a little blurred and noisy while it learns, as a model draws
them. It is trained on the CPU, so that what it says does not depend on the device.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, pad
from tqdm import tqdm

from .. import cache
from ..config import GeneratorConfig
from ..data.dataset import Dataset
from ..data.labels import classes_by_value
from ..errors import SganError
from ..sampling import counter

_PROTOCOL = 1  # rises when the same pictures come to give another network
_WIDTHS = (16, 48, 96, 128)  # channels of the body's convolutions
_FINE = 32  # pixels: in larger pictures the first convolution halves the size too
_LARGEST = 64  # pixels: larger pictures are halved by area average until they are this size
_PICTURES = 10_000  # of a set that are looked at
_BATCH, _STEPS, _EPOCHS = 64, 450, 4  # a large set is seen so often at least
_RATE, _DECAY = 3e-3, 0.01
_FEW = 10  # an attribute with fewer pictures for each value is a name or a number, no kind of picture


@dataclass(frozen=True)
class Recognition:
    """How well an attribute is told on pictures that were held out."""

    accuracy: float
    majority: float  # accuracy of who always says the commonest value

    @property
    def skill(self) -> float:
        """0 for guessing the commonest value, 1 for no mistake."""
        return (self.accuracy - self.majority) / max(1 - self.majority, 1e-9)


class PictureClassifier(nn.Module):
    """Pictures to the log-probabilities of each attribute's values."""

    def __init__(
        self,
        attributes: dict[str, tuple[str, ...]],  # name -> values
        channels: int,  # of the pictures
        fine: bool,  # the first convolution keeps the size
    ):
        super().__init__()
        self.attributes = attributes
        self.recognition: dict[str, Recognition] = {}  # by attribute, once trained
        body: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((channels, *_WIDTHS), _WIDTHS, strict=False)):
            stride = 1 if i == 0 and fine else 2
            body += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*body, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleList(nn.Linear(_WIDTHS[-1] * 16, len(values)) for values in attributes.values())

    def forward(
        self,
        x: Tensor,  # float [N, C, h, w] as `prepare` makes it
    ) -> list[Tensor]:  # [N, values] for each attribute
        x = self.body(x)
        return [head(x).log_softmax(1) for head in self.heads]

    @torch.inference_mode()
    def classify(
        self,
        images: Tensor,  # uint8 [N, C, H, W]
    ) -> dict[str, Tensor]:  # by attribute [N, values] float64 log-probabilities
        """What the pictures show."""
        parts = [self(prepare(part)) for part in images.cpu().split(256)]
        columns = (torch.cat(column).double() for column in zip(*parts, strict=True))
        return dict(zip(self.attributes, columns, strict=True))


def prepare(
    images: Tensor,  # uint8 [N, C, H, W]
) -> Tensor:  # float [N, C, h, w] in [-1, 1], at most 64 pixels
    """Pictures as the classifier takes them."""
    x = images.float() / 127.5 - 1
    while max(x.shape[2:]) > _LARGEST:
        x = avg_pool2d(x, 2)
    return x


def train_classifier(
    dataset: Dataset,
    names: Sequence[str],  # of attributes
    *,
    pictures: Sequence[int] | None = None,  # of the set; None: all
    seed: int = 0,
    steps: int | None = None,  # of 64 pictures; None: 450, or four times through the set
    quiet: bool = False,  # no bar
) -> PictureClassifier:
    """Learn attributes from nine tenths of the pictures, at random; `recognition` is measured on the last tenth."""
    index = torch.arange(len(dataset)) if pictures is None else torch.tensor(list(pictures))
    index = index[counter.uniform(seed, "classifier.split", index).argsort()[:_PICTURES]]
    x = torch.cat([_bytes(prepare(dataset.images(part))) for part in index.split(256)])
    classes = {name: classes_by_value(dataset.attributes[name]) for name in names}
    targets = [torch.from_numpy(numbers)[index] for numbers, _ in classes.values()]
    held = max(len(x) // 10, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = {name: values for name, (_, values) in classes.items()}
        classifier = PictureClassifier(values, x.shape[1], fine=max(x.shape[2:]) <= _FINE)
        _fit(classifier, x[held:], [t[held:] for t in targets], seed, steps, quiet)
    told = classifier.eval().requires_grad_(False).classify(x[:held]).values()
    for name, logs, target in zip(names, told, targets, strict=True):
        right = (logs.argmax(1) == target[:held]).double().mean().item()
        classifier.recognition[name] = Recognition(right, (target.bincount().max() / len(target)).item())
    return classifier


def open_classifier(
    dataset: Dataset,
    drawn: GeneratorConfig,  # of the model whose pictures it will see
    wanted: Sequence[str] | None = None,  # attributes that must be among those it tells; it learns all in any case
    steps: int | None = None,  # see `train_classifier`
    quiet: bool = False,  # no bar
) -> PictureClassifier:
    """From the folder of caches; else trained and kept there, where the folder can be written.

    Raises SganError if the pictures are of another form than the model's, or have no attributes to learn.
    """
    spec = dataset.spec
    form = (spec.channels, spec.height, spec.width)
    if form != (drawn.channels, drawn.height, drawn.width):
        raise SganError(f"The pictures in {spec.path} have another size or other channels than the model's.")
    names = choose_attributes(dataset, wanted)
    depends = [_PROTOCOL, spec.content_hash, *form, spec.filter, names, steps, torch.get_num_threads()]
    key = cache.key(*depends)
    with cache.claim("classifiers", key):
        classifier = _load(key)
        if classifier is None:
            classifier = train_classifier(dataset, names, steps=steps, quiet=quiet)
            _store(key, classifier)
    return classifier


def choose_attributes(
    dataset: Dataset,
    wanted: Sequence[str] | None = None,  # must be among them
) -> list[str]:
    """The attributes of a set that are kinds of pictures. Raises SganError if there are none, or not those wanted."""
    counts = {name: len(set(values)) for name, values in dataset.attributes.items()}
    kinds = [name for name, count in counts.items() if 1 < count <= len(dataset) / _FEW]
    if not kinds:
        hint = "Give --data with attributes (`sgan data demo` draws some), or --csv with labels of seeds."
        raise SganError(f"The pictures in {dataset.spec.path} have no attributes that sort them into kinds.", hint=hint)
    for name in wanted or ():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(kinds)}."
            raise SganError(f"The pictures in {dataset.spec.path} have no attribute {name!r} to learn.", hint=hint)
    return kinds


def _fit(
    classifier: PictureClassifier,
    x: Tensor,  # uint8 [N, C, h, w]
    targets: list[Tensor],  # [N] int64 for each attribute
    seed: int,
    steps: int | None,
    quiet: bool,
) -> None:
    """AdamW with a rate that rises and falls once."""
    steps = steps or max(_STEPS, _EPOCHS * len(x) // _BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), _RATE, weight_decay=_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    bar = tqdm(_batches(len(x), steps, seed), "learning attributes", steps, disable=True if quiet else None)
    for shown, chosen in bar:
        told = classifier(_as_drawn(prepare(x[chosen]), seed, shown))
        loss = sum(cross_entropy(logs, target[chosen]) for logs, target in zip(told, targets, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()


def _batches(n: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Running numbers [64] of the pictures shown, and which they are [64]: each round all of them, in another order."""
    order = torch.cat(
        [
            counter.uniform(seed, f"classifier.round{k}", torch.arange(n)).argsort()
            for k in range(-(-steps * _BATCH // n))
        ]
    )
    for shown in torch.arange(steps * _BATCH).split(_BATCH):
        yield shown, order[shown]


def _as_drawn(
    x: Tensor,  # float [N, C, h, w]
    seed: int,
    shown: Tensor,  # [N] running numbers
) -> Tensor:  # float [N, C, h, w]
    """A model's pictures are softer and less clean than those it learnt from: blur most a little, add noise to all."""
    n = len(x)
    soft, blurred, level = counter.uniform(seed, "classifier.blur", shown, (3, 1, 1, 1)).unbind(1)
    x = torch.lerp(x, avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 3, 1), soft * (blurred < 0.7))
    noise = counter.normal(seed, "classifier.noise", shown, tuple(x.shape[1:]))
    return x + 0.15 * level.reshape(n, 1, 1, 1) * noise


def _bytes(x: Tensor) -> Tensor:  # float [N, C, h, w] in [-1, 1] -> uint8
    return ((x + 1) * 127.5).round().to(torch.uint8)


def _load(key: str) -> PictureClassifier | None:
    """None if none is kept."""
    if (kept := cache.load("classifiers", key)) is None:
        return None
    attributes = {name: tuple(values) for name, values in kept.about["attributes"].items()}
    classifier = PictureClassifier(attributes, kept.about["channels"], kept.about["fine"])
    classifier.load_state_dict(kept.tensors)
    classifier.recognition = {name: Recognition(*r) for name, r in kept.about["recognition"].items()}
    return classifier.eval().requires_grad_(False)


def _store(key: str, classifier: PictureClassifier) -> None:
    first = classifier.body[0]
    about = {
        "attributes": classifier.attributes,
        "channels": first.in_channels,
        "fine": first.stride == (1, 1),
        "recognition": {name: [r.accuracy, r.majority] for name, r in classifier.recognition.items()},
    }
    with contextlib.suppress(SganError):  # no room, or nobody may write there: it is trained again next time
        cache.store("classifiers", key, classifier.state_dict(), about)
