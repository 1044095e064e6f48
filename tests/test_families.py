"""Families of generators: the registry, the family in files, and a new family without a change to the package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from stylegan_cli.config import to_json
from stylegan_cli.errors import SganError
from stylegan_cli.models.biggan.config import BigGANConfig
from stylegan_cli.models.dcgan.config import DCGANConfig
from stylegan_cli.models.lapgan.config import LapganConfig
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.r3gan.config import R3GANConfig
from stylegan_cli.models.registry import FAMILIES, build_generator, presets, read_generator
from stylegan_cli.models.sagan.config import SAGANConfig
from stylegan_cli.models.sngan.config import SNGANConfig
from stylegan_cli.models.stackgan.config import StackganConfig
from stylegan_cli.models.style_r3gan.config import StyleR3GANConfig
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.snapshot import load_snapshot, read_info

TOY = Path(__file__).with_name("_toy_family.py")
SMALL = {"z_dim": 8, "channel_base": 64, "channel_max": 8}
NEW = [  # not in files of version 0.1
    StyleGAN3Config(16, 16, c_dim=2, kernel=1, radial=True, **SMALL),
    R3GANConfig(16, 16, c_dim=2, **SMALL),
    StyleR3GANConfig(16, 16, c_dim=2, **SMALL),
    DCGANConfig(16, 16, **SMALL),
    SNGANConfig(16, 16, c_dim=2, **SMALL),
    SAGANConfig(16, 16, attention=8, **SMALL),
    BigGANConfig(16, 16, c_dim=2, **SMALL | {"z_dim": 9}),
    LapganConfig(16, 16, hidden=8, **SMALL),
    StackganConfig(16, 16, c_dim=2, enlarge=2, condition=2, blocks=1, **SMALL),
]
CONFIGS = [
    StyleGAN2Config(16, 16, architecture="resnet", **SMALL),
    StyleGANConfig(16, 16, blur=(1.0, 2.0, 1.0), truncated=3, fade=True, **SMALL),
    ProGANConfig(16, 16, c_dim=2, **SMALL),
    *NEW,
]
# The format of version 0.1: one flat configuration for all families.
FLAT = {"z_dim": 8, "c_dim": 0, "w_dim": 512, "mapping_layers": 8, "mapping_lr": 0.01, "labels": "embed"}
FLAT |= {"architecture": "skip", "channel_base": 64, "channel_max": 8, "fir": [1.0, 3.0, 3.0, 1.0], "half_levels": 4}
FLAT |= {"conv_clamp": 256.0, "w_avg_beta": 0.995, "truncated": None, "blur": [], "fade": False, "channels": 3}
FLAT |= {"height": 16, "width": 16, "family": "stylegan2"}
OLD = [
    {"architecture": "resnet"},
    {"family": "stylegan", "architecture": "orig", "blur": [1.0, 2.0, 1.0], "truncated": 3, "fade": True},
    {"family": "progan", "architecture": "orig", "labels": "concat", "w_dim": 16, "mapping_layers": 0, "c_dim": 2},
]


def test_each_family_is_registered_under_its_name():
    assert {name: family.name for name, family in FAMILIES.items()} == {name: name for name in FAMILIES}
    assert sum(len(family.presets) for family in FAMILIES.values()) == len(presets()), "preset names are unique"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.family)
def test_json_has_the_family_and_only_its_fields(config):
    values = json.loads(json.dumps(to_json(config)))
    assert values["family"] == config.family and read_generator(values) == config
    assert ("fade" in values) == config.grows


@pytest.mark.parametrize(("config", "old"), list(zip(CONFIGS, OLD)), ids=lambda x: getattr(x, "family", ""))
def test_flat_configurations_of_old_files_are_read(config, old):
    assert read_generator(FLAT | old) == config
    assert read_generator({k: v for k, v in (FLAT | old).items() if k != "family" or v != "stylegan2"}) == config


@pytest.mark.parametrize(
    ("family", "change"),
    [("stylegan2", {"fade": True}), ("stylegan2", {"blur": [1.0, 2.0, 1.0]}), ("progan", {"truncated": 3})],
)
def test_unsupported_settings_are_not_ignored(family, change):
    with pytest.raises(SganError, match=f"unknown field.*{next(iter(change))}"):
        read_generator(FLAT | {"family": family} | change)


def test_the_message_for_an_unknown_family_lists_the_known_ones():
    with pytest.raises(SganError, match="family 'stylegan9'.* only has stylegan2, stylegan3, stylegan, progan"):
        read_generator(FLAT | {"family": "stylegan9"})
    with pytest.raises(SganError, match=r"family \['toy'\]"):
        read_generator(FLAT | {"family": ["toy"]})


def test_a_snapshot_of_an_unknown_family_is_refused(sgan, tiny_run, tmp_path):
    path = next(tiny_run.glob("snapshot-*.safetensors"))
    with safetensors.safe_open(path, "pt") as f:
        header = f.metadata()
    info = json.loads(header["info"])
    info["generator"]["family"] = "stylegan9"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", header | {"info": json.dumps(info)})
    result = sgan("generate", "--model", tmp_path / "m.safetensors", "--outdir", tmp_path / "out", code=1)
    assert "family 'stylegan9'" in result.stderr and "stylegan2, stylegan3, stylegan, progan" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_snapshot_with_the_flat_configuration_is_read(tiny_run, tmp_path):
    path = next(tiny_run.glob("snapshot-*.safetensors"))
    with safetensors.safe_open(path, "pt") as f:
        header = f.metadata()
    info = json.loads(header["info"])
    info["generator"] = FLAT | {k: v for k, v in info["generator"].items() if k != "family"}
    del info["generator"]["family"]
    safetensors.torch.save_file(
        safetensors.torch.load_file(path), tmp_path / "m.safetensors", header | {"info": json.dumps(info)}
    )
    old, new = load_snapshot(tmp_path / "m.safetensors"), load_snapshot(path)
    assert old.info.generator == new.info.generator and old.fingerprint == new.fingerprint


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.family)
def test_the_interface_of_every_generator(config):
    torch.manual_seed(0)
    G = build_generator(config)
    assert G.device == torch.device("cpu") and G.num_ws == max(row.w_index for row in G.layers) + 1
    assert [row for row in G.layers if row.noise] == list(G.noise_layers)
    assert [list(noise.shape) for noise in G.stored_noise()] == [[row.height, row.width] for row in G.noise_layers]
    c = torch.eye(2)[[0, 1, 1]] if config.c_dim else None
    ws = G.mapping(torch.randn(3, config.z_dim), c)
    assert ws.shape == (3, G.num_ws, config.w_dim)
    G.mapping.w_avg.normal_()
    truncated = G.truncate(ws, torch.tensor(0.3), 1)
    assert torch.equal(truncated, G.truncate(ws, 0.3, 1)) and torch.equal(truncated[:, 1:], ws[:, 1:])
    if config.takes_transform:
        assert torch.allclose(G.synthesis(ws, transform=torch.eye(3)), G.synthesis(ws), atol=1e-6)
    else:
        with pytest.raises(ValueError, match="transformed"):
            G.synthesis(ws, transform=torch.eye(3))


def test_a_new_family_works_without_a_change_to_the_package(rgb_set, tmp_path):
    def toy(*arguments):
        command = [sys.executable, TOY, *map(str, arguments), "-q", "--device", "cpu"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    run = tmp_path / toy("train", "--cfg", "toy", "--data", rgb_set)
    toy("train", "--resume", run, "--kimg", "0.048")
    snapshot = run / "snapshot-000000.048.safetensors"
    toy("generate", "--seeds", "0-1", "--trunc", "0.7", "--noise-mode", "random")
    toy("mix", "--rows", "0", "--cols", "1", "--styles", "middle")
    toy("edit", "find", "--method", "sefa", "--count", "2")
    toy("project", "out/seed0000.png", "--steps", "3", "--loss", "pixel", "--space", "w+")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"seed0000.png", "seed0001.png", "mix.png", "directions-sefa.npz"} <= names
    with Image.open(tmp_path / "out" / "seed0000.png") as image:
        assert image.size == (16, 16)
    with pytest.raises(SganError, match="family 'toy'"):
        read_info(snapshot)  # it is not registered in this process
    magnitudes = [
        t for n, t in safetensors.torch.load_file(snapshot).items() if n.endswith(".magnitude") and n[0] == "G"
    ]
    assert all(0 < magnitude != 1 for magnitude in magnitudes), "its layers collected statistics"


def test_input_transform_and_bandwidths_of_a_new_family():
    script = (
        "import torch, _toy_family as toy\n"
        "G = toy.build(toy.ToyConfig(16, 16, z_dim=8, w_dim=8, channel_base=64, channel_max=8))\n"
        "ws = G.mapping(torch.randn(2, 8))\n"
        "assert [row.bandwidth for row in G.layers] == [2, 4, 8]\n"
        "rotation = torch.tensor([[0., -1, 0], [1, 0, 0], [0, 0, 1]])\n"
        "image, rotated = G.synthesis(ws), G.synthesis(ws, transform=rotation)\n"
        "assert torch.allclose(G.synthesis(ws, transform=torch.eye(3)), image, atol=1e-5)\n"
        "assert (image - rotated).abs().max() > 0.01"
    )
    subprocess.run([sys.executable, "-c", script], cwd=TOY.parent, check=True)
