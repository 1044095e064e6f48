"""The kernels of frozen networks: under the sanitizers, and called from Python on emulated kernels, and on a GPU if
there is one."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli import ops
from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.ops import add_skip
from stylegan_cli.ops.frozen import Image, frozen_styles, layer_end, modulated_conv2d_image
from stylegan_cli.ops.modulated_conv2d import demodulation, pack_weights

HALF = (torch.float16, torch.bfloat16)
TAPS = torch.tensor([1.0, 3.0, 5.0, 2.0]) / 11  # not symmetric
EPS = {torch.float32: 3e-6, torch.float16: 1.1e-3, torch.bfloat16: 9e-3}


# ---------------------------------------------------------------------------------------------------------------------
# Styles of all layers

LAYERS = [(5, 9, False), (5, 3, True), (40, 17, False), (300, 8, False), (300, 1, True)]  # inputs, outputs, toRGB


def style_operands(n):
    generator = torch.Generator().manual_seed(0)
    styles = torch.randn(len(LAYERS), n, 300, generator=generator)
    weights = [torch.rand(o, i, generator=generator) for i, o, _ in LAYERS]
    return styles, weights


def expected_styles(styles, weights, normalize):
    """[N, I] or [N, O, I], and [N, O], of each layer."""
    for style, weight, (i, _, is_torgb) in zip(styles.double(), weights, LAYERS):
        style, weight = style[:, :i], weight.double()
        if is_torgb:
            yield style[:, None] * weight, None
        else:
            style = style / style.abs().amax(1, keepdim=True) if normalize else style
            yield style, demodulation(style, weight)


@pytest.mark.parametrize("normalize", [0, 1])
def test_styles_under_sanitizers(emulator, normalize):
    styles, weights = style_operands(2)
    expected = list(expected_styles(styles, weights, normalize))
    fields = {"style": styles, "weight": torch.cat([w.flatten() for w in weights]), "n": 2, "pitch": 300}
    starts = {"weight_start": 0, "out_start": 0, "d_start": 0}
    for name, numbers in {"i": 0, "o": 1, "torgb": 2}.items():
        fields[name] = [int(row[numbers]) for row in LAYERS] + [0] * 27
    for name, sizes in {
        "weight_start": [w.numel() for w in weights],
        "out_start": [s.numel() for s, _ in expected],
        "d_start": [0 if d is None else d.numel() for _, d in expected],
    }.items():
        starts[name] = sum(sizes)
        fields[name] = list(itertools.accumulate(sizes, initial=0))[:-1] + [0] * 27
    out, d = (torch.empty(starts[name]) for name in ("out_start", "d_start"))
    fields |= {"out": out, "d": d, "layers": len(LAYERS), "normalize": normalize}
    emulator.call("frozen_styles", **fields)
    for found, k in ((out, 0), (d, 1)):
        exact = torch.cat([row[k].flatten() for row in expected if row[k] is not None])
        torch.testing.assert_close(found, exact.float())
    with pytest.raises(RuntimeError, match="between 1 and 32"):
        emulator.call("frozen_styles", **fields | {"layers": 33})


@pytest.mark.parametrize("n", [0, 1, 3])
def test_styles(device, n):
    styles, weights = style_operands(n)
    inputs, outputs, is_torgb = zip(*LAYERS)
    flat = torch.cat([w.flatten() for w in weights]).to(device)
    out, d = frozen_styles(styles.to(device), flat, inputs, outputs, is_torgb, True)
    assert not [t.shape for t in (*out, *d) if t.numel() and t.data_ptr() % 16], "kernels read 16 bytes at once"
    if n:
        for found, exact in zip(zip(out, d), expected_styles(styles, weights, True)):
            torch.testing.assert_close(found[0].cpu().double(), exact[0], rtol=1e-5, atol=1e-6)
            assert (found[1].numel() == 0) == (exact[1] is None)
    for change in ({"inputs": [301] * 5}, {"outputs": outputs[:4]}, {"weight": flat[1:]}):
        fields = {"style": styles.to(device), "weight": flat, "inputs": inputs, "outputs": outputs}
        with pytest.raises(RuntimeError, match="channels, but|sizes of|wrong shape"):
            torch.ops.sgan.frozen_styles(*(fields | change).values(), [int(x) for x in is_torgb], True)


# ---------------------------------------------------------------------------------------------------------------------
# The end of a layer


def operands(dtype, shape, k=3, noise="each", below=True, following=True):
    generator = torch.Generator().manual_seed(0)
    n, c, h, w = shape

    def randn(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).float()

    tensors = {"x": randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)}
    tensors |= {"d": randn(n, c).abs(), "b": randn(c)}
    tensors["noise"] = None if noise is None else randn(n if noise == "each" else 1, 1, h, w)
    tensors["following"] = randn(n, c) if following else None
    image = None
    if k:
        under = randn(n, k, h // 2, w // 2).contiguous(memory_format=torch.channels_last) if below else None
        image = Image(randn(n, k, c) / math.sqrt(c), randn(k), 0.8, under, TAPS, False)
    return tensors, image


def expected_end(tensors, image, slope, gain, clamp):
    t = {name: None if x is None else x.double() for name, x in tensors.items()}
    y = t["x"] * t["d"][:, :, None, None] + (0 if t["noise"] is None else t["noise"]) + t["b"][:, None, None]
    y = (F.leaky_relu(y, slope) * gain).clamp(-clamp, clamp)
    out = y if t["following"] is None else y * t["following"][:, :, None, None]
    return out, None if image is None else expected_image(y, image)


def expected_image(y, image):
    w, b, clamp, below, f, _ = image
    rgb = torch.einsum("nkc,nchw->nkhw", w.double(), y.double())
    with ops.use("reference"):
        return add_skip(rgb, b.double(), None if below is None else below.double(), f.double(), clamp)


CASES = [  # dtype, rounded to, shape, channels of the image, noise, below, following
    (torch.float16, None, (2, 16, 4, 6), 3, "each", True, True),
    (torch.float16, None, (1, 264, 2, 2), 3, "shared", True, False),  # two vectors of a lane
    (torch.bfloat16, None, (3, 32, 6, 6), 1, None, True, True),
    (torch.float16, None, (2, 5, 3, 5), 2, "each", False, True),  # no whole vectors, odd size
    (torch.float32, None, (2, 4, 10, 2), 3, "shared", True, True),
    (torch.float32, torch.float16, (2, 136, 2, 4), 3, "each", True, True),
    (torch.float32, torch.bfloat16, (1, 3, 4, 4), 0, "each", True, False),
    (torch.float16, None, (1, 8, 34, 66), 0, "each", True, True),  # several blocks
    (torch.float16, None, (2, 8, 34, 66), 3, "each", True, True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
@pytest.mark.parametrize("features", [True, False])
def test_layer_end_under_sanitizers(emulator, case, features):
    dtype, half, shape, k, *rest = case
    tensors, image = operands(dtype, shape, k, *rest)
    y, rgb = expected_end(tensors, image, 0.2, 1.3, 1.5)
    fields = {name: t for name, t in tensors.items() if name not in ("d", "following")}
    fields |= {"scale": tensors["d"], "next": tensors["following"]} | dict(zip(("n", "c", "height", "width"), shape))
    noise = tensors["noise"]
    fields |= {"noise_stride": 0 if noise is None or len(noise) == 1 else shape[2] * shape[3]}
    fields |= {"dtype": dtype, "out_dtype": half or dtype, "slope": 0.2, "gain": 1.3, "clamp": 1.5}
    fields |= {"image_c": k, "image_clamp": 0.8}
    out, target = torch.empty_like(tensors["x"], dtype=half or dtype), None
    if image:
        target = torch.empty(rgb.shape, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
        fields |= {"rgb": image.w, "rgb_b": image.b, "below": image.below, "below_f": image.f, "image": target}
    fields["y"] = out if features else None
    emulator.call("layer_end", **fields)
    eps = EPS[half or dtype]
    if features:
        assert ((out.double() - y).abs() <= eps * (y.abs() + 0.01)).all()
    if image:
        torch.testing.assert_close(target.double(), rgb, rtol=0, atol=EPS[torch.float32])
        with pytest.raises(RuntimeError, match="1 to 3 channels"):
            emulator.call("layer_end", **fields | {"image_c": 4})


def test_layer_end(device):
    for dtype, half, shape, k, *rest in CASES:
        tensors, image = operands(dtype, shape, k, *rest)
        y, rgb = expected_end(tensors, image, 0.2, 1.3, 1.5)
        there = {name: None if t is None else t.to(device) for name, t in tensors.items()}
        x, d, b, noise, following = there.values()
        for alone in {False, image is not None}:
            target = image and Image(*(t.to(device) if isinstance(t, torch.Tensor) else t for t in image[:5]), alone)
            found, pixels = layer_end(x, d, noise, b, 0.2, 1.3, 1.5, following, half or dtype, target)
            assert found.dtype == (half or dtype) and found.shape[1] == (0 if alone else shape[1])
            if not alone:
                assert ((found.cpu().double() - y).abs() <= EPS[half or dtype] * (y.abs() + 0.01)).all()
            assert (pixels is None) == (rgb is None)
            if rgb is not None:
                torch.testing.assert_close(pixels.cpu().double(), rgb, rtol=0, atol=EPS[torch.float32])


def test_layer_end_refuses(device):
    tensors, image = operands(torch.float32, (2, 4, 4, 4))
    x, d, b, noise, following = (t.to(device) for t in tensors.values())
    for change, message in [
        ({"w": image.w[:, :2]}, "rgb has the wrong shape"),
        ({"below": image.below[:1]}, "below does not fit"),
        ({"f": image.f[1:]}, "below_f has the wrong shape"),
    ]:
        other = image._replace(**change)
        other = Image(*(t.to(device) if isinstance(t, torch.Tensor) else t for t in other))
        with pytest.raises(RuntimeError, match=message):
            layer_end(x, d, noise, b, 0.2, 1.3, 1.5, following, x.dtype, other)


def test_opcheck(device):
    styles, weights = style_operands(4)  # whole vectors: what lies between those that are not is never written
    inputs, outputs, is_torgb = (list(row) for row in zip(*LAYERS))
    flat = torch.cat([w.flatten() for w in weights])
    arguments = (styles.to(device), flat.to(device), inputs, outputs, [int(x) for x in is_torgb], True)
    torch.library.opcheck(torch.ops.sgan.frozen_styles.default, arguments)
    tensors, image = operands(torch.float32, (2, 4, 4, 4))
    x, d, b, noise, following = (t.to(device) for t in tensors.values())
    target = [image.w, image.b, image.below, image.f]
    for rgb, half, features in ((target, 0, False), ([None] * 4, 1, True), (target, 2, True)):
        rgb = [None if t is None else t.to(device) for t in rgb]
        arguments = (x, d, noise, b, following, *rgb, 0.2, 1.3, 1.5, 0.8, half, features)
        torch.library.opcheck(torch.ops.sgan.layer_end.default, arguments)


# ---------------------------------------------------------------------------------------------------------------------
# The image in the fused convolution

CONVOLUTIONS = [  # n, inputs, outputs, height, width, channels of the image, image below
    (2, 8, 8, 4, 4, 3, True),
    (2, 40, 24, 18, 16, 1, True),  # several tiles
    (1, 16, 32, 8, 18, 3, False),
    (2, 104, 32, 6, 4, 2, True),
    (2, 64, 64, 16, 18, 3, True),
    (2, 24, 128, 8, 10, 3, True),
    (1, 8, 72, 18, 4, 3, True),
]


def convolution(dtype, n, i, o, h, w, k, below):
    generator = torch.Generator().manual_seed(0)

    def randn(*size):
        return torch.randn(size, generator=generator)

    x = randn(n, i, h, w).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = (randn(o, i, 3, 3) / (3 * i**0.5)).to(dtype)
    style, d, noise, b = randn(n, i) + 1, randn(n, o) / 3, randn(n, 1, h, w), randn(o)
    under = randn(n, k, h // 2, w // 2).contiguous(memory_format=torch.channels_last) if below else None
    image = Image((randn(n, k, o) / math.sqrt(o)).to(dtype).float(), randn(k), 0.8, under, TAPS, False)
    scaled = (x.double() * style.double()[:, :, None, None]).to(dtype).double()
    y = F.conv2d(scaled, weight.double(), padding=1) * d.double()[:, :, None, None] + noise + b[:, None, None]
    y = (F.leaky_relu(y, 0.2) * 1.3).clamp(-1.5, 1.5)
    return (x, pack_weights(weight), style, d, noise, b), image, y, expected_image(y, image)


def assert_image(found, exact, dtype):
    """Features are rounded before the image is computed from them."""
    assert (found.double() - exact).square().mean().sqrt() < EPS[dtype] / 3
    assert (found.double() - exact).abs().max() < 2 * EPS[dtype]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("wgmma", [0, 1])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: "-".join(map(str, case)))
def test_convolution_with_image_under_sanitizers(emulator, dtype, wgmma, case):
    (x, packed, style, d, noise, b), image, y, rgb = convolution(dtype, *case)
    n, i, o, h, w, k, _ = case
    fields = {"x": x, "w": packed, "style": style, "d": d, "noise": noise, "b": b, "dtype": dtype, "image_c": k}
    fields |= {"rgb": image.w, "rgb_b": image.b, "below": image.below, "below_f": image.f, "image_clamp": 0.8}
    fields |= {"n": n, "in_c": i, "out_c": o, "height": h, "width": w, "noise_stride": h * w, "k": 3, "up": 1}
    fields |= {"wgmma": wgmma, "slope": 0.2, "gain": 1.3, "clamp": 1.5}
    for features in (True, False):
        out = torch.empty(y.shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
        target = torch.empty(rgb.shape).contiguous(memory_format=torch.channels_last)
        emulator.call("modulated_conv2d", **fields | {"y": out if features else None, "image": target})
        assert_image(target, rgb, dtype)
        assert not features or ((out.double() - y).abs() <= EPS[dtype] * (y.abs() + 0.1)).all()


def test_convolution_with_image(device):
    for case in CONVOLUTIONS:
        operands, image, y, rgb = convolution(torch.float16, *case)
        operands = [t.to(device) for t in operands]
        for alone in (False, True):
            target = Image(*(t.to(device) if isinstance(t, torch.Tensor) else t for t in image[:5]), alone)
            found, pixels = modulated_conv2d_image(*operands, 0.2, 1.3, 1.5, target)
            assert_image(pixels.cpu(), rgb, torch.float16)
            assert found.shape[1] == 0 if alone else (found.cpu().double() - y).abs().max() < 2e-3


def test_opcheck_of_convolution_with_image(device):
    (x, packed, *small), image, _, _ = convolution(torch.float16, *CONVOLUTIONS[0])
    small = [t.to(device) for t in (*small, image.w, image.b, image.below, image.f)]
    arguments = (x.to(device), packed.to(device), 8, *small, 0.2, 1.3, 1.5, 0.8)
    for features in (False, True):
        torch.library.opcheck(torch.ops.sgan.modulated_conv2d_image.default, (*arguments, features))


# ---------------------------------------------------------------------------------------------------------------------
# Whole networks

NETWORKS = {
    "skip": {},
    "wide": {"channels": 1, "conv_clamp": 0.5},
    "filter": {"fir": (1.0, 2.0, 1.0)},  # the kernels do not take it
    "many": {"channels": 4},  # as many as they do not take
    "orig": {"architecture": "orig"},
    "resnet": {"architecture": "resnet"},
}


@pytest.mark.parametrize("implementation", ["cuda", "fused"])
@pytest.mark.parametrize("n", [0, 1])
def test_channels_that_are_no_whole_vectors(device, implementation, n):
    """24, 12 and 6: the operands of some layers begin after those of others."""
    torch.manual_seed(0)
    config = StyleGAN2Config(32, 32, half_levels=3, channel_base=192, channel_max=24, z_dim=8, w_dim=8)
    G = build_generator(config).to(device).requires_grad_(False)
    ws = torch.randn(n, G.num_ws, 8, device=device)
    with ops.use(implementation):
        result, plain = frozen_synthesis(G)(ws, dtype=torch.float16), G.synthesis(ws, dtype=torch.float16)
    torch.testing.assert_close(result, plain, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_weights_of_other_types(device, dtype):
    G = build_generator(StyleGAN2Config(8, 8, z_dim=8, w_dim=8, channel_base=64)).to(device, dtype)
    G.requires_grad_(False)
    ws = torch.randn(2, G.num_ws, 8, device=device, dtype=dtype)
    torch.testing.assert_close(frozen_synthesis(G)(ws), G.synthesis(ws), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("implementation", ["cuda", "fused"])
@pytest.mark.parametrize("layer", ["b8.conv0", "b8.conv1", "b16.torgb"])
@pytest.mark.parametrize("name", ["weight", "bias", "affine.weight"])
def test_a_change_of_the_weights_is_noticed(device, implementation, layer, name):
    """The kernels have copies of them, and of what depends on them."""
    torch.manual_seed(0)
    config = StyleGAN2Config(16, 16, half_levels=2, channel_base=128, channel_max=16, z_dim=8, w_dim=8)
    G = build_generator(config).to(device).requires_grad_(False)
    ws, frozen = torch.randn(2, G.num_ws, 8, device=device), frozen_synthesis(G)
    with ops.use(implementation):
        before = frozen(ws, dtype=torch.float16)
        G.synthesis.get_submodule(layer).get_parameter(name)[:1].mul_(1.5).add_(1)
        after, plain = frozen(ws, dtype=torch.float16), G.synthesis(ws, dtype=torch.float16)
    assert (after - plain).abs().max() < 0.1 * (after - before).abs().max()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("implementation", ["cuda", "fused"])
@pytest.mark.parametrize("dtype", [None, *HALF], ids=str)
def test_frozen_networks(device, name, implementation, dtype):
    """As close to full precision as the network itself."""
    torch.manual_seed(0)
    sizes = {"channel_base": 256, "channel_max": 16, "z_dim": 8, "w_dim": 8}
    config = StyleGAN2Config(16, 24, mapping_layers=2, half_levels=1, **sizes, **NETWORKS[name])
    G = build_generator(config).to(device).requires_grad_(False)
    for path, weight in G.synthesis.named_parameters():
        if path.endswith(("bias", "strength")):
            weight.add_(0.3)
    frozen = frozen_synthesis(G)
    ws = G.mapping(torch.randn(3, 8, device=device))
    exact = ops.use("reference")(G.synthesis)(ws)
    with ops.use(implementation):
        plain, result = G.synthesis(ws, dtype=dtype), frozen(ws, dtype=dtype)
    assert result.shape == plain.shape and result.dtype == plain.dtype
    assert (result - exact).square().mean() <= 2 * (plain - exact).square().mean() + 1e-12 * exact.square().mean()
