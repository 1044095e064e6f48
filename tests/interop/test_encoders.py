"""Encoders in the files of pSp, e4e and ReStyle. The files are written here from scratch, with few channels, and their
networks computed by the definitions of their layers, from the tensors in the file."""

import argparse
from dataclasses import dataclass, field

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.config import from_json, to_json
from stylegan_cli.errors import SganError
from stylegan_cli.interop.encoders import open_encoder
from stylegan_cli.interop.rosinality_writer import write_unchecked
from stylegan_cli.models.encoders.irse50 import IRSEConfig, IRSEEncoder
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

W_DIM, NUM_WS = 24, 8


@dataclass(frozen=True)
class Case:
    """A checkpoint: the class of its encoder, and what differs from the default."""

    encoder: str
    program: str
    channels: int = 3
    se: bool = True
    opts: dict = field(default_factory=dict)
    num_ws: int = NUM_WS
    w_dim: int = W_DIM

    @property
    def resnet(self):
        return self.encoder.startswith("ResNet")

    @property
    def pyramid(self):
        return "Gradual" in self.encoder or self.encoder == "Encoder4Editing"

    @property
    def into_w(self):
        return self.encoder in ("BackboneEncoderUsingLastLayerIntoW", "SingleStyleCodeEncoder")

    @property
    def into_w_plus(self):
        return self.encoder.endswith("IntoWPlus")

    @property
    def adds_up(self):
        return "Progressive" in self.encoder or self.encoder == "Encoder4Editing"


CARS = {"dataset_type": "cars_encode"}
CASES = {
    "psp": Case("GradualStyleEncoder", "pSp"),
    "psp-ir": Case("GradualStyleEncoder", "pSp", se=False),
    "psp-sketch": Case("GradualStyleEncoder", "pSp", 1, opts={"label_nc": 1}),
    "psp-masks": Case("GradualStyleEncoder", "pSp", 6, opts={"label_nc": 6}),
    "psp-w": Case("BackboneEncoderUsingLastLayerIntoW", "pSp", opts={"learn_in_w": True}),
    "psp-w-plus": Case("BackboneEncoderUsingLastLayerIntoWPlus", "pSp"),
    "e4e": Case("Encoder4Editing", "e4e"),
    "e4e-cars": Case("Encoder4Editing", "e4e", opts=CARS),
    "e4e-w": Case("SingleStyleCodeEncoder", "e4e"),
    "restyle": Case("BackboneEncoder", "ReStyle", 6),
    "restyle-pyramid": Case("GradualStyleEncoder", "ReStyle", 6),
    "restyle-e4e": Case("ProgressiveBackboneEncoder", "ReStyle", 6),
    "restyle-resnet": Case("ResNetBackboneEncoder", "ReStyle", 6),
    "restyle-resnet-pyramid": Case("ResNetGradualStyleEncoder", "ReStyle", 6),
    "restyle-cars": Case("ResNetProgressiveBackboneEncoder", "ReStyle", 6, opts=CARS),
}


# ------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """Weights of a generator of 32 x 32 with rosinality's names."""
    torch.manual_seed(3)
    shape = {"channel_base": 256, "channel_max": 16, "half_levels": 0, "conv_clamp": None}
    G = build_generator(StyleGAN2Config(32, 32, z_dim=W_DIM, w_dim=W_DIM, mapping_layers=2, **shape)).eval()
    path = tmp_path_factory.mktemp("decoder") / "G.pt"
    write_unchecked(path, G, None)
    return {f"decoder.{name}": tensor for name, tensor in torch.load(path)["g_ema"].items()}


def checkpoint(case, weights, decoder):
    """The content of a file that the program writes."""
    weights = {f"encoder.{name}": tensor for name, tensor in weights.items()} | decoder
    opts = {"encoder_type": case.encoder, "start_from_latent_avg": True, "device": "cuda:0", "n_iters_per_batch": 3}
    mean = torch.randn(1 if case.into_w else NUM_WS, W_DIM, generator=torch.Generator().manual_seed(8))
    return {"state_dict": weights, "opts": opts | case.opts, "latent_avg": mean}


@pytest.fixture
def opened(plain_encoders, decoder, tmp_path):
    """Write a checkpoint after a change, and open its encoder."""

    def open_changed(case, change=lambda tree: None, old=False):
        tree = checkpoint(CASES[case], plain_encoders.weights(CASES[case]), decoder)
        change(tree)
        torch.save(tree, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
        return open_encoder(tmp_path / "x.pt")

    return open_changed


def images(channels, count=2):
    """Smooth ones."""
    noise = torch.randn(count, channels, 9, 9, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, (256, 256), mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("case", CASES)
def test_encoders_match_their_definitions(case, plain_encoders, opened, decoder):
    """The differences from the original programs, at full size, were at most 5e-6, and 2e-5 after five passes."""
    encoder, weights = opened(case), plain_encoders.weights(CASES[case])
    E, G, ws = encoder.E, encoder.model.G, checkpoint(CASES[case], {}, {})["latent_avg"].expand(2, NUM_WS, W_DIM)
    assert (encoder.program, E.num_ws, E.w_dim, E.input_size) == (CASES[case].program, NUM_WS, W_DIM, (256, 256))
    assert (E.input_channels, E.iterative, E.passes) == (CASES[case].channels, *((True, 3) if E.iterative else (0, 1)))
    target = images(3 if E.iterative else E.input_channels)
    for _ in range(E.passes):
        present = F.interpolate(G.synthesis(ws), (256, 256), mode="nearest")  # pooling that enlarges by 8
        x = torch.cat([target, present], 1) if E.iterative else target
        expected = plain_encoders.offsets(weights, CASES[case], x)
        torch.testing.assert_close(E(x), expected, atol=1e-4, rtol=0)
        ws = ws + expected
    assert (expected[0] - expected[1]).std() > 0.01 and expected.std() > 0.05  # it looks at the images
    torch.testing.assert_close(encoder.encode(target), ws, atol=1e-4, rtol=0)


def test_an_encoder_can_be_saved_and_rebuilt(opened):
    E = opened("restyle-cars").E
    assert not E.training and not any(p.requires_grad for p in E.parameters())
    again = IRSEEncoder(from_json(IRSEConfig, to_json(E.config))).eval()
    again.load_state_dict(E.state_dict())
    x = images(6)
    torch.testing.assert_close(again(x), E(x), atol=1e-4, rtol=0)
    assert again.config == E.config and torch.equal(again.latent_avg, E.latent_avg)


def test_where_latents_start(opened):
    """At the mean in the file; without it at that of the generator; or nowhere, if the encoder was trained so."""

    def change(**opts):
        return lambda tree: tree["opts"].update(opts)

    mean = opened("e4e").E.latent_avg
    assert mean.shape == (NUM_WS, W_DIM) and mean.std() > 0.5
    assert not opened("e4e", change(start_from_latent_avg=False)).E.latent_avg.any()
    assert torch.equal(opened("restyle", change(start_from_latent_avg=False)).E.latent_avg, mean)  # it has no choice
    assert torch.equal(opened("psp-w").E.latent_avg[3], opened("psp-w").E.latent_avg[0])
    measured = opened("e4e", lambda tree: tree.pop("latent_avg"))
    assert torch.equal(measured.E.latent_avg, measured.model.G.mapping.w_avg.repeat(NUM_WS, 1))
    assert "measured" in measured.notes[0] and not opened("e4e").notes
    assumed = opened("e4e", lambda tree: tree["opts"].pop("start_from_latent_avg"))
    assert torch.equal(assumed.E.latent_avg, mean) and "assumed" in assumed.notes[0]


def test_passes(opened):
    restyle, psp = opened("restyle", lambda tree: tree["opts"].pop("n_iters_per_batch")), opened("psp")
    assert (restyle.E.passes, opened("restyle", lambda t: t["opts"].update(n_iters_per_batch=-1)).E.passes) == (5, 5)
    x = images(3)
    assert not torch.allclose(restyle.encode(x, 1), restyle.encode(x, 2))
    torch.testing.assert_close(restyle.encode(x), restyle.encode(x, 5), atol=1e-4, rtol=0)
    for encoder, passes in ((restyle, 0), (psp, 2), (psp, 0)):
        with pytest.raises(ValueError, match=f"not {passes}"):
            encoder.encode(x, passes)
    for encoder, wrong in ((restyle, x[:, :1]), (psp, x[:, :, :128]), (psp, images(6))):
        with pytest.raises(ValueError, match=r"must have shape \[N, 3, 256, 256\]"):
            encoder.encode(wrong)


def test_notes_about_images(opened):
    assert "sketch" in opened("psp-sketch").notes[0] and "mask" in opened("psp-masks").notes[0]
    assert "4:3" in opened("restyle-cars").notes[0]


@pytest.mark.parametrize("old", [False, True])
def test_wrapped_files(opened, old):
    """With settings as an object, and the weights below another name, in both formats of torch.save."""

    def wrap(tree):
        tree["opts"] = argparse.Namespace(**tree["opts"])
        tree["state_dict"] = {f"module.{name}": tensor for name, tensor in tree["state_dict"].items()}

    x = images(3)
    assert torch.equal(opened("e4e", wrap, old).encode(x), opened("e4e").encode(x))


# ----------------------------------------------------------------------------------------------- bad files


def drop(*names):
    return lambda tree: [tree["state_dict"].pop(f"encoder.{name}") for name in names]


def put(name, tensor):
    return lambda tree: tree["state_dict"].update({f"encoder.{name}": tensor})


def keep_only(start):
    def change(tree):
        tree["state_dict"] = {name: t for name, t in tree["state_dict"].items() if name.startswith(start)}

    return change


def without_block(tree):
    keep_only("")(tree)
    tree["state_dict"] = {n: t for n, t in tree["state_dict"].items() if not n.startswith("encoder.body.23.")}


def without_last_style(tree):
    tree["state_dict"] = {n: t for n, t in tree["state_dict"].items() if not n.startswith("encoder.styles.7.")}


def share(tree):
    """All tensors are the same memory."""
    weights, memory = tree["state_dict"], torch.zeros(100_000)
    weights |= {n: memory[: t.numel()].view(t.shape) for n, t in weights.items() if n.startswith("encoder.")}


def twice(tree):
    tree["ema"] = {"encoder.input_layer.0.weight": torch.zeros(1)}


BAD = {
    "decoder only": (keep_only("decoder"), "cannot be used: it has no encoder"),
    "encoder only": (keep_only("encoder"), "an encoder .* without its decoder"),
    "two": (twice, "cannot be used: it has 2 encoders, not one"),
    "no settings": (lambda tree: tree.pop("opts"), r"cannot be used: its opts do not name .* \(encoder_type\)"),
    "settings": (lambda tree: tree.update(opts=[1]), "encoder_type"),
    "class": (lambda tree: tree["opts"].update(encoder_type="Swin\nT"), r"its encoder is a Swin\\nT, which is not"),
    "resnet": (lambda tree: tree["opts"].update(encoder_type="ResNetBackboneEncoder"), r"no encoder\.conv1\.weight"),
    "no pyramid": (drop("latlayer1.weight"), r"cannot be read: it has no encoder\.latlayer1\.weight"),
    "pyramid": (lambda tree: tree["opts"].update(encoder_type="BackboneEncoder"), r"encoder\.latlayer1\.bias.* not"),
    "tensor": (drop("body.9.res_layer.4.running_var"), r"no encoder\.body\.9\.res_layer\.4\.running_var"),
    "block": (without_block, r"stages of \(3, 4, 14, 2\) residual blocks"),
    "latents": (without_last_style, "takes 8 latents of 24 values, but its encoder returns 7 of 24"),
    "unknown": (put("body.3.res_layer.6.weight", torch.zeros(2)), r"body\.3\.res_layer\.6\.weight, which is not"),
    "shape": (put("styles.4.convs.2.bias", torch.zeros(23)), r"configuration: encoder\.styles\.4\.convs\.2\.bias"),
    "no tensor": (put("body.5.res_layer.1.weight", 7), r"no encoder\.body\.5\.res_layer\.1\.weight"),
    "styles": (put("styles.999.linear.weight", torch.zeros(2, 2)), r"1000 modules encoder\.styles"),
    "NaN": (
        put("styles.4.linear.bias", torch.full([W_DIM], torch.nan)),
        r"not finite.*encoder\.styles\.4\.linear\.bias",
    ),
    "mean": (lambda tree: tree.update(latent_avg=torch.zeros(5, W_DIM)), r"latent_avg has the shape \[5, 24\], not"),
    "NaN mean": (lambda tree: tree.update(latent_avg=torch.full([1, W_DIM], torch.nan)), "not finite"),
    "shared": (share, "its tensors are larger than the file"),
}


@pytest.mark.parametrize("bad", BAD)
def test_unusable_files_are_refused_in_one_sentence(bad, opened):
    change, message = BAD[bad]
    with pytest.raises(SganError, match=message) as e:
        opened("psp", change)
    assert "x.pt" in str(e.value) and "\n" not in str(e.value) and str(e.value).count(". ") == 0


@pytest.mark.parametrize("old", [False, True])
def test_cut_files_are_refused(opened, tmp_path, old):
    opened("psp-w", old=old)
    path = tmp_path / "x.pt"
    data = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.7, 0.999):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SganError):
            open_encoder(path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("place", ["opts", "latent_avg", "more"])
def test_code_in_a_file_is_never_run(opened, capsys, place, old):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(SganError, match=r"builtin.*\.print"):
        opened("psp-w", lambda tree: tree.update({place: Evil()}), old)
    assert not capsys.readouterr().out


def test_other_files(decoder, tmp_path):
    G = build_generator(StyleGAN2Config(16, 16, z_dim=8, w_dim=8, channel_base=64, channel_max=8))
    save_snapshot(tmp_path / "snapshot.safetensors", G, None, SnapshotInfo(G.config))
    for name, message in (("snapshot.safetensors", "is a snapshot, not a checkpoint"), ("none.pt", "does not exist")):
        with pytest.raises(SganError, match=message):
            open_encoder(tmp_path / name)
