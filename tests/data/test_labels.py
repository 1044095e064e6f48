"""What labels mean: classes, or vectors of numbers. What is wrong with them matters only where they are used."""

import json

import numpy as np
import pytest
import torch

from stylegan_cli.data.labels import DatasetJson, classes_by_value, labels_of, natural_order, parse_dataset_json
from stylegan_cli.errors import SganError

NAMES = ["a.png", "b.png", "c.png"]


def labels(*values, known=(), names=NAMES):
    provenance = {"classes": list(known)} if known else {}
    return labels_of(DatasetJson(dict(zip(NAMES, values)), provenance=provenance), names, "here")


@pytest.mark.parametrize(
    ("values", "expected", "names"),
    [
        ([2, 0, 1], [2, 0, 1], "012"),
        ([2.0, 0, 1], [2, 0, 1], "012"),
        ([[2], [0], [1]], [2, 0, 1], "012"),
        ([[1], [1], [1]], [0, 0, 0], "0"),  # one-hot, of one class
        ([[0, 1], [1, 0], [0, 1]], [1, 0, 1], "01"),
        (["10", "9", "2"], [2, 1, 0], ["2", "9", "10"]),
        (["b", "a", "b"], [1, 0, 1], "ab"),
    ],
)
def test_classes(values, expected, names):
    result = labels(*values)
    assert not result.are_vectors and result.values.tolist() == expected and result.names == tuple(names)


@pytest.mark.parametrize(
    ("values", "expected", "names"),
    [
        ([[1, 1, 0], [0, 0, 0], [0, 1, 0]], [[1, 1, 0], [0, 0, 0], [0, 1, 0]], "012"),
        ([[0.3, -0.7], [1, 2], [0, 1]], [[0.3, -0.7], [1, 2], [0, 1]], "01"),
        ([0.5, 1, -2], [[0.5], [1], [-2]], "0"),
        ([[0.5], [1], [-2]], [[0.5], [1], [-2]], "0"),
        ([["red", "old"], [], ["old"]], [[1, 1], [0, 0], [1, 0]], ["old", "red"]),
    ],
)
def test_vectors(values, expected, names):
    result = labels(*values)
    assert result.are_vectors and result.values.tolist() == expected and result.names == tuple(names)


def test_known_names():
    assert labels(0, 1, 1, known=["cat", "dog", "owl"]).names == ("cat", "dog", "owl")
    assert labels(0, 3, 1, known=["cat", "dog"]).names == ("cat", "dog", "2", "3")
    assert labels([1, 1], [0, 1], [1, 0], known=["smiles", "old"]).names == ("smiles", "old")
    assert labels(0, 1, 1, known=[1, 2]).names == ("0", "1")  # not words: ignored


@pytest.mark.parametrize("values", [[0, "a", 1], [[1, 2], [1], [2]], [0, [0.5, 0.5], 1], [["a"], ["b"], [1]]])
def test_mixtures_are_refused(values):
    with pytest.raises(SganError, match="neither class numbers"):
        labels(*values)


def test_only_labels_of_these_images_matter():
    assert labels(0, "x", 1, names=["a.png", "c.png"]).values.tolist() == [0, 1]


def test_numbers_sort_as_numbers():
    numbers = [str(i) for i in range(12)]
    assert classes_by_value(sorted(numbers)).names == tuple(numbers)
    assert sorted(["a10", "a2", "0.5", "0.25", "-1", "10", "9", "b"], key=natural_order) == (
        ["-1", "0.25", "0.5", "9", "10", "a2", "a10", "b"]
    )
    assert sorted(["9" * 5000, "2"], key=natural_order)[0] == "2"


def test_known_order_of_values_stays():
    values = ["2", "10", "2"]
    assert classes_by_value(values, ("10", "2")).values.tolist() == [1, 0, 1]  # a model that was trained so
    assert classes_by_value(values, ("2", "3")).names == ("2", "10")  # other values: not that model's


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"labels": [["a.png", 0], ["b.png", 0], ["a.png", 1]]}),
        json.dumps([["a.png", 0], ["b.png", 0], ["./a.png", 0]]),
        '{"a.png": 0, "b.png": 1, "a.png": 1}',
        '{"labels": {"a.png": 0, "b.png": 1, "a.png": 1}}',
    ],
)
def test_two_labels_of_one_image(text):
    content = parse_dataset_json(text, "here")
    assert labels_of(content, ["b.png"], "here").values.shape == (1,)
    with pytest.raises(SganError, match=r"more than one label for a.png\."):
        labels_of(content, ["a.png", "b.png"], "here")


@pytest.mark.parametrize("text", ['{"labels": [], "labels": []}', '{"attributes": {"a": ["x"], "a": ["y"]}}'])
def test_two_parts_of_one_name(text):
    with pytest.raises(SganError, match="more than one"):
        parse_dataset_json(text, "here")


def test_some_vectors_represent_all():
    vectors = np.random.default_rng(0).normal(size=(5000, 8))
    content = DatasetJson({str(i): v for i, v in enumerate(vectors.tolist())})
    some = torch.tensor(labels_of(content, list(content.labels), "here").some_vectors())
    assert some.shape == (512, 8)
    assert torch.equal(some[[0, -1]], torch.from_numpy(vectors[[0, -1]]).float())


@pytest.mark.parametrize("value", [0.5, [0.5, 1], ["red", "hat"], {"a": 1}, None, 1, "cat"])
def test_mappings_of_any_labels_are_read(value):
    content = parse_dataset_json(json.dumps({"a.png": value, "b.png": value}), "x")
    assert content.labels == {"a.png": value, "b.png": value}
