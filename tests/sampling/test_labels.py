"""Labels of generated images: by index, by name, as vectors, or sampled from seeds."""

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.models.label_space import LabelSpace
from stylegan_cli.sampling.generate import SamplingOptions
from stylegan_cli.sampling.labels import class_labels, describe_labels, label_metadata, sample_labels

ANIMALS = LabelSpace(3, ("cat", "dog", "10"))
FACES = LabelSpace(2, ("age", "smile"), ((0.5, 0.0), (-1.0, 1.0), (2.0, 1.0)))


def test_a_given_class():
    assert class_labels(2, [5, 6], LabelSpace(4)).tolist() == [[0, 0, 1, 0]] * 2


def test_a_class_is_sampled_from_each_seed():
    labels = class_labels(None, range(400), LabelSpace(5))
    assert labels.dtype == torch.float32 and labels.sum(1).eq(1).all()
    assert labels.sum(0).min() > 50
    assert torch.equal(class_labels(None, [7, 399, 7], LabelSpace(5)), labels[[7, 399, 7]])


def test_no_classes():
    assert class_labels(None, [1, 2], LabelSpace(0)) is None
    assert sample_labels(LabelSpace(0), 0, "x", torch.arange(3)) is None
    with pytest.raises(SganError, match="has no classes") as e:
        class_labels(0, [1], LabelSpace(0))
    assert "--class" in e.value.hint


@pytest.mark.parametrize("index", [-1, 3, 99, "-1", "3"])
def test_a_class_out_of_range(index):
    with pytest.raises(SganError, match=f"no class {index}") as e:
        class_labels(index, [1], LabelSpace(3))
    assert "0 to 2" in e.value.hint


@pytest.mark.parametrize(
    ("choice", "space", "expected"),
    [
        ("dog", ANIMALS, [0, 1, 0]),
        ("1", ANIMALS, [0, 1, 0]),
        (1, ANIMALS, [0, 1, 0]),
        ("10", ANIMALS, [0, 0, 1]),  # names go before indices
        ("cat,dog", LabelSpace(2, ("cat,dog", "owl")), [1, 0]),
        ("\udcff", LabelSpace(2, ("owl", "\\xff")), [0, 1]),  # a folder's name in undecodable bytes
        ("age", FACES, [1, 0]),
        ("smile, age", FACES, [1, 1]),
        ("0.25,-3", FACES, [0.25, -3]),
        ((0.25, -3), FACES, [0.25, -3]),
        (1, FACES, [0, 1]),
        ("0.7", LabelSpace(1, ("0",), ((0.5,), (1.0,))), [pytest.approx(0.7)]),
        ("1", LabelSpace(1, ("0",), ((0.5,), (1.0,))), [1]),
    ],
)
def test_choices(choice, space, expected):
    assert class_labels(choice, [3, 4], space).tolist() == [expected] * 2


@pytest.mark.parametrize(
    ("choice", "space", "message", "hint"),
    [
        ("dgo", ANIMALS, "no class 'dgo'", "Did you mean dog?"),
        ("zebra", ANIMALS, "no class 'zebra'", "Choose --class from cat, dog, 10, or 0 to 2."),
        ("cat,dog", ANIMALS, "no class 'cat,dog'", None),
        ((0.5, 0.5, 0), ANIMALS, "has classes, not label vectors", None),
        ("1,2,3", FACES, r"has 2 numbers, not 3", "They are age, smile."),
        ("age,nose", FACES, "no class 'age,nose'", None),
    ],
)
def test_invalid_choices(choice, space, message, hint):
    with pytest.raises(SganError, match=message) as e:
        class_labels(choice, [1], space)
    assert hint in (None, e.value.hint)


@pytest.mark.parametrize("value", [1.5, True, [], [float("nan")], ["a"], b"x"])
def test_values_that_are_no_choice(value):
    with pytest.raises(SganError, match="class_index cannot be"):
        SamplingOptions(class_index=value)


def test_vectors_are_sampled_from_those_of_training():
    labels = class_labels(None, range(300), FACES)
    rows, counts = labels.unique(dim=0, return_counts=True)
    assert sorted(map(tuple, rows.tolist())) == sorted(FACES.vectors) and counts.min() > 70
    assert torch.equal(class_labels(None, [299], FACES)[0], labels[299])


def test_metadata():
    assert label_metadata(torch.eye(3)[1], ANIMALS) == {"class": "1", "class_name": "dog"}
    assert label_metadata(torch.eye(3)[1], LabelSpace(3, ("0", "1", "2"))) == {"class": "1"}
    assert label_metadata(None, LabelSpace(0)) == {}
    label = torch.tensor([0.1, 1e-7])
    text = label_metadata(label, FACES)["class"]
    assert text == "0.1,1e-07" and torch.equal(class_labels(text, [0], FACES)[0], label)


def test_descriptions():
    assert describe_labels(torch.eye(3)[[2, 0, 2]], ANIMALS) == "Classes: cat (1), 10 (2)."
    assert describe_labels(torch.eye(20), LabelSpace(20)).endswith("11 (1) and 8 more.")
    assert describe_labels(torch.zeros(1, 2), FACES) == "Labels of 2 numbers: age, smile."
