"""The table of public models."""

import json
import re
from pathlib import Path

import pytest

from stylegan_cli.errors import SganError
from stylegan_cli.interop import zoo
from stylegan_cli.models.registry import FAMILIES

TABLE = json.loads(Path(zoo.__file__).with_name("zoo.json").read_text(encoding="utf-8"))
MODELS = list(zoo.public_models().values())


def test_names_are_unique_words_and_addresses_belong_to_one_model():
    names, urls = [row["name"] for row in TABLE["models"]], [row["url"] for row in TABLE["models"]]
    assert len(names) == len(set(names)) == len(MODELS) and len(urls) == len(set(urls))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert len({model.file for model in MODELS}) == len(names)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_every_model_is_described(model):
    assert all(address.startswith("https://") for address in (model.url, model.source))
    assert model.family in FAMILIES and model.license and model.commercial in (True, False, None)
    assert model.resolution in [1 << k for k in range(5, 11)] and model.shows
    assert re.fullmatch("|[0-9a-f]{64}", model.sha256)
    for name, other in (("stylegan3", "stylegan3"), ("r3gan", "r3gan")):
        assert model.name.startswith(name) <= (model.family == other)
    if size := re.search(r"-(\d+)(x\d+)?$", model.name):
        assert int(size[1]) == model.resolution


def test_licenses_say_whether_they_allow_commercial_use():
    terms = {key: row["commercial"] for key, row in TABLE["licenses"].items()}
    assert set(terms) == {row["license"] for row in TABLE["models"]}  # none is unused
    assert not any(allowed for key, allowed in terms.items() if "nc" in key.split("-") or key == "nvidia")
    assert terms["unknown"] is None
    nvidia = [m for m in MODELS if "/NVlabs/" in m.source]
    assert len(nvidia) >= 40 and not any(m.commercial for m in nvidia) and all(m.license != "unknown" for m in nvidia)


def test_all_words_must_fit():
    found = zoo.search_public(("FACES", "1024", "stylegan3"))
    assert found and all("faces" in m.shows and m.resolution == 1024 and m.family == "stylegan3" for m in found)
    assert zoo.search_public(()) == MODELS
    with pytest.raises(SganError, match="No public model fits 'faces unicorn'") as e:
        zoo.search_public(("faces", "unicorn"))
    assert e.value.hint == "`sgan model list` lists all."


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ffhq", "Did you mean ada-ffhq, stylegan3-t-ffhq-1024x1024 or stylegan3-t-ffhqu-1024x1024? "),
        ("ADA-FHQ", "Did you mean ada-ffhq, ada-afhqdog or ada-afhqcat? "),
        ("r3gan-cifar", "Did you mean r3gan-cifar10 or "),
        ("q" * 5000, ""),
        ("", ""),
    ],
)
def test_unknown_names_get_the_nearest(name, hint):
    with pytest.raises(SganError, match="There is no public model") as e:
        zoo.find_public(name)
    assert e.value.hint.startswith(hint) and e.value.hint.endswith("`sgan model list` lists all.")
    assert hint or "Did you" not in e.value.hint
