"""Files of MMGeneration and MMagic, written here from scratch, against the definitions of their layers."""

import math
import sys
import types

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop.opening import checkpoint_info, open_model

Z, W, MAPPING, CHANNELS = 12, 12, 2, {4: 8, 8: 8, 16: 6}
CONFIG = "train_pipeline = [dict(type='Normalize', to_rgb={})]\nval_pipeline = [dict(type='Normalize', to_rgb=True)]"
KERNEL = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


def linear(prefix, inputs, outputs):
    return {f"{prefix}.linear.weight_orig": torch.randn(outputs, inputs), f"{prefix}.bias": torch.randn(outputs) * 0.3}


def modulated(prefix, inputs, outputs, k):
    style = linear(f"{prefix}.conv.style_modulation", W, inputs)
    style[f"{prefix}.conv.style_modulation.bias"] += 1
    return style | {f"{prefix}.conv.weight_orig": torch.randn(1, outputs, inputs, k, k)}


def layer(prefix, inputs, outputs, up=False):
    weights = modulated(prefix, inputs, outputs, 3) | ({f"{prefix}.conv.blur.kernel": KERNEL * 4} if up else {})
    noise, bias = torch.randn(1) * 0.3, torch.randn(outputs) * 0.3
    return weights | {f"{prefix}.noise_injector.weight": noise, f"{prefix}.activate.bias": bias}


def to_rgb(prefix, inputs):
    return modulated(prefix, inputs, 3, 1) | {f"{prefix}.bias": torch.randn(1, 3, 1, 1)}


def generator(classes=0):
    """The state of a generator of 16 x 16."""
    first = 0 if classes else 1
    weights = {"constant_input.input": torch.randn(1, CHANNELS[4], 4, 4)}
    weights |= layer("conv1", CHANNELS[4], CHANNELS[4]) | to_rgb("to_rgb1", CHANNELS[4])
    for j, level in enumerate((8, 16)):
        weights |= layer(f"convs.{2 * j}", CHANNELS[level // 2], CHANNELS[level], up=True)
        weights |= layer(f"convs.{2 * j + 1}", CHANNELS[level], CHANNELS[level])
        weights |= to_rgb(f"to_rgbs.{j}", CHANNELS[level]) | {f"to_rgbs.{j}.upsample.kernel": KERNEL * 4}
    for i, side in enumerate((4, 8, 8, 16, 16)):
        weights[f"injected_noise_{i}"] = torch.randn(1, 1, side, side)
    for i in range(MAPPING):
        weights |= linear(f"style_mapping.{i + first}", Z + W if classes and i == 0 else Z, W)
        weights[f"style_mapping.{i + first}.linear.weight_orig"] *= 100
        weights[f"style_mapping.{i + first}.bias"] *= 30
    return weights | (linear("embed", classes, W) | {"w_avg": torch.randn(W)} if classes else {})


def discriminator():
    def conv(prefix, inputs, outputs, k, index=0):
        return {f"{prefix}.{index}.conv.weight_orig": torch.randn(outputs, inputs, k, k)}

    weights = conv("convs.0", 3, CHANNELS[16], 1) | {"convs.0.1.bias": torch.randn(CHANNELS[16])}
    for i, level in ((1, 16), (2, 8)):
        a, b = CHANNELS[level], CHANNELS[level // 2]
        weights |= conv(f"convs.{i}.conv1", a, a, 3) | {f"convs.{i}.conv1.1.bias": torch.randn(a)}
        weights |= conv(f"convs.{i}.conv2", a, b, 3, 1) | {f"convs.{i}.conv2.2.bias": torch.randn(b)}
        weights |= conv(f"convs.{i}.skip", a, b, 1, 1)
        weights |= {f"convs.{i}.conv2.0.kernel": KERNEL, f"convs.{i}.skip.0.kernel": KERNEL}
    weights |= conv("final_conv", CHANNELS[4] + 1, CHANNELS[4], 3) | {"final_conv.1.bias": torch.randn(CHANNELS[4])}
    return weights | linear("final_linear.0", CHANNELS[4] * 16, CHANNELS[4]) | linear("final_linear.1", CHANNELS[4], 1)


def dense(plain, t, name, x, lr=1.0):
    return plain.dense(x, t[f"{name}.linear.weight_orig"], t[f"{name}.bias"], lr=lr)


def generate(plain, t, z, label=None, taps=(1, 3, 3, 1)):
    """The image of the generator, as it is: BGR if it was trained so."""
    w, first = plain.unit(z), 1
    if label is not None:
        w, first = torch.cat([w, plain.unit(dense(plain, t, "embed", label))], 1), 0
    for i in range(MAPPING):
        w = plain.lrelu(dense(plain, t, f"style_mapping.{i + first}", w, lr=0.01))

    def conv(x, name, noise, up=False):
        kernel = t[f"{name}.conv.weight_orig"][0]
        kernel = kernel.flip(2, 3) if up else kernel  # a transposed correlation there, which flips the kernel
        x = plain.modulated(x, kernel, dense(plain, t, f"{name}.conv.style_modulation", w), up)
        x = x + t[f"{name}.noise_injector.weight"] * t[f"injected_noise_{noise}"]
        return plain.lrelu(x + t[f"{name}.activate.bias"][:, None, None])

    def rgb(x, name):
        style = dense(plain, t, f"{name}.conv.style_modulation", w)
        return plain.modulated(x, t[f"{name}.conv.weight_orig"][0], style, demodulate=False) + t[f"{name}.bias"]

    x = conv(t["constant_input.input"].repeat(len(z), 1, 1, 1), "conv1", 0)
    image = rgb(x, "to_rgb1")
    for j in range(2):
        x = conv(conv(x, f"convs.{2 * j}", 2 * j + 1, up=True), f"convs.{2 * j + 1}", 2 * j + 2)
        image = plain.upsample(image) + rgb(x, f"to_rgbs.{j}")
    return image


def discriminate(plain, t, x):
    x = plain.convolution(x, t["convs.0.0.conv.weight_orig"], t["convs.0.1.bias"])
    for i in (1, 2):
        y = plain.convolution(x, t[f"convs.{i}.conv1.0.conv.weight_orig"], t[f"convs.{i}.conv1.1.bias"])
        y = plain.convolution(y, t[f"convs.{i}.conv2.1.conv.weight_orig"], t[f"convs.{i}.conv2.2.bias"], down=True)
        x = (y + plain.convolution(x, t[f"convs.{i}.skip.1.conv.weight_orig"], down=True)) / math.sqrt(2)
    x = plain.append_deviation(x, 4)
    x = plain.convolution(x, t["final_conv.0.conv.weight_orig"], t["final_conv.1.bias"])
    return dense(plain, t, "final_linear.1", plain.lrelu(dense(plain, t, "final_linear.0", x.flatten(1))))


def training_file(prefix="generator_ema.", to_rgb=False):
    """What MMGeneration writes while it trains: networks in one state dictionary, with their optimizers."""
    torch.manual_seed(5)
    average, other, D = generator(), generator(), discriminator()
    state = {f"generator.{name}": t for name, t in other.items()} | {prefix + name: t for name, t in average.items()}
    state |= {f"discriminator.{name}": t for name, t in D.items()}
    moments = {"state": {0: {"step": 3, "exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 0.002}]}
    optimizers = {"generator": moments, "discriminator": moments}
    meta = {"mmgen_version": "0.7.1", "config": CONFIG.format(to_rgb), "iter": 800000}
    return {"meta": meta, "state_dict": state, "optimizer": optimizers}, average, D


def save(path, tree, old=False):
    torch.save(tree, path, _use_new_zipfile_serialization=not old)
    return path


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("is_bgr", [True, False])
def test_networks_match_their_definitions(plain, tmp_path, is_bgr, old):
    tree, average, D = training_file(to_rgb=not is_bgr)
    path = save(tmp_path / "iter_800000.pth", tree, old)
    model = open_model(path)
    z, x = torch.randn(3, Z), torch.randn(8, 3, 16, 16)
    image = generate(plain, average, z)
    assert model.info.origin.startswith("MMGeneration file iter_800000.pth") and model.G.mapping.w_avg.any()
    torch.testing.assert_close(model.G(z), image.flip(1) if is_bgr else image, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.D(x), discriminate(plain, D, x.flip(1) if is_bgr else x), atol=1e-4, rtol=0)
    assert any(("BGR" if is_bgr else "as RGB") in note for note in checkpoint_info(path)[1])


@pytest.mark.parametrize("prefix", ["", "generator.", "generator_ema.", "module.generator_ema."])
def test_a_generator_without_a_record_is_rgb(plain, tmp_path, prefix):
    """As the official weights that were converted from NVIDIA's."""
    torch.manual_seed(6)
    weights = generator()
    state = {prefix + name: tensor for name, tensor in weights.items()}
    model, z = open_model(save(tmp_path / "official.pth", {"state_dict": state})), torch.randn(2, Z)
    assert model.D is None
    torch.testing.assert_close(model.G(z), generate(plain, weights, z), atol=1e-4, rtol=0)
    notes = " ".join(checkpoint_info(model.path)[1])
    assert ("no moving average" in notes) == ("ema" not in prefix) and "RGB" in notes and "10,000" in notes


def test_a_conditional_network_of_mmagic(plain, tmp_path):
    torch.manual_seed(7)
    weights, D = generator(classes=4), discriminator() | {"mapping.embed.weight": torch.randn(8, 4)}
    state = {f"generator_ema.module.{name}": t for name, t in weights.items()}
    state |= {f"discriminator.{name}": t for name, t in D.items()}
    state["generator_ema.steps"] = torch.tensor(7)
    meta = {"mmengine_version": "0.10", "cfg": "", "iter": 9}
    path = save(tmp_path / "cond.pth", {"state_dict": state, "meta": meta})
    model, z, c = open_model(path), torch.randn(4, Z), torch.eye(4)
    assert model.G.config.c_dim == 4 and model.G.config.z_dim == Z and model.D is None
    torch.testing.assert_close(model.G(z, c), generate(plain, weights, z, c).flip(1), atol=1e-4, rtol=0)
    assert torch.equal(model.G.mapping.w_avg, weights["w_avg"]) and "MMagic" in model.info.origin
    assert any("discriminator is omitted" in note for note in checkpoint_info(path)[1])


def test_records_of_the_training_are_skipped(tmp_path, monkeypatch):
    """MMagic's log of losses is made of objects with NumPy arrays and methods of their own class."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self._log_history, self._statistics_methods = np.zeros(3), {"mean": HistoryBuffer.mean}

        def mean(self):
            raise AssertionError("it was called")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = module.__name__, "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    tree = training_file()[0] | {"message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}}}
    assert open_model(save(tmp_path / "x.pth", tree)).D is not None


def refused_trees():
    tree, average, D = training_file()
    state = tree["state_dict"]
    no_filters = {name: t for name, t in average.items() if not name.endswith(".kernel")}
    mixed = average | {"convs.0.conv.blur.kernel": torch.full((4, 4), 0.25)}
    pggan = {"generator.noise2feat.linear.weight_orig": torch.zeros(3, 3)}
    studiogan = {"b4.fc.weight": torch.zeros(2, 2), "linear1.weight": torch.zeros(1, 2)}
    return {
        "discriminator": ({"state_dict": {f"discriminator.{k}": t for k, t in D.items()}}, "discriminator of MMGen"),
        "another network": ({"state_dict": pggan, "meta": tree["meta"]}, "MMGeneration, but not of its StyleGAN2"),
        "no filters": ({"state_dict": no_filters}, "MSPIE"),
        "mixed filters": ({"state_dict": mixed}, "different resampling filters"),
        "unknown weight": ({"state_dict": state | {"generator_ema.head_pos_enc.x": torch.zeros(1)}}, "head_pos_enc"),
        "studiogan": ({"state_dict": studiogan, "optimizer": {}, "run_name": "x"}, "discriminator of StudioGAN"),
    }


@pytest.mark.parametrize("case", refused_trees())
def test_other_networks_are_refused_by_name(tmp_path, case):
    tree, words = refused_trees()[case]
    with pytest.raises(SganError, match=f"cannot be used: .*{words}"):
        open_model(save(tmp_path / "x.pth", tree))
