"""Which protocol a name means, and how names tell what differs."""

import pickle
import subprocess
import sys

import pytest

from stylegan_cli.errors import SganError
from stylegan_cli.metrics.metric import ALL
from stylegan_cli.metrics.registry import METRICS, SHORT, resolve

FIELD = """fid50k_full fid50k kid50k_full kid50k pr50k3_full pr50k3 is50k ppl2_wend ppl_zfull ppl_wfull ppl_zend
ppl_wend dc50k5_full dc50k5"""


def names(*asked, **how):
    return [m.name() for m in resolve(asked, **how).metrics]


def test_the_fields_names():
    assert set(METRICS) == set(FIELD.split())
    assert names(*METRICS) == list(METRICS)
    assert names(*SHORT) == ["fid50k_full", "kid50k_full", "pr50k3_full", "dc50k5_full", "is50k", "ppl2_wend"]
    assert names("fid", "fid50k_full", "fid") == ["fid50k_full"]


def test_protocols():
    reals = {name: (m.reals, m.mirror) for name, m in METRICS.items()}
    assert reals["fid50k_full"] == (ALL, False) and reals["fid50k"] == (50_000, True)
    assert reals["kid50k_full"] == (1_000_000, False) and reals["pr50k3_full"] == (200_000, False)
    assert reals["kid50k"] == reals["pr50k3"] == (50_000, True) and reals["is50k"] == (0, False)
    assert all(m.num == 50_000 for m in METRICS.values())
    (zfull,) = resolve(["ppl_zfull"]).metrics
    assert (zfull.path.space, zfull.path.full, zfull.path.crop) == ("z", True, True)
    path = METRICS["ppl2_wend"].path
    assert (path.space, path.full, path.crop) == ("w", False, False)


def test_names_tell_the_number_and_the_features():
    assert names("fid", "kid50k", "pr", "dc", "is", "ppl", num=5000) == [
        *("fid5k_full", "kid5k", "pr5k3_full", "dc5k5_full", "is5k", "ppl2_wend_5k")
    ]
    assert names("fid", "ppl_zend", num=1234) == ["fid1234_full", "ppl_zend_1234"]
    how = {"features": "efficientnet-lite0"}
    assert names("fid", "kid50k", "pr", "ppl", **how) == [
        *("fid_efficientnet50k_full", "kid_efficientnet50k", "pr_efficientnet50k3_full", "ppl2_wend")
    ]
    assert {m.features.detector for m in resolve(["fid", "pr"], **how).metrics} == {"efficientnet-lite0"}


def test_numbers_may_stand_in_names():
    for name in ("fid5k_full", "fid1234", "kid2k", "pr5k3_full", "pr5003", "is100", "ppl2_wend_5k", "dc5k5_full"):
        assert names(name) == [name]
    assert [m.num for m in resolve(["pr5003", "fid5k"]).metrics] == [500, 5000]
    assert names("fid5k_full", num=200) == ["fid200_full"]


@pytest.mark.parametrize("name", ["fid50kfull", "fid0k_full", "FID", "ppl3", "", "fid5m", "fid{num}"])
def test_an_unknown_name_gets_all_names(name):
    with pytest.raises(SganError, match="No metric is called") as e:
        resolve(["fid", name])
    assert all(known in e.value.hint for known in [*METRICS, *SHORT])
    if name == "fid50kfull":
        assert "Did you mean fid50k_full?" in e.value.hint


def test_other_mistakes():
    with pytest.raises(SganError, match="classes, which efficientnet-lite0 does not have"):
        resolve(["is"], features="efficientnet-lite0")
    with pytest.raises(SganError, match="No features are called 'vgg'"):
        resolve(["fid"], features="vgg")
    with pytest.raises(SganError, match="pr33_full takes 4 images at least, not 3"):
        resolve(["pr"], num=3)
    with pytest.raises(SganError, match="No metric is named"):
        resolve([])
    with pytest.raises(SganError, match="cannot serve inception-2015 and vgg16") as e:
        resolve(["fid", "pr"], detector_file="x.pt")
    assert "SGAN_DETECTORS" in e.value.hint


def test_a_protocol_goes_to_other_processes_as_it_is():
    protocol = resolve([*METRICS], num=40, seed=3, truncation_psi=0.7)
    assert pickle.loads(pickle.dumps(protocol)) == protocol


def test_names_are_known_without_torch():
    code = "import sys, stylegan_cli.metrics.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
