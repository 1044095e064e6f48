"""A file that holds no known generator is refused in one sentence that says what it is, and how to go on."""

import gzip
import io
import json
import pickle
import re
import sys
import tarfile
import types
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from stylegan_cli.errors import SganError
from stylegan_cli.interop.opening import open_model


def image(format):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format)
    return file.getvalue()


def zipped(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        for name, data in entries.items():
            z.writestr(name, data)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as t:
        t.addfile(tarfile.TarInfo("model.ckpt"), io.BytesIO())
    return file.getvalue()


def saved(content, old=False):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def numpy_file(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def script():
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def exported():
    file = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    return file.getvalue()


FILES = {
    "a PNG image": lambda: image("PNG"),
    "a JPEG image": lambda: image("JPEG"),
    "a WebP image": lambda: image("WEBP"),
    "a GIF image": lambda: image("GIF"),
    "a BMP image": lambda: image("BMP"),
    "a TIFF image": lambda: image("TIFF"),
    "an AVIF image": lambda: b"\0\0\0\x1cftypavif" + bytes(60),
    "a video": lambda: b"\0\0\0\x1cftypisom" + bytes(60),
    "a zip of images.*--data": lambda: zipped(**{"a/0.png": image("PNG"), "dataset.json": b"{}"}),
    r"a zip that contains run/network\.pkl.*Unpack": lambda: zipped(**{"run/network.pkl": b"x"}),
    "a zip, but not one that torch.save wrote": lambda: zipped(**{"word/document.xml": b"<x/>"}),
    r"a file of NumPy arrays \(\.npz\)": lambda: numpy_file(w=np.zeros((1, 18, 512))),
    "a NumPy array": lambda: b"\x93NUMPY\1\0" + bytes(100),
    "a TorchScript program": script,
    r"a program of torch\.export": exported,
    "an XML text": lambda: b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    "a JSON text": lambda: json.dumps({"error": {"code": 403, "message": "quota exceeded"}}).encode(),
    "a web page": lambda: b"<!DOCTYPE html>\n<html><title>Google Drive - Virus scan warning</title></html>",
    "a Git LFS pointer.*git lfs pull": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "compressed with gzip.*Unpack": lambda: gzip.compress(b"x" * 100),
    "a tar archive.*Unpack": tarred,
    "an HDF5 file": lambda: b"\x89HDF\r\n\x1a\n" + bytes(100),
    r"a TensorFlow SavedModel \(\.pb\)": lambda: b"\x08\x01\x12\xa0\x05\x0a" + bytes(40),
    "a TensorFlow graph": lambda: b"\x0a\x1f\x0a\x05input\x12\x0bPlaceholder" + bytes(40),
    "the index of a TensorFlow checkpoint": lambda: bytes(100) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
    "an ONNX model": lambda: b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(40),
    "a text file": lambda: b"seed = 3\nnetwork = ffhq\n",
    "a text file, not a checkpoint": lambda: "Größe und Länge".encode(),
    r"a file of an unknown kind \(its first bytes are 00 01 02 ff\)": lambda: b"\0\1\2\xff" * 30,
    "a file of an unknown kind": lambda: bytes(3),
    "empty.*download it again": lambda: b"",
}


@pytest.fixture
def refusal(tmp_path):
    """Open a file with some content, and return the message and the hint."""

    def refuse(data):
        path = tmp_path / "x.pkl"
        path.write_bytes(data)
        with pytest.raises(SganError) as e:
            open_model(path)
        message = str(e.value)
        assert message.startswith(str(path)) and "\n" not in message and len(message) < len(str(path)) + 200
        assert not ("PyTorch pickle" in message or "TensorFlow pickle" in message)  # no list of the readers that failed
        return f"{message} {e.value.hint}"

    return refuse


@pytest.mark.parametrize("words", FILES)
def test_files_of_other_kinds(refusal, words):
    data = FILES[words]()
    assert re.search(rf"x\.pkl is {words}", message := refusal(data)), message
    assert not message.endswith("None"), message


CONTENTS = {
    "an incomplete StyleGAN3 generator": ["synthesis.L0_36_512.weight", "mapping.fc0.weight"],
    r"a StyleGAN-XL model \(each of its stages": [
        "mapping.embed_proj.weight",
        "synthesis.input.freqs",
        "synthesis.L0_36_512.weight",
    ],
    "an EG3D model": ["backbone.synthesis.b4.const", "superresolution.block0.conv0.weight"],
    "a model of lucidrains' stylegan2_pytorch": ["GAN.S.net.0.weight", "GAN.G.blocks.0.to_style1.weight"],
    "a StyleGAN of rosinality's style-based-gan": ["generator.progression.0.conv1.0.bias", "style.1.weight"],
    "a GFPGAN model": ["params_ema.stylegan_decoder.style_mlp.1.weight"],
    "a FastGAN or Projected GAN": ["main.init.init.0.weight_orig", "main.feat_8.1.weight"],
    "an encoder .* without its decoder": ["encoder.input_layer.0.weight", "encoder.styles.0.convs.0.weight"],
    "an encoder": ["input_layer.0.weight", "styles.0.linear.weight", "body.0.res_layer.0.weight"],
    "a face-recognition network": ["input_layer.0.weight", "body.0.res_layer.0.weight"],
    "an LPIPS network": ["lin0.model.1.weight", "lin1.model.1.weight"],
    "an Inception network": ["Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch1x1.conv.weight"],
    "a CLIP network": ["text_projection", "visual.conv1.weight"],
    "a diffusion model": ["down_blocks.0.resnets.0.conv1.weight", "time_embedding.linear_1.weight"],
    "a diffusion model.*": ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.x"],
    "a variational autoencoder": ["encoder.down.0.block.0.conv1.weight", "quant_conv.weight"],
    "a variational autoencoder.*": ["decoder.up_blocks.0.resnets.0.conv1.weight", "encoder.conv_in.weight"],
    "a LoRA": ["lora_unet_down_blocks_0.lora_up.weight", "lora_unet_down_blocks_0.lora_down.weight"],
    "a vision transformer": ["blocks.0.attn.qkv.weight", "cls_token"],
    "a VGG or similar": ["features.0.weight", "classifier.0.weight"],
    "a ResNet or similar": ["layer1.0.conv1.weight", "fc.weight"],
    "a discriminator without": ["b8.conv0.weight", "b4.out.weight"],
    "a discriminator without its": ["convs.0.0.weight", "final_linear.1.weight"],
    "a synthesis network without": ["b4.const", "b4.conv1.weight"],
    "an incomplete StyleGAN2 generator": ["style.1.weight", "to_rgbs.0.conv.weight"],
    "an incomplete StyleGAN2 generator: it lacks": ["mapping.fc0.weight", "synthesis.b8.conv1.weight"],
    "a SWAGAN": ["input.input", "to_rgbs.0.iwt.ll"],
    "a mapping network without": ["mapping.fc0.weight", "mapping.w_avg"],
    "a mapping network without its": ["style.1.weight", "style.2.weight"],
    "a file of latents": ["latents"],
    r"a checkpoint of another network, with tensors such as conv\.weight, conv\.bias": ["conv.weight", "conv.bias"],
}


@pytest.mark.parametrize("wrapper", ["", "state_dict", "module."])
@pytest.mark.parametrize("words", CONTENTS)
def test_other_networks(refusal, words, wrapper):
    dotted = wrapper if wrapper.endswith(".") and len(CONTENTS[words]) > 1 else ""
    state = {dotted + name: torch.zeros(2, 3) for name in CONTENTS[words]}
    message = refusal(saved({wrapper: state} if wrapper == "state_dict" else state))
    words = words.replace("such as conv", r"such as [a-z_.]*conv").replace(r", conv\.", r", [a-z_.]*conv\.")
    assert re.search(words, message), message
    assert not message.endswith("None"), message


@pytest.mark.parametrize("old", [False, True])
def test_other_objects(refusal, old):
    optimizer = torch.optim.Adam(torch.nn.Linear(2, 2).parameters())
    assert "the state of an optimizer" in refusal(saved(optimizer.state_dict(), old))
    assert "the state of an optimizer" in refusal(saved({"optimizer": optimizer.state_dict(), "epoch": 3}, old))
    assert "the state of an optimizer" in refusal(saved(optimizer, old))
    assert "one tensor of 1x18x512 values" in refusal(saved(torch.zeros(1, 18, 512), old))
    assert "class torch.nn.modules.container.Sequential" in refusal(saved(torch.nn.Sequential(torch.nn.ReLU()), old))
    assert "an encoder" in refusal(saved({"state_dict": torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2)})}, old))


def test_safetensors(refusal):
    assert "a LoRA" in refusal(safetensors.torch.save({"unet.lora_A.weight": torch.zeros(2)}))
    assert "a diffusion model" in refusal(
        safetensors.torch.save({"down_blocks.0.resnets.0.conv1.weight": torch.zeros(2)})
    )
    assert "the state of a run" in refusal(safetensors.torch.save({}, {"format": "stylegan_cli-state/1"}))
    assert "tuned weights" in refusal(safetensors.torch.save({}, {"format": "stylegan_cli/tuned/1"}))


def test_programs_are_named_by_their_classes(refusal, monkeypatch):
    for package, words in {
        "dill._dill": "StyleGAN-XL",
        "pg_modules.networks_fastgan": "StyleGAN-XL or Projected GAN",
        "sklearn.svm": r"sklearn\.svm\.Thing",
    }.items():
        module, Thing = types.ModuleType(package), type("Thing", (), {"__module__": package})
        module.Thing = Thing
        for depth in range(len(package.split("."))):
            monkeypatch.setitem(sys.modules, ".".join(package.split(".")[: depth + 1]), module)
        assert re.search(words, refusal(pickle.dumps({"G": Thing()})))


def test_cut_files(refusal):
    """Whatever their format: say that they are cut, rather than that they are of another kind."""
    contents = {"g_ema": {"input.input": torch.zeros(64, 64)}, "latent_avg": torch.zeros(5)}
    for data in (saved(contents), saved(contents, old=True), pickle.dumps({"a": "b" * 1000, "c": [1, 2, 3]})):
        for share in (0.3, 0.6, 0.95):
            message = refusal(data[: int(len(data) * share)])
            assert re.search(r"truncated|cut short", message) and "download it again" in message, message
