"""LAPGAN and StackGAN: networks against plain definitions, stages, labels, derivatives, sizes."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.errors import SganError
from stylegan_cli.models.chain.config import ChainDiscriminatorConfig
from stylegan_cli.models.growing import set_alpha
from stylegan_cli.models.lapgan.config import LapganConfig, LapganDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stackgan.config import StackganConfig, StackganDiscriminatorConfig
from stylegan_cli.models.summary import parameter_count
from stylegan_cli.ops import downsample2d, fir_filter, upsample2d
from stylegan_cli.training.regularizers import gradient_penalty

SMALL = {"channel_base": 64, "channel_max": 8}


def networks(family, classes=0, size=(16, 16), **options):
    """Both networks in float64, with weights that no symmetry makes equal."""
    torch.manual_seed(0)
    if family == "lapgan":
        own = {"hidden": 12}
        g = LapganConfig(*size, c_dim=classes, z_dim=8, **SMALL | own | options)
        d = LapganDiscriminatorConfig(*size, c_dim=classes, **SMALL | own | options)
    else:
        own = {"enlarge": 2, "condition": 3}
        g = StackganConfig(*size, c_dim=classes, z_dim=10, blocks=1, **SMALL | own | options)
        d = StackganDiscriminatorConfig(*size, c_dim=classes, **SMALL | own | options)
    G, D = build_generator(g).double(), build_discriminator(d).double()
    with torch.no_grad():
        for p in (*G.parameters(), *D.parameters()):
            p.add_(0.05 * torch.randn_like(p))
    return G, D


def labels(classes, count=4):
    return torch.eye(classes, dtype=torch.float64)[torch.arange(count) % classes] if classes else None


def latents(G, count=4):
    return torch.randn(count, G.config.z_dim, dtype=torch.float64)


# --------------------------------------------------------------------------------- definitions


def test_lapgan_against_its_definition():
    G, _ = networks("lapgan", 3)
    s, z, c, f = G.synthesis.state_dict(), latents(G), labels(3), fir_filter((1, 3, 3, 1))
    uniform = 2 * torch.distributions.Normal(0.0, 1.0).cdf(z) - 1

    def linear(x, name):
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    w = torch.cat([uniform[:, :4], c], 1)
    x = linear(w, "stage0.affine").relu()
    x = linear(linear(x, "stage0.dense").relu(), "stage0.out").reshape(4, 3, 8, 8)
    low = upsample2d(x, f)
    planes = linear(torch.cat([uniform[:, 4:], c], 1), "stage1.affine").reshape(4, 2, 16, 16)
    h = torch.cat([low, planes], 1)
    for name, padding in (("conv0", 3), ("conv1", 3)):
        h = F.conv2d(h, s[f"stage1.{name}.weight"], s[f"stage1.{name}.bias"], padding=padding).relu()
    h = F.conv2d(h, s["stage1.out.weight"], s["stage1.out.bias"], padding=2)
    torch.testing.assert_close(G(z, c), low + h, atol=1e-6, rtol=1e-6)


def normalized(x, s, name):
    return F.batch_norm(x, None, None, 1 + s[f"{name}.gain"], s[f"{name}.bias"], training=True)


def test_stackgan_against_its_definition():
    G, _ = networks("stackgan", 3, size=(32, 32))
    s, z, c = G.synthesis.state_dict(), latents(G), labels(3)

    def condition(k, epsilon):  # Zhang et al. 2017, section 3.2
        name = f"stage{k}.condition.affine"
        mean, log_variance = (c @ s[f"{name}.weight"].T + s[f"{name}.bias"]).split(3, 1)
        return mean + log_variance.exp().sqrt() * epsilon

    def block(x, name, **options):
        return normalized(F.conv2d(x, s[f"{name}.conv.weight"], **options), s, f"{name}.norm")

    def up(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    x = torch.cat([condition(0, z[:, :3]), z[:, 3:5]], 1) @ s["stage0.dense.weight"][:, :, 0, 0].T
    x = normalized(x.reshape(4, 8, 4, 4), s, "stage0.norm").relu()
    for name in ("b8", "b16"):
        x = block(up(x), f"stage0.{name}", padding=1).relu()
    small = F.conv2d(x, s["stage0.out.weight"], s["stage0.out.bias"], padding=1).tanh()
    x = F.conv2d(small, s["stage1.encode.0.weight"], s["stage1.encode.0.bias"], padding=1).relu()
    x = block(x, "stage1.encode.2", stride=2, padding=1).relu()
    repeated = condition(1, z[:, 5:8])[:, :, None, None].expand(-1, -1, 8, 8)
    x = block(torch.cat([x, repeated], 1), "stage1.join", padding=1).relu()
    y = block(x, "stage1.residual.0.block0", padding=1).relu()
    x = (x + block(y, "stage1.residual.0.block1", padding=1)).relu()
    for k in (0, 1):
        x = block(up(x), f"stage1.decode.{k}", padding=1).relu()
    image = F.conv2d(x, s["stage1.out.weight"], s["stage1.out.bias"], padding=1).tanh()
    torch.testing.assert_close(G(z, c), image)
    torch.testing.assert_close(G.synthesis.image(G.mapping(z, c), 0), small)


def test_the_discriminators_against_their_definitions():
    _, D = networks("lapgan", 3)
    s, c, image = D.state_dict(), labels(3), torch.randn(4, 3, 16, 16, dtype=torch.float64)

    def linear(x, name):
        return x @ s[f"{name}.weight"].T + s.get(f"{name}.bias", 0)

    x = torch.cat([image, linear(c, "stage1.plane").reshape(4, 1, 16, 16)], 1)
    x = F.conv2d(x, s["stage1.conv0.weight"], s["stage1.conv0.bias"], padding=2).relu()
    x = F.conv2d(x, s["stage1.conv1.weight"], s["stage1.conv1.bias"], stride=2, padding=2).relu()
    torch.testing.assert_close(D(image, c), linear(x.flatten(1), "stage1.out"))
    low = image[:, :, :8, :8]
    x = linear(linear(torch.cat([low.flatten(1), c], 1), "stage0.dense0").relu(), "stage0.dense1").relu()
    torch.testing.assert_close(D.stage(0)(low, c), linear(x, "stage0.out"))

    _, D = networks("stackgan", 3)
    s = D.state_dict()
    x = F.leaky_relu(F.conv2d(image, s["stage1.blocks.0.0.weight"], s["stage1.blocks.0.0.bias"], 2, 1), 0.2)
    x = F.conv2d(x, s["stage1.blocks.1.conv.weight"], None, 2, 1)
    x = F.leaky_relu(normalized(x, s, "stage1.blocks.1.norm"), 0.2)
    compressed = F.leaky_relu(linear(c, "stage1.embed"), 0.2)[:, :, None, None].expand(-1, -1, 4, 4)
    x = F.conv2d(torch.cat([x, compressed], 1), s["stage1.join.conv.weight"])
    x = F.leaky_relu(normalized(x, s, "stage1.join.norm"), 0.2)
    torch.testing.assert_close(D(image, c), linear(x.flatten(1), "stage1.out"))


# The papers publish no counts. These follow from the layers of section 3.1 (8 -> 16 -> 32 here, 8 -> 14 -> 28 there).
def test_parameter_counts_follow_from_the_layers():
    with torch.device("meta"):
        G = build_generator(LapganConfig(32, 32, z_dim=300))
        D = build_discriminator(LapganDiscriminatorConfig(32, 32))

    def dense(a, b):
        return a * b + b

    def conv(a, b, kernel):
        return a * b * kernel**2 + b

    levels = sum(dense(100, size**2) + conv(4, 128, 7) + conv(128, 128, 7) + conv(128, 3, 5) for size in (16, 32))
    assert parameter_count(G) == dense(100, 1200) + dense(1200, 1200) + dense(1200, 192) + levels
    levels = sum(conv(3, 64, 5) + conv(64, 64, 5) + dense(16 * size**2, 1) for size in (16, 32))
    assert parameter_count(D) == dense(192, 600) + dense(600, 600) + dense(600, 1) + levels


def test_published_sizes_of_stackgan():
    """Section 3.4: 64 and 256 pixels, 16 x 16 features in the second stage, 4 x 4 in the discriminators, N_g = 128."""
    config = StackganConfig(256, 256, channel_base=6144)
    assert [stage.height for stage in config.stages] == [64, 256]
    assert config.part - config.condition == 100 and config.condition == 128
    with torch.device("meta"):
        G = build_generator(config)
        D = build_discriminator(StackganDiscriminatorConfig(256, 256, c_dim=2))
    shapes = {}
    G.synthesis.stage1.join.register_forward_hook(lambda m, x, y: shapes.update(join=tuple(y.shape)))
    D.stage1.join.register_forward_hook(lambda m, x, y: shapes.update(D=tuple(y.shape)))
    image = G(torch.zeros(2, 456, device="meta"))
    D(image, torch.zeros(2, 2, device="meta"))
    assert image.shape == (2, 3, 256, 256) and shapes == {"join": (2, 768, 16, 16), "D": (2, 768, 4, 4)}
    assert len(G.synthesis.stage1.residual) == 4


# -------------------------------------------------------------------------------------- chains


@pytest.mark.parametrize("family", ["lapgan", "stackgan"])
def test_the_rows_of_the_layer_table_are_the_images_of_the_stages(family):
    G, _ = networks(family, size=(32, 32) if family == "lapgan" else (16, 16))
    ws, names = G.mapping(latents(G)), [row.name for row in G.layers]
    found = G.synthesis.read_features(ws, names)
    for row in G.layers:
        assert found[row.name].shape == (4, row.channels, row.height, row.width)
        torch.testing.assert_close(found[row.name], G.synthesis.image(ws, row.w_index))
    torch.testing.assert_close(found[names[-1]], G.synthesis(ws))
    changed = ws.clone()
    changed[:, -1] += 1
    assert not torch.allclose(G.synthesis(changed), G.synthesis(ws), atol=1e-3)
    torch.testing.assert_close(G.synthesis.image(changed, G.num_ws - 2), found[names[-2]])


def test_an_untrained_second_stage_shows_the_first():
    G, _ = networks("stackgan")
    ws = G.mapping(latents(G))
    set_alpha(G, 0.0)
    small = G.synthesis.image(ws, 0)
    torch.testing.assert_close(G.synthesis(ws), small.repeat_interleave(2, 2).repeat_interleave(2, 3))
    set_alpha(G, 1.0)
    torch.testing.assert_close(G.synthesis(ws), G.synthesis.image(ws, 1))


def test_real_images_shrink_by_octaves():
    G, _ = networks("lapgan", size=(32, 32))
    image, f = torch.randn(2, 3, 32, 32, dtype=torch.float64), fir_filter((1, 3, 3, 1))
    torch.testing.assert_close(G.synthesis.shrink(image, 0), downsample2d(downsample2d(image, f), f))
    assert G.synthesis.shrink(image, 2) is image


@pytest.mark.parametrize("family", ["lapgan", "stackgan"])
def test_the_weights_of_styles(family):
    """The derivative of the first features that see the latent; of StackGAN without labels."""
    G, _ = networks(family, 3 if family == "lapgan" else 0)
    G.eval()
    ws = G.mapping(latents(G, 1), labels(3, 1) if family == "lapgan" else None)
    first = ("affine", "affine") if family == "lapgan" else ("dense", "join.conv")
    for row, name in zip(G.layers, first):
        seen = {}
        layer = G.get_submodule(f"{row.name}.{name}")
        layer.register_forward_hook(lambda m, x, y, seen=seen: seen.update(y=y))

        def features(w, row=row, seen=seen):
            G.synthesis(torch.cat([ws[:, : row.w_index], w[:, None], ws[:, row.w_index + 1 :]], 1))
            y = seen["y"]  # of a layer with edges: one position away from them
            return y[0, :, y.shape[2] // 2, y.shape[3] // 2] if y.ndim == 4 else y[0]

        jacobian = torch.autograd.functional.jacobian(features, ws[:, row.w_index])[:, 0]
        torch.testing.assert_close(G.style_weight(row), jacobian)


@pytest.mark.parametrize("family", ["lapgan", "stackgan"])
def test_labels(family):
    G, D = networks(family, 3)
    z, c, image = latents(G), labels(3), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    other = c.roll(1, 1)
    assert not torch.allclose(G(z, c), G(z, other)) and not torch.allclose(D(image, c), D(image, other))
    for call in (lambda: G(z), lambda: D(image)):
        with pytest.raises(ValueError, match="needs c"):
            call()
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 16, 16\]"):
        D(image[:, :, :8, :8], c)
    assert [len(x) for x in D.features(image)] == [4] * len(D.features(image))


@pytest.mark.parametrize("family", ["lapgan", "stackgan"])
def test_which_images_depend_on_each_other(family):
    """Batch normalization mixes the images of StackGAN while training."""
    G, D = networks(family)
    z, image = latents(G), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    alone = torch.allclose(G(z)[:2], G(z[:2])), torch.allclose(D(image)[:2], D(image[:2]))
    assert alone == (family == "lapgan",) * 2
    assert G.config.uses_batch == (not alone[0]) and (D.config.batch_group == 1) == alone[1]
    G.eval(), D.judge_separately()
    torch.testing.assert_close(G(z)[:2], G(z[:2]))
    torch.testing.assert_close(D(image)[:2], D(image[:2]))
    torch.testing.assert_close(D.stage(0)(image[:, :, :8, :8])[:2], D.stage(0)(image[:2, :, :8, :8]))


@pytest.mark.parametrize("family", ["lapgan", "stackgan"])
def test_derivatives(family):
    """First ones of both networks, and second ones of the discriminators, which R1 needs."""
    G, D = networks(family, 2)
    z, c = latents(G, 3).requires_grad_(True), labels(2, 3)
    weight = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: (G(z, c) * weight).sum((1, 2, 3)), z)
    for k, level in enumerate(D.config.stages):
        image = torch.randn(3, 3, level.height, level.width, dtype=torch.float64, requires_grad=True)
        value = gradient_penalty(D.stage(k)(image, c), image).sum()
        (gradient,) = torch.autograd.grad(value, image, allow_unused=True)
        direction = torch.randn_like(image)

        def penalty(step, k=k, image=image, direction=direction):
            moved = (image + step * direction).detach().requires_grad_(True)
            return gradient_penalty(D.stage(k)(moved, c), moved).sum().item()

        numeric = (penalty(1e-6) - penalty(-1e-6)) / 2e-6
        analytic = 0.0 if gradient is None else (gradient * direction).sum().item()
        assert analytic == pytest.approx(numeric, rel=1e-4, abs=1e-5)


# --------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("family", ["lapgan", "stackgan"])
def test_rectangles_and_gray_images(family):
    G, D = networks(family, size=(24, 48), channels=1)
    image = G(latents(G))
    assert image.shape == (4, 1, 24, 48) and D(image).shape == (4, 1)
    assert [(x.height, x.width) for x in G.config.stages][-2:] == [(12, 24), (24, 48)]


def test_sizes_that_have_no_stages():
    with pytest.raises(SganError, match="no level above 8"):
        LapganConfig(8, 8)
    with pytest.raises(SganError, match="16x16 .* too small for two stages") as caught:
        StackganConfig(16, 16)
    assert "--size 32," in caught.value.hint
    with pytest.raises(SganError, match="4x4 .* cannot be halved"):
        LapganConfig(4, 4)
    with pytest.raises(SganError, match="z has 8 numbers, 4 for each stage, but the condition alone has 128"):
        StackganConfig(64, 64, z_dim=8)
    with pytest.raises(SganError, match="z has 1 numbers, fewer than there are stages: 3"):
        LapganConfig(32, 32, z_dim=1, c_dim=2)
    with pytest.raises(SganError, match="enlarge"):
        StackganConfig(64, 64, enlarge=3)


def test_labels_have_one_way_into_the_discriminator():
    config = LapganDiscriminatorConfig(16, 16)
    assert isinstance(config, ChainDiscriminatorConfig) and config.labels == "concat"
    with pytest.raises(SganError, match="discriminator labels"):
        dataclasses.replace(config, labels="classifier")
    with pytest.raises(SganError, match="codes"):
        dataclasses.replace(config, codes=2)


def test_what_is_left_of_z_has_no_effect():
    G, _ = networks("lapgan", size=(32, 32))  # 8 numbers for 3 stages
    z = latents(G)
    assert G.mapping(z).shape == (4, 3, 2)
    torch.testing.assert_close(G(torch.cat([z[:, :6], z[:, 6:] + 1], 1)), G(z))
    assert G.mapping(z)[:, 0].abs().max() < 1 and math.isclose(
        G.mapping(torch.full((1, 8), 0.5, dtype=torch.float64))[0, 0, 0].item(), math.erf(0.5 / math.sqrt(2))
    )
