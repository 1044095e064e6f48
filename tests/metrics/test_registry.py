"""Names are resolved into protocols, and include what differs from the standard."""

import pickle
import subprocess
import sys

import pytest

from stylegan_cli.errors import SganError
from stylegan_cli.metrics.metric import ALL_REALS
from stylegan_cli.metrics.registry import ALIASES, METRICS, resolve

STANDARD_NAMES = """fid50k_full fid50k kid50k_full kid50k pr50k3_full pr50k3 is50k
ppl2_wend ppl_zfull ppl_wfull ppl_zend ppl_wend dc50k5_full dc50k5 eqt50k_int eqt50k_frac eqr50k"""


def names(*requested, **options):
    return [m.name() for m in resolve(requested, **options).metrics]


def test_standard_names():
    assert set(METRICS) == set(STANDARD_NAMES.split())
    assert names(*METRICS) == list(METRICS)
    expected = "fid50k_full kid50k_full pr50k3_full dc50k5_full is50k ppl2_wend eqt50k_int eqr50k"
    assert names(*ALIASES) == expected.split()
    assert names("fid", "fid50k_full", "fid") == ["fid50k_full"]


def test_protocols():
    reals = {name: (m.max_reals, m.mirror) for name, m in METRICS.items()}
    assert reals["fid50k_full"] == (ALL_REALS, False) and reals["fid50k"] == (50_000, True)
    assert reals["kid50k_full"] == (1_000_000, False) and reals["pr50k3_full"] == (200_000, False)
    assert reals["kid50k"] == reals["pr50k3"] == (50_000, True) and reals["is50k"] == (0, False)
    assert all(m.num == 50_000 for m in METRICS.values())
    (zfull,) = resolve(["ppl_zfull"]).metrics
    assert (zfull.path.space, zfull.path.full, zfull.path.crop) == ("z", True, True)
    path = METRICS["ppl2_wend"].path
    assert (path.space, path.full, path.crop) == ("w", False, False)


def test_names_include_number_and_features():
    assert names("fid", "kid50k", "pr", "dc", "is", "ppl", num=5000) == [
        *("fid5k_full", "kid5k", "pr5k3_full", "dc5k5_full", "is5k", "ppl2_wend_5k")
    ]
    assert names("fid", "ppl_zend", num=1234) == ["fid1234_full", "ppl_zend_1234"]
    options = {"features": "efficientnet-lite0"}
    assert names("fid", "kid50k", "pr", "ppl", **options) == [
        *("fid_efficientnet50k_full", "kid_efficientnet50k", "pr_efficientnet50k3_full", "ppl2_wend")
    ]
    assert {m.features.detector for m in resolve(["fid", "pr"], **options).metrics} == {"efficientnet-lite0"}


def test_numbers_in_names():
    for name in ("fid5k_full", "fid1234", "kid2k", "pr5k3_full", "pr500_k3", "is100", "ppl2_wend_5k", "dc5k5_full"):
        assert names(name) == [name]
    assert [m.num for m in resolve(["pr500_k3", "fid5k"]).metrics] == [500, 5000]
    assert names("pr_efficientnet_24_k3_full", "dc7_k5") == ["pr_efficientnet_24_k3_full", "dc7_k5"]
    assert names("pr_efficientnet243_full") == ["pr_efficientnet_24_k3_full"]  # as it was written before
    assert names("fid5k_full", num=200) == ["fid200_full"]


@pytest.mark.parametrize("name", ["fid50kfull", "fid0k_full", "FID", "ppl3", "", "fid5m", "fid{num}"])
def test_unknown_name_lists_all_names(name):
    with pytest.raises(SganError, match="There is no metric") as e:
        resolve(["fid", name])
    assert all(n in e.value.hint for n in [*METRICS, *ALIASES])
    if name == "fid50kfull":
        assert "Did you mean fid50k_full?" in e.value.hint


def test_other_errors():
    with pytest.raises(SganError, match="which efficientnet-lite0 does not have"):
        resolve(["is"], features="efficientnet-lite0")
    with pytest.raises(SganError, match="There are no features 'vgg'"):
        resolve(["fid"], features="vgg")
    with pytest.raises(SganError, match="pr3_k3_full needs at least 4 images, not 3"):
        resolve(["pr"], num=3)
    with pytest.raises(SganError, match="No metric was named"):
        resolve([])
    with pytest.raises(SganError, match="use inception-2015 and vgg16, but x.pt is one file") as e:
        resolve(["fid", "pr"], detector_file="x.pt")
    assert "SGAN_DETECTORS" in e.value.hint


def test_protocol_is_picklable():
    protocol = resolve([*METRICS], num=40, seed=3, truncation_psi=0.7)
    assert pickle.loads(pickle.dumps(protocol)) == protocol


def test_listing_names_does_not_import_torch():
    code = "import sys, stylegan_cli.metrics.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
